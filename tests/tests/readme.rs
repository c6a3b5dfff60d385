//! README's commands, run as they stand there.

use std::fs;
use std::process::Command;

use tollgate_e2e::harness::artifacts::repository;

/// What runs this test can't be run by it.
const NOT_RUN: [&str; 1] = ["make test"];

/// The lines behind `$ ` in blocks marked `console`, in their order.
fn commands(readme: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut in_console = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            in_console = line == "```console";
        } else if in_console && let Some(command) = line.strip_prefix("$ ") {
            commands.push(command);
        }
    }
    commands
}

#[test]
fn every_command_succeeds() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let commands = commands(&readme);
    assert!(commands.contains(&"make demo") && commands.contains(&"make up"), "{commands:?}");
    // Whatever fails in between, nothing stays up.
    let mut failures = Vec::new();
    for command in commands.into_iter().filter(|command| !NOT_RUN.contains(command)) {
        eprintln!("$ {command}");
        let output = shell(command);
        if !output.status.success() {
            failures.push(format!(
                "$ {command}\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs a command as a newcomer's shell would: without what cargo and make set for this test. curl fails on an error
/// status, and a pipe where any part fails.
fn shell(command: &str) -> std::process::Output {
    let inherited = std::env::vars().map(|(name, _)| name);
    let mut shell = Command::new("bash");
    for name in inherited.filter(|name| name.starts_with("CARGO") || name.starts_with("MAKE") || name == "MFLAGS") {
        shell.env_remove(name);
    }
    let command = command.replace("curl ", "curl --fail-with-body ");
    shell.args(["-o", "pipefail", "-c", &command]).current_dir(repository()).output().unwrap()
}
