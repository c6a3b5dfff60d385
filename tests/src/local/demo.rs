//! The story that `make demo` tells.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::screen::Screen;
use super::{Local, Ports};
use crate::harness::http::{Answer, Reply, Request};
use crate::harness::run_dir::RunDir;
use crate::harness::wait::{PATIENCE, eventually};

/// How long the streamed answer is, and how slowly it comes.
const STREAM_TOKENS: &str = "36";
const TOKEN_DELAY_MS: &str = "25";
/// More than `starter` admits at once: 60 a minute.
const BURST: usize = 70;
/// What `initech` may spend in a month: a nickel.
const BUDGET_NANOUSD: u64 = 50_000_000;

/// Starts everything on free ports, tells the story and stops everything.
///
/// # Errors
/// When something does not happen as it is told.
pub async fn run() -> anyhow::Result<()> {
    let dir = RunDir::create()?;
    let result = tell(&dir).await;
    if result.is_err() {
        eprintln!("All logs are kept in {}", dir.keep().display());
    }
    result
}

async fn tell(dir: &RunDir) -> anyhow::Result<()> {
    let screen = Screen::new();
    screen.heading("Starting");
    let free = Ports::default();
    // A machine that is busy with a burst may answer late; the story is about limits, not about that.
    let patient = json!({"admission": {"timeout_ms": 10_000}});
    let local = Local::start(dir.path(), free, &patient, |what| screen.note(what)).await?;
    let scene = Scene { screen: &screen, envoy: local.envoy.listener(), rest: local.service.rest() };
    let answer = scene.stream().await?;
    scene.limits(&answer);
    scene.usage().await?;
    scene.burst().await?;
    scene.other_tenant().await?;
    let admitted = scene.budget().await?;
    scene.invoice(admitted).await?;
    screen.heading("Stopping");
    local.stop().await?;
    screen.line("All stopped. `make up` starts the same and leaves it running.");
    Ok(())
}

struct Scene<'a> {
    screen: &'a Screen,
    envoy: SocketAddr,
    rest: SocketAddr,
}

impl Scene<'_> {
    async fn stream(&self) -> anyhow::Result<Answer> {
        self.screen.heading("1. Tenant `acme`, on the plan `starter`, streams a chat answer through Envoy");
        let request = chat(self.envoy, "acme", "starter")
            .header("x-standin-chunks", STREAM_TOKENS)
            .header("x-standin-delay-ms", TOKEN_DELAY_MS)
            .json(&json!({
                "model": "gpt-4o-mini",
                "messages": [{"role": "user", "content": "What does a tollgate do?"}],
                "stream": true,
                "stream_options": {"include_usage": true},
            }));
        let mut answer = request.start().await?;
        ensure!(answer.status == StatusCode::OK, "the stream was answered with {}", answer.status);
        ensure!(answer.headers.contains_key("x-ratelimit-remaining"), "the stream's headers tell of no limits");
        self.screen.token("  ");
        let mut lines = Vec::new();
        while let Some(bytes) = answer.next_bytes().await? {
            lines.extend_from_slice(&bytes);
            while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                if let Some(text) = content(&line) {
                    self.screen.token(&text);
                }
            }
        }
        println!();
        Ok(answer)
    }

    fn limits(&self, answer: &Answer) {
        self.screen.heading("2. That answer's headers say where the plan's limits stand");
        self.headers(&answer.headers, |name| name.contains("ratelimit"));
    }

    async fn usage(&self) -> anyhow::Result<()> {
        let path = "/api/v1/usage/acme?period=month";
        self.screen.heading("3. What was recorded: one usage event, sent by the filter beside the answer");
        self.screen.note(&format!("GET http://{}{path}", self.rest));
        let usage = eventually("the recorded usage", PATIENCE, async || {
            let reply = Request::get(self.rest, path).send().await?;
            let usage = reply.json()?;
            ensure!(usage["requests"] == 1, "not recorded yet: {usage}");
            Ok(reply.text())
        })
        .await?;
        // A line for each field, in the order in which the API gives them.
        for line in usage.replace(",\"", ",\n\"").lines() {
            self.screen.line(line);
        }
        Ok(())
    }

    async fn burst(&self) -> anyhow::Result<()> {
        self.screen.heading(&format!("4. `acme` sends {BURST} calls at once; `starter` admits 60 a minute"));
        let calls: Vec<_> = (0..BURST).map(|_| tokio::spawn(chat(self.envoy, "acme", "starter").send())).collect();
        let (mut admitted, mut denied) = (0, Vec::new());
        for call in calls {
            let reply: Reply = call.await.context("a call of the burst")??;
            match reply.status {
                StatusCode::OK => admitted += 1,
                StatusCode::TOO_MANY_REQUESTS => denied.push(reply),
                other => anyhow::bail!("a call of the burst was answered with {other}: {}", reply.text()),
            }
        }
        self.screen.line(&format!("{admitted} admitted, {} denied. A denied one, as its SDK sees it:", denied.len()));
        let reply = denied.first().context("the burst ran into no limit")?;
        // One was taken by the stream and has come back by now; what comes back during the burst is admitted too.
        ensure!(admitted >= 59, "only {admitted} calls of the burst were admitted");
        self.screen.note(&format!("HTTP {}", reply.status));
        self.headers(&reply.headers, |name| name == "retry-after" || name.ends_with("-requests"));
        self.screen.line(&reply.text());
        Ok(())
    }

    async fn other_tenant(&self) -> anyhow::Result<()> {
        self.screen.heading("5. Meanwhile tenant `globex`, on the plan `pro`, is not affected");
        let reply = chat(self.envoy, "globex", "pro").send().await?;
        ensure!(reply.status == StatusCode::OK, "globex was answered with {}", reply.status);
        self.screen.note(&format!("HTTP {}", reply.status));
        self.headers(&reply.headers, |name| name == "retry-after" || name.ends_with("-requests"));
        Ok(())
    }

    async fn budget(&self) -> anyhow::Result<u64> {
        self.screen
            .heading("6. Tenant `initech` gets a budget of $0.05 a month, and calls `gpt-4` until that stops it");
        let budget = json!({"tenant": "initech", "amount_nanousd": BUDGET_NANOUSD, "enforcement": "hard"});
        for (path, body) in [("tenants/initech", json!({"tier": "pro"})), ("budgets/initech-monthly", budget)] {
            let path = format!("/api/v1/{path}");
            self.screen.note(&format!("PUT http://{}{path}", self.rest));
            let reply = Request::new(Method::PUT, self.rest, &path).json(&body).send().await?;
            ensure!(reply.status == StatusCode::CREATED, "{path} was answered with {}: {}", reply.status, reply.text());
        }
        eventually("the budget holds", PATIENCE, async || {
            let limits = Request::get(self.rest, "/api/v1/usage/initech/limit").send().await?.text();
            ensure!(limits.contains("cost_per_month"), "not yet: {limits}");
            Ok(())
        })
        .await?;
        let mut admitted = 0;
        // A call reserves what it may cost at most, before it goes on.
        let ask = json!({"model": "gpt-4", "max_tokens": 300, "messages": [{"role": "user", "content": "Hello"}]});
        loop {
            let reply = chat(self.envoy, "initech", "pro").json(&ask).send().await?;
            match reply.status {
                StatusCode::OK => admitted += 1,
                StatusCode::TOO_MANY_REQUESTS => {
                    self.screen.line(&format!("{admitted} calls admitted; the next one, as its SDK sees it:"));
                    self.screen.note(&format!("HTTP {}", reply.status));
                    self.screen.line(&reply.text());
                    return Ok(admitted);
                }
                other => anyhow::bail!("a call was answered with {other}: {}", reply.text()),
            }
            ensure!(admitted < 100, "no budget stopped `initech`");
        }
    }

    async fn invoice(&self, calls: u64) -> anyhow::Result<()> {
        self.screen.heading("7. What `initech` has to pay so far: a draft, in which each line is rounded once");
        let month = eventually("the recorded usage", PATIENCE, async || {
            let usage = Request::get(self.rest, "/api/v1/usage/initech?period=month").send().await?.json()?;
            ensure!(usage["requests"] == calls, "not recorded yet: {usage}");
            Ok(usage["period_start"].as_str().unwrap_or_default().to_owned())
        })
        .await?;
        let number = |digits: std::ops::Range<usize>| month.get(digits).and_then(|digits| digits.parse::<u16>().ok());
        let asked = json!({"tenant_id": "initech", "year": number(0..4), "month": number(5..7)});
        let reply = Request::post(self.rest, "/api/v1/invoices/generate", &asked).send().await?;
        ensure!(reply.status.is_success(), "the invoice was answered with {}: {}", reply.status, reply.text());
        let draft = reply.json()?;
        let path = format!("/api/v1/invoices/{}?format=csv", draft["id"].as_str().unwrap_or_default());
        self.screen.note(&format!("GET http://{}{path}", self.rest));
        let invoice = Request::get(self.rest, &path).send().await?.text();
        ensure!(invoice.contains("gpt-4"), "the invoice has no line for the calls:\n{invoice}");
        for line in invoice.lines() {
            self.screen.line(line);
        }
        Ok(())
    }

    fn headers(&self, headers: &hyper::HeaderMap, wanted: fn(&str) -> bool) {
        for (name, value) in headers.iter().filter(|(name, _)| wanted(name.as_str())) {
            self.screen.line(&format!("{name}: {}", value.to_str().unwrap_or("?")));
        }
    }
}

fn chat(envoy: SocketAddr, tenant: &str, tier: &str) -> Request {
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]});
    Request::post(envoy, "/v1/chat/completions", &body).header("x-tenant-id", tenant).header("x-plan-tier", tier)
}

/// The text in one line of the stream.
fn content(line: &[u8]) -> Option<String> {
    let event: Value = serde_json::from_slice(line.strip_prefix(b"data: ")?).ok()?;
    Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned())
}
