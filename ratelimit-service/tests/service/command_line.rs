//! What an operator sees on the command line.

use std::process::Output;

use crate::harness::{Folder, Service, tollgate};

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_config_error_names_the_place_and_the_field() {
    let limit = "tiers:\n  pro:\n    context_tokens: 8192\n    limits:\n      - ";
    let cases = [
        ("limiter:\n  tier: pro\n", "2:3: limiter.tier: unknown field `tier`, expected one of domain, default_tier"),
        ("grps: {}\n", "1:1: grps: unknown field `grps`, expected one of grpc, rest, limiter, ledger, log, tiers"),
        ("grpc: { listen: 8081 }\n", "1:17: grpc.listen: invalid socket address syntax"),
        ("log:\n  format: xml\n", "2:11: log.format: unknown variant `xml`, expected one of text, json"),
        (
            "log: { filter: 'a=b=c' }\n",
            "1:16: log.filter: invalid filter directive: too many '=' in filter directive, expected 0 or 1",
        ),
        (
            &format!("{limit}{{unit: requests, capacity: 1, window: fortnight}}\n"),
            "5:47: tiers.pro.limits[0].window: unknown variant `fortnight`, expected one of second, minute, hour, day, \
             month",
        ),
        (
            &format!("{limit}{{unit: bananas, capacity: 1, window: day}}\n"),
            "5:16: tiers.pro.limits[0].unit: unknown variant `bananas`, expected one of requests, tokens, \
             input_tokens, output_tokens",
        ),
        (
            &format!("{limit}{{unit: tokens, capacity: 0, window: day}}\n"),
            "5:24: tiers.pro.limits[0].capacity: invalid value: integer `0`, expected a nonzero u64",
        ),
        (&format!("{limit}{{unit: tokens, capacity: 1}}\n"), "5:24: tiers.pro.limits[0]: missing field `window`"),
        (
            &format!(
                "{limit}{{unit: tokens, capacity: 1, window: day}}\n      - {{unit: tokens, capacity: 2, window: day}}\n"
            ),
            "5:7: tiers.pro.limits: [1] and [0] both limit tokens_per_day; keep one of them",
        ),
        (
            "tiers:\n  pro: { context_tokens: 8192, limits: [] }\n",
            " limiter.default_tier: no tier is called `starter`; `tiers` has: pro",
        ),
        ("rest: {}\nrest: {}\n", "2:1: duplicate mapping key `rest` is not allowed here"),
        ("rest:\n  listen: x\n grpc:\n", "2:11: rest.listen: invalid socket address syntax"),
        ("rest: {}\n grpc:\n", "2:2: while parsing a block mapping, did not find expected key"),
    ];
    let folder = Folder::new();
    for (text, expected) in cases {
        let file = folder.write("tollgate.yaml", text);
        let output = tollgate(&["check-config"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(stderr(&output), format!("tollgate: {}:{expected}\n", file.display()), "{text}");
    }
}

#[test]
fn a_good_config_is_ok_and_a_missing_one_is_told() {
    let folder = Folder::new();
    let file = folder.write("tollgate.yaml", "log: { format: json }\n");
    let output = tollgate(&["check-config"]).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}: ok\n", file.display()));
    assert!(output.status.success());

    let missing = folder.path("missing.yaml");
    let output = tollgate(&["serve", "--config"]).arg(&missing).output().unwrap();
    let expected = format!("tollgate: {}: cannot be read: No such file or directory (os error 2)\n", missing.display());
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), expected.as_str()));
}

#[test]
fn a_busy_port_is_named_with_its_key() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let busy = service.grpc();
    for key in ["grpc", "rest"] {
        let other = if key == "grpc" { "rest" } else { "grpc" };
        let text = format!("{key}: {{ listen: {busy} }}\n{other}: {{ listen: 127.0.0.1:0 }}\n");
        let file =
            folder.write("busy.yaml", &format!("{text}ledger: {{ sqlite: {} }}\n", folder.path("b.db").display()));
        let output = tollgate(&["serve", "--config"]).arg(&file).output().unwrap();
        let expected =
            format!("tollgate: {key}.listen: cannot listen on {busy}: Address already in use (os error 98)\n");
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), expected.as_str()));
    }
}

#[test]
fn a_ledger_that_cannot_be_opened_is_named_with_its_key() {
    let folder = Folder::new();
    let taken = folder.write(
        "taken",
        "no database, and longer than the header that a database begins with: 100 bytes of it. Enough.",
    );
    let text = "grpc: { listen: 127.0.0.1:0 }\nrest: { listen: 127.0.0.1:0 }\nledger: { sqlite: FILE }\n";
    let file = folder.write("tollgate.yaml", &text.replace("FILE", &taken.display().to_string()));
    let output = tollgate(&["serve", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("tollgate: ledger.sqlite: cannot open {}: ", taken.display());
    assert!(stderr(&output).starts_with(&expected), "{}", stderr(&output));
    assert!(stderr(&output).ends_with("file is not a database\n"), "{}", stderr(&output));
}

#[test]
fn inspect_reads_a_recorded_response() {
    let folder = Folder::new();
    let body =
        "{\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}";
    let file = folder.write("answer.json", body);
    let output = tollgate(&["inspect"]).arg(&file).output().unwrap();
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&line["input_tokens"], &line["output_tokens"]), (&3.into(), &2.into()));
    assert!(output.status.success());
    assert_eq!(tollgate(&["inspect"]).arg(folder.path("none.json")).output().unwrap().status.code(), Some(1));
}
