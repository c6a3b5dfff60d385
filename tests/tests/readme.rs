//! README's commands, run as they stand there.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use tollgate_e2e::harness::artifacts::repository;
use tollgate_e2e::harness::run_dir::RunDir;

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

/// What `make up` listens on unless told otherwise, and the variables that tell it.
const PORTS: [(&str, &str); 5] = [
    ("ENVOY_PORT", "10000"),
    ("ADMIN_PORT", "9901"),
    ("REST_PORT", "8080"),
    ("GRPC_PORT", "8081"),
    ("STANDIN_PORT", "9000"),
];

#[test]
fn every_command_succeeds() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let commands = commands(&readme);
    assert!(commands.contains(&"make demo") && commands.contains(&"make up"), "{commands:?}");
    let own = Own::new();
    // Whatever fails in between, nothing stays up.
    let mut failures = Vec::new();
    for command in commands.into_iter().filter(|command| !NOT_RUN.contains(command)) {
        eprintln!("$ {command}");
        let output = own.run(command);
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

/// Ports and a folder of the test's own, so that what a developer has up is left alone.
struct Own {
    ports: Vec<String>,
    dir: RunDir,
}

impl Own {
    fn new() -> Own {
        // All are held at once, so that they differ.
        let held = PORTS.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = held.iter().map(|listener| listener.local_addr().unwrap().port().to_string()).collect();
        Own { ports, dir: RunDir::create().unwrap() }
    }

    /// Runs a command as a newcomer's shell would: without what cargo and make set for this test. curl fails on an error
    /// status, and a pipe where any part fails.
    fn run(&self, command: &str) -> Output {
        let mut command = command.replace("curl ", "curl --fail-with-body ");
        let mut shell = Command::new("bash");
        let of_the_build = |name: &str| name.starts_with("CARGO_PKG") || name.starts_with("CARGO_MANIFEST");
        for (name, _) in std::env::vars().filter(|(name, _)| of_the_build(name) || name.starts_with("MAKE")) {
            shell.env_remove(name);
        }
        for ((variable, port), own) in PORTS.iter().zip(&self.ports) {
            command = command.replace(&format!("127.0.0.1:{port}/"), &format!("127.0.0.1:{own}/"));
            shell.env(variable, own);
        }
        shell.env("TOLLGATE_RUN_DIR", self.dir.path());
        let [_, _, rest, ..] = self.ports.as_slice() else { panic!("{:?}", self.ports) };
        shell.env("TOLLGATE_URL", format!("http://127.0.0.1:{rest}"));
        shell.args(["-o", "pipefail", "-c", &command]).current_dir(repository()).output().unwrap()
    }
}
