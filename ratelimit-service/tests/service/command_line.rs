//! What an operator sees on the command line.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::harness::{Folder, Service, tollgate};

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_config_error_names_the_place_and_the_field() {
    let limit = "tiers:\n  pro:\n    context_tokens: 8192\n    limits:\n      - ";
    let cases = [
        (
            "limiter:\n  tier: pro\n",
            "2:3: limiter.tier: unknown field `tier`, expected one of domain, default_tier, \
             unknown_tier, reservation_timeout_s, answer_percentile, unknown_answer_tokens, \
             lease_lifetime_ms, lease_share_percent",
        ),
        (
            "grps: {}\n",
            "1:1: grps: unknown field `grps`, expected one of grpc, rest, limiter, counters, ledger, accounts, billing, spool, collector, sinks, \
             webhooks, alerts, metrics, reconcile, log, tiers, tenants, prices",
        ),
        (
            "collector: { dead_letters: { max_mib: 0 } }\n",
            "1:39: collector.dead_letters.max_mib: 0 is not between 1 and 4096",
        ),
        (
            "collector:\n  tenant_attributes: [tenant.id, '']\n",
            "2:34: collector.tenant_attributes[1]: a name has 1 to 256 bytes; this one has 0",
        ),
        ("rest: { burst: 0 }\n", "1:16: rest.burst: 0 is not between 1 and 100000"),
        ("metrics: { max_tenants: 100001 }\n", "1:25: metrics.max_tenants: 100001 is not between 0 and 100000"),
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
             input_tokens, output_tokens, cost, concurrency",
        ),
        (
            &format!("{limit}{{unit: tokens, capacity: 0, window: day}}\n"),
            "5:9: tiers.pro.limits[0].capacity: is zero; give more, or leave the limit out",
        ),
        (
            &format!("{limit}{{unit: tokens, capacity: 1}}\n"),
            "5:9: tiers.pro.limits[0].window: is missing; give second, minute, hour, day or month",
        ),
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
fn what_a_limit_a_price_or_a_tenant_cannot_be_is_told_at_its_place() {
    let limit = |fields: &str| {
        format!(
            "tiers:\n  pro:\n    context_tokens: 8192\n    limits:\n      - {{ capacity: 1, window: day, {fields} }}\n"
        )
    };
    let many = (0..33).map(|n| format!("{{ unit: tokens, capacity: 1, window: day, match: {{ models: [m{n}] }} }}"));
    let many = many.collect::<Vec<_>>();
    let cases = [
        (
            limit("unit: tokens").replace("y: 1,", "y: 1.5,"),
            "5:9: tiers.pro.limits[0].capacity: only cost has decimals; give a whole number",
        ),
        (
            limit("unit: cost").replace("y: 1,", "y: 1e3,"),
            "5:21: tiers.pro.limits[0].capacity: `1e3` is no number from 0 up with at most 9 decimals; write it in \
             digits, such as 10.5",
        ),
        (
            limit("unit: tokens, burst: 3"),
            "5:9: tiers.pro.limits[0].burst: only a second, minute or hour is refilled; leave it out here",
        ),
        (
            limit("unit: tokens").replace("y: 1,", "y: 99999999999999999,"),
            "5:9: tiers.pro.limits[0].capacity: at most 9007199254740991 can be counted, or $9007199 of cost",
        ),
        (
            limit("unit: cost, burst: 9007200").replace("day", "hour"),
            "5:9: tiers.pro.limits[0].burst: at most 9007199254740991 can be counted, or $9007199 of cost",
        ),
        ("limiter: { domain: '' }\n".into(), "1:20: limiter.domain: a name has 1 to 256 bytes; this one has 0"),
        (
            limit("unit: concurrency"),
            "5:9: tiers.pro.limits[0].window: concurrency counts what is going on now; leave it out",
        ),
        (
            limit("unit: cost, weights: { output: 2 }"),
            "5:9: tiers.pro.limits[0].weights: cost and concurrency count as they are; leave them out",
        ),
        (
            limit("unit: requests, weights: { models: { 'o1*': 0.1 } }"),
            "5:9: tiers.pro.limits[0].weights.models: a request counts whole times; give whole numbers, and multiply the \
             capacity instead",
        ),
        (
            limit("unit: tokens, match: { models: [''] }"),
            "5:69: tiers.pro.limits[0].match.models[0]: the pattern is empty; * stands for all",
        ),
        (
            limit("unit: tokens, match: {}"),
            "5:58: tiers.pro.limits[0].match: names no models, apis or keys; leave it out for all calls",
        ),
        (
            limit("unit: tokens, weights: { output: 0.0001 }"),
            "5:70: tiers.pro.limits[0].weights.output: `0.0001` is no number from 0 up with at most 3 decimals; write it \
             in digits, such as 10.5",
        ),
        (
            limit("unit: tokens, weights: { models: { 'a,b': 1 } }"),
            "5:72: tiers.pro.limits[0].weights.models.a,b: `a,b` has characters other than visible ASCII without , ; { }",
        ),
        (
            format!("tiers:\n  a: {{ context_tokens: 1, limits: [{}] }}\n", many.join(", ")),
            "2:35: tiers.a.limits: 33 limits; at most 32 hold together",
        ),
        (
            format!("tenants:\n  a: {{ tier: pro, limits: [{}] }}\n", many[..30].join(", ")),
            " tenants.a.limits: 33 with those of enterprise; at most 32 hold together",
        ),
        (
            "tenants:\n  acme: { tier: gold }\n".into(),
            "2:17: tenants.acme.tier: no tier is called `gold`; `tiers` has: enterprise, pro, starter",
        ),
        ("tenants:\n  acme: { tier: ~, limits: 1 }\n".into(), "2:28: tenants.acme.limits: "),
        (
            "tenants:\n  acme: { billing_anchor: 2026-01-15 }\n".into(),
            "2:27: tenants.acme.billing_anchor: `2026-01-15` is no moment since 1970, such as 2026-01-15T08:00:00Z",
        ),
        ("tenants:\n  '': {}\n".into(), "2:3: tenants: a name has 1 to 256 bytes; this one has 0"),
        ("limiter:\n  default_tier: ~\n".into(), "2:17: limiter.default_tier: null is not allowed here"),
        (
            "limiter: { answer_percentile: 101 }\n".into(),
            "1:31: limiter.answer_percentile: 101 is not between 1 and 100",
        ),
        (
            "prices:\n  - { model: a }\n".into(),
            "2:5: prices[0]: names no price; give input: 0 for a model that costs nothing",
        ),
        (
            "prices:\n  - { model: a, input: 1 }\n  - { model: a, input: 2 }\n".into(),
            "2:3: prices: [1] and [0] are both for a; keep one of them",
        ),
        (
            "prices:\n  - { model: a, input: 1000001 }\n".into(),
            "2:24: prices[0].input: a price is at most 1000000 US dollars",
        ),
    ];
    let folder = Folder::new();
    for (text, expected) in cases {
        let file = folder.write("tollgate.yaml", &text);
        let output = tollgate(&["check-config"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let expected = format!("tollgate: {}:{expected}", file.display());
        assert!(stderr(&output).starts_with(&expected), "{text}{}{expected}", stderr(&output));
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
fn the_examples_are_right_and_nothing_in_them_is_hardly_meant() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let output = tollgate(&["check-config"]).arg(&file).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!((stdout, stderr.as_str()), (format!("{}: ok\n", file.display()), ""));
    }
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let folder = Folder::new();
    let text = "limiter: { default_tier: a }
tiers:
  a:
    context_tokens: 1000
    limits:
      - { unit: cost, capacity: 0.1, window: day }
      - { unit: tokens, capacity: 1000, window: hour, burst: 999 }
      - { unit: tokens, capacity: 10, window: day, action: warn }
      - { unit: input_tokens, capacity: 2000, window: day, weights: { cache_read: 0.1, reasoning: 2 } }
      - { unit: output_tokens, capacity: 10, window: day, weights: { output: 2, input: 1 } }
      - { unit: requests, capacity: 10, window: day, weights: { output: 2 } }
      - { unit: requests, capacity: 10, window: day, match: { apis: [openai.chat, '*-chat'] } }
      - { unit: output_tokens, capacity: 999, window: hour }
prices:
  - { model: gpt-4o, input: 1 }
";
    let file = folder.write("tollgate.yaml", text);
    let output = tollgate(&["check-config"]).arg(&file).output().unwrap();
    assert!(output.status.success());
    let warning = |text: &str| format!("tollgate: {}: warning: tiers.a.limits{text}\n", file.display());
    let cost = warning("[0]: calls of models without a price cost nothing here; end `prices` with one for *");
    let burst = warning("[1]: a prompt as long as context_tokens never passes: 999 are taken at once");
    let unknown = |index: usize| {
        warning(&format!(
            "[{index}]: a call without a cap holds all of it: its answer is taken to have limiter.unknown_answer_tokens, \
             1000, and 999 are taken at once"
        ))
    };
    let idle = |index: usize, unit: &str| {
        warning(&format!("[{index}]: weights: some are of tokens that {unit} do not count, and change nothing"))
    };
    let apis = warning("[6]: match.apis: `openai.chat` is none that the filter knows: openai-chat, ");
    let (told, known) = stderr(&output).split_once(apis.trim_end()).unwrap();
    let idle = idle(3, "input_tokens") + &idle(4, "output_tokens") + &idle(5, "requests");
    assert_eq!(told, cost + &burst + &unknown(1) + &idle);
    assert_eq!(known.split_once('\n').unwrap().1, unknown(7));
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
