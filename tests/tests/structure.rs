//! The crates know of each other, and of the outer world, only what ARCHITECTURE.md lets them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand};
use tollgate_e2e::harness::artifacts::repository;

/// Who may import which crates of the workspace, in the code that is shipped.
const EDGES: [(&str, &[&str]); 6] = [
    ("tollgate-usage", &[]),
    ("tollgate-domain", &[]),
    ("tollgate-wire", &[]),
    ("tollgate-flow", &["tollgate-usage", "tollgate-wire"]),
    ("tollgate-filter", &["tollgate-flow", "tollgate-usage", "tollgate-wire"]),
    ("tollgate", &["tollgate-domain", "tollgate-usage", "tollgate-wire"]),
];

/// The crates that are functions of their arguments alone, and where their sources lie.
const PURE: [(&str, &str); 3] = [
    ("tollgate-usage", "filter/usage/src"),
    ("tollgate-flow", "filter/flow/src"),
    ("tollgate-domain", "ratelimit-service/domain/src"),
];

/// Crates that bring a runtime, a network, a host, a clock or chance.
const IMPURE_CRATES: [&str; 12] = [
    "tokio",
    "tonic",
    "hyper",
    "axum",
    "mio",
    "socket2",
    "proxy-wasm",
    "getrandom",
    "rand",
    "fastrand",
    "chrono",
    "time",
];

/// What a pure crate's sources may not name.
const IMPURE_PATHS: [&str; 8] =
    ["Instant", "SystemTime", "std::env", "std::fs", "std::net", "std::thread", "std::process", "::now("];

#[test]
fn crates_import_only_whom_they_may() {
    let metadata = MetadataCommand::new().no_deps().current_dir(repository()).exec().unwrap();
    let members: BTreeSet<_> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    for (name, allowed) in EDGES {
        let package = metadata.packages.iter().find(|package| package.name == name).unwrap();
        let shipped = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
        let imported: BTreeSet<_> =
            shipped.map(|dependency| dependency.name.as_str()).filter(|name| members.contains(*name)).collect();
        let forbidden: Vec<_> = imported.iter().filter(|name| !allowed.contains(name)).collect();
        assert!(forbidden.is_empty(), "{name} imports {forbidden:?}, and may import {allowed:?} only");
    }
    let known: BTreeSet<_> = EDGES.iter().map(|(name, _)| (*name).to_owned()).chain(["tollgate-e2e".into()]).collect();
    assert_eq!(members, known, "a crate of the workspace has no edges of its own in this test");
}

#[test]
fn pure_crates_depend_on_nothing_impure() {
    for (name, _) in PURE {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package", name]);
        let output = cargo.current_dir(repository()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout).unwrap();
        let crates: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(crates.contains(name), "{tree}");
        let impure: Vec<_> = IMPURE_CRATES.iter().filter(|impure| crates.contains(*impure)).collect();
        assert!(impure.is_empty(), "{name} depends on {impure:?}");
    }
}

#[test]
fn pure_crates_take_time_ids_and_chance_as_arguments() {
    for (name, dir) in PURE {
        let sources = rust_files(&repository().join(dir));
        assert!(!sources.is_empty(), "{name} has no sources in {dir}");
        for path in sources {
            let text = fs::read_to_string(&path).unwrap();
            // Tests stand at a file's end, and may do as they like.
            let shipped = text.lines().take_while(|line| *line != "#[cfg(test)]").enumerate();
            for (index, line) in shipped.filter(|(_, line)| !line.trim_start().starts_with("//")) {
                let named = IMPURE_PATHS.iter().find(|path| line.contains(*path));
                assert_eq!(named, None, "{}:{}: {line}", path.display(), index + 1);
            }
        }
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
