//! What operators ask from the command line: records, keys, prices, made-up data.

use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Folder, Service, event, tollgate};
use crate::receiver::Receiver;

/// What a command said, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    fn refused(self, why: &str) {
        assert!(self.code == 1 && self.err.contains(why), "{self:?}");
    }
}

fn run(mut command: Command) -> Said {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

async fn ask(service: &Service, args: &[&str]) -> Said {
    ask_with_key(service, "", args).await
}

async fn ask_with_key(service: &Service, key: &str, args: &[&str]) -> Said {
    let mut command = tollgate(args);
    command.env("TOLLGATE_URL", format!("http://{}", service.rest())).env("TOLLGATE_KEY", key);
    tokio::task::spawn_blocking(move || run(command)).await.unwrap()
}

fn offline(args: &[&str]) -> Said {
    run(tollgate(args))
}

/// A table's lines without how wide its columns are.
fn lines(table: &str) -> Vec<String> {
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn tenants_are_set_shown_suspended_and_deleted() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    ask(&service, &["tenants", "get", "acme"]).await.refused("404 Not Found: there is no tenant `acme`");
    ask(&service, &["tenants", "set", "acme", "--tier", "large", "--display-name", "Acme"]).await.ok();
    let changed = ask(&service, &["tenants", "set", "acme", "--time-zone", "Europe/Berlin"]).await.ok();
    let expected = "\
id              acme
display_name    Acme
tier            large
status          active
time_zone       Europe/Berlin
billing_anchor  -
version         2
";
    assert_eq!(changed, expected);
    ask(&service, &["tenants", "set", "zeta"]).await.ok();
    let suspended = ask(&service, &["tenants", "suspend", "acme", "--json"]).await.ok();
    let suspended: Value = serde_json::from_str(&suspended).unwrap();
    assert_eq!((&suspended["status"], &suspended["version"]), (&"suspended".into(), &3.into()));
    let expected = "\
id    display_name  tier   status     time_zone      billing_anchor  version
acme  Acme          large  suspended  Europe/Berlin               -        3
zeta  -             -      active     UTC                         -        1
";
    assert_eq!(ask(&service, &["tenants", "list"]).await.ok(), expected);
    assert_eq!(ask(&service, &["tenants", "list", "--json"]).await.ok().lines().count(), 2);
    let resumed = ask(&service, &["tenants", "resume", "acme"]).await.ok();
    assert!(lines(&resumed).contains(&"status active".to_owned()), "{resumed}");
    // An empty text clears.
    let cleared = ask(&service, &["tenants", "set", "acme", "--tier", ""]).await.ok();
    assert!(lines(&cleared).contains(&"tier -".to_owned()), "{cleared}");
    ask(&service, &["tenants", "set", "acme", "--tier", "none"]).await.refused("400 Bad Request: tier: no plan");
    assert_eq!(ask(&service, &["tenants", "delete", "acme"]).await.ok(), "acme: deleted\n");
    ask(&service, &["tenants", "suspend", "acme"]).await.refused("404");
}

#[tokio::test]
async fn plans_budgets_and_usage_are_told_in_tables() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let limits = folder.write("limits.json", r#"[{"unit":"tokens","capacity":5000,"window":"month"}]"#);
    let limits = format!("@{}", limits.display());
    let plan = ["plans", "set", "gold", "--context-tokens", "1000", "--limits", &limits, "--markup-ppm", "1100000"];
    ask(&service, &plan).await.ok();
    let listed = lines(&ask(&service, &["plans", "list"]).await.ok());
    assert!(listed[1].starts_with(r#"gold 1000 1100000 [{"#), "{listed:?}");
    ask(&service, &["plans", "set", "gold", "--limits", "[{}]"]).await.refused("400 Bad Request: limits");
    ask(&service, &["plans", "set", "new"]).await.refused("context_tokens");
    ask(&service, &["plans", "delete", "gold"]).await.ok();

    ask(&service, &["tenants", "set", "acme"]).await.ok();
    let budget = ["budgets", "set", "b", "--tenant", "acme", "--amount", "10.5", "--enforcement", "soft"];
    ask(&service, &[&budget[..], &["--thresholds", "50,80"]].concat()).await.ok();
    let expected = "\
id  tenant  key  amount_usd  enforcement  thresholds  version
b   acme      -        10.5  soft         50,80             1
";
    assert_eq!(ask(&service, &["budgets", "list", "--tenant", "acme"]).await.ok(), expected);
    ask(&service, &["budgets", "delete", "b"]).await.ok();

    service.export(&[event("e1", "acme", 30, 12)]).await;
    let usage = lines(&ask(&service, &["usage", "acme", "--period", "day"]).await.ok());
    assert!(usage.contains(&"total_tokens 42".to_owned()) && usage.contains(&"requests 1".to_owned()), "{usage:?}");
    ask(&service, &["invoices", "get", "none"]).await.refused("404");
}

#[tokio::test]
async fn keys_are_made_shown_to_the_service_and_revoked() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    ask(&service, &["tenants", "set", "acme"]).await.ok();
    let made = ask(&service, &["keys", "create", "--name", "reports", "--tenant", "acme", "--json"]).await.ok();
    let made: Value = serde_json::from_str(&made).unwrap();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    ask_with_key(&service, key, &["usage", "acme"]).await.ok();
    ask_with_key(&service, key, &["usage", "zeta"]).await.refused("403 Forbidden");
    ask_with_key(&service, key, &["reconcile"]).await.refused("403 Forbidden");
    ask_with_key(&service, "tg_wrong", &["tenants", "list"]).await.refused("401 Unauthorized");
    // A file goes before the environment.
    let file = folder.write("key", &format!("{key}\n"));
    ask_with_key(&service, "tg_wrong", &["usage", "acme", "--key-file", &file.display().to_string()]).await.ok();
    let listed = ask(&service, &["keys", "list", "--tenant", "acme"]).await.ok();
    assert!(listed.contains(id) && !listed.contains(key), "{listed}");
    ask(&service, &["keys", "revoke", id]).await.ok();
    ask_with_key(&service, key, &["usage", "acme"]).await.refused("401 Unauthorized");
}

#[test]
fn prices_are_told_without_a_service() {
    let day = ["--day", "2026-11-26", "--offline"];
    let cost = ["prices", "cost", "gpt-4o-mini", "--provider", "openai", "--input", "1000", "--output", "1000"];
    let expected = "\
model     gpt-4o-mini
provider  openai
day       2026-11-26
version   gpt-4o-mini@1970-01-01
layer     shipped
cost_usd  0.00075
";
    assert_eq!(offline(&[&cost[..], &day].concat()).ok(), expected);
    let unknown = offline(&[&["prices", "cost", "mystery"][..], &day].concat());
    assert_eq!(unknown.code, 1, "{unknown:?}");
    let compare = ["prices", "compare", "--provider", "openai", "--model", "gpt-4o*", "--input", "1000000"];
    let compared = offline(&[&compare[..], &["--limit", "1"], &day].concat()).ok();
    let expected = "\
model        provider  cost_usd  version                 layer
gpt-4o-mini  openai        0.15  gpt-4o-mini@1970-01-01  shipped
";
    assert_eq!(compared, expected);
    let drawn = ["prices", "cost", "dall-e-3", "--provider", "openai", "--images", "3", "--json"];
    let drawn = offline(&[&drawn[..], &day].concat());
    assert!(drawn.code == 0 && drawn.out.contains(r#""cost_usd":"0.12""#), "{drawn:?}");
    let listed = offline(&[&["prices", "list", "--model", "gpt-4o-mini", "--provider", "openai"][..], &day].concat());
    let litellm = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/prices/litellm.json");
    let diff = offline(&["prices", "diff", litellm, "--from", "litellm", "--offline"]);
    assert!(diff.code == 1 && diff.err.contains("rows are not imported, first "), "{diff:?}");
    assert!(lines(&diff.out)[0] == "change provider version column before after", "{diff:?}");
    assert_eq!(lines(&listed.ok())[1], "shipped openai gpt-4o-mini - 0.15 0.075 - 0.6 - - -");
}

#[tokio::test]
async fn a_table_of_prices_is_compared_and_then_taken_over() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let table = "provider,model,from,input,output\nopenai,gpt-4o-mini,,0.2,0.6\nin-house,house-1,,1,2\n";
    let file = folder.write("prices.csv", table).display().to_string();
    let diff = ["prices", "diff", &file, "--provider", "in-house"];
    let told = ask(&service, &diff).await;
    assert_eq!((told.code, lines(&told.out)[1].starts_with("added in-house house-1@")), (1, true), "{told:?}");
    let offline = offline(&["prices", "diff", &file, "--offline", "--json"]);
    assert_eq!(offline.code, 1);
    let changed = offline.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let changed =
        changed.filter(|told| told["change"] == "changed").map(|told| told["before"]["price"]["input"].clone());
    assert_eq!(changed.collect::<Vec<_>>(), ["0.15"]);

    let import = ["prices", "import", &file, "--from", "csv"];
    let shown = ask(&service, &import).await;
    assert!(shown.code == 0 && shown.err.contains("nothing is changed without --apply"), "{shown:?}");
    assert_eq!(service.get("/api/v1/price-rows").await.1["items"].as_array().unwrap().len(), 0);
    let applied = ask(&service, &[&import[..], &["--apply"]].concat()).await;
    assert!(applied.code == 0 && applied.err.contains("2 prices are put"), "{applied:?}");
    let rows = service.get("/api/v1/price-rows").await.1;
    let told: Vec<_> = rows["items"].as_array().unwrap().iter().map(|row| row["price"]["input"].clone()).collect();
    assert_eq!(told, ["1", "0.2"]);
    // What finished months cost is not changed.
    let past = ask(&service, &[&import[..], &["--apply", "--day", "2026-01-01"]].concat()).await;
    assert!(past.code == 1 && past.err.contains("finished months"), "{past:?}");
}

#[tokio::test]
async fn made_up_data_is_the_same_again() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let demo = ["demo-data", "--tenants", "3", "--months", "1", "--until", "2026-10-31"];
    let told = ask(&service, &demo).await.ok();
    assert!(told.starts_with("3 tenants, ") && told.ends_with(" from 2026-10-01 to before 2026-10-31\n"), "{told}");
    assert_eq!(ask(&service, &demo).await.ok(), told);
    service.drained().await;
    let path = "/api/v1/usage/demo-0001/breakdown?by=model&from=2026-10-01&to=2026-10-31";
    let parts = service.get(path).await.1["parts"].as_array().unwrap().clone();
    assert!(parts.len() >= 5, "{parts:?}");
    let entries: u64 = told.split(' ').nth(2).unwrap().parse().unwrap();
    let mut kept = 0;
    for tenant in ["demo-0001", "demo-0002", "demo-0003"] {
        let time = "from=2026-10-01&to=2026-10-31";
        let calls = service.get(&format!("/api/v1/usage/{tenant}/series?grain=month&{time}")).await.1;
        let sum = |calls: &Value| {
            calls["points"].as_array().unwrap().iter().map(|one| one["requests"].as_u64().unwrap()).sum::<u64>()
        };
        let pages = service.get(&format!("/api/v1/usage/{tenant}/tracked?{time}")).await.1;
        let pages = pages["totals"].as_array().unwrap().iter().map(|one| one["events"].as_u64().unwrap()).sum::<u64>();
        kept += sum(&calls) + pages;
    }
    assert_eq!(kept, entries, "each counts once");
    let listed = ask(&service, &["tenants", "list"]).await.ok();
    assert!(listed.contains("demo-enterprise") && listed.contains("Acorn Analytics"), "{listed}");
}

#[tokio::test]
async fn webhooks_are_made_tried_out_and_deleted() {
    let folder = Folder::new();
    let (service, receiver) = (Service::start(&folder), Receiver::start().await);
    ask(&service, &["tenants", "set", "acme"]).await.ok();
    // A file, as the path may be a secret.
    let url = format!("@{}", folder.write("url", &format!("{}\n", receiver.url)).display());
    ask(&service, &["webhooks", "create", &url]).await.refused("400 Bad Request: url: 127.0.0.1 is no public address");
    let made = ask(&service, &["webhooks", "create", &url, "--allow-private-addresses", "--json"]).await.ok();
    let made: Value = serde_json::from_str(&made).unwrap();
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    ask(&service, &["webhooks", "test", id]).await.ok();
    assert!(receiver.wait_for(1).await[0].is_signed(secret));
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let file = folder.write("secret", &format!("{secret}\n")).display().to_string();
    let of_acme = ["webhooks", "create", "https://hooks.example/path", "--tenant", "acme", "--secret-file", &file];
    let made = ask(&service, &[&of_acme[..], &["--events", "invoice.paid,invoice.voided"]].concat()).await.ok();
    assert!(made.contains(secret) && made.contains("https://hooks.example\n"), "{made}");
    let listed = lines(&ask(&service, &["webhooks", "list", "--tenant", "acme"]).await.ok());
    assert_eq!((listed.len(), listed[1].contains("acme https://hooks.example")), (2, true), "{listed:?}");
    let listed = ask(&service, &["webhooks", "list"]).await.ok();
    assert!(listed.contains(id) && !listed.contains("s3cret") && !listed.contains("whsec_"), "{listed}");
    assert_eq!(ask(&service, &["webhooks", "delete", id]).await.ok(), format!("{id}: deleted\n"));
    ask(&service, &["webhooks", "test", id]).await.refused("404");
}

#[test]
fn a_wrong_command_line_is_told_and_shells_can_complete() {
    for args in [
        &["tenants"][..],
        &["usage"],
        &["prices", "cost", "a", "--day", "soon", "--offline"],
        &["budgets", "set", "b", "--amount", "1e3"],
        &["demo-data", "--tenants", "0"],
        &["invoices", "generate", "acme", "2026-13"],
    ] {
        let said = offline(args);
        assert_eq!(said.code, 2, "{args:?}: {said:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = offline(&["completions", shell]).ok();
        assert!(script.contains("demo-data"), "{shell}");
    }
}
