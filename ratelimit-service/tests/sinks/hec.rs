//! Splunk's HTTP Event Collector.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde_json::json;
use tollgate::entry::Entry;
use tollgate::secret::Secret;
use tollgate::sinks::{Hec, HecSettings, Jsonl, JsonlSettings, Sink, SinkError};

use crate::receiver::{Act, Receiver, TOKEN};
use crate::source::{Running, entries, eventually, first_of_each, ids};

fn settings(url: &str) -> HecSettings {
    HecSettings {
        timeout: Duration::from_millis(400),
        ack_timeout: Duration::from_millis(800),
        ..HecSettings::new(url, Secret::new(TOKEN))
    }
}

fn sink(url: &str) -> Hec {
    Hec::new(settings(url)).unwrap()
}

/// Everything that goes wrong, mixed.
fn misbehaviour() -> Vec<Act> {
    use Act::{Fail, Forget, Hang, TakeAndCut, TakeAndFail};
    vec![
        Fail(500, "<html>down</html>"),
        Hang,
        TakeAndFail,
        Fail(503, r#"{"text":"Server is busy","code":9}"#),
        TakeAndCut,
        Forget,
        Fail(429, r#"{"text":"HEC queue at capacity","code":26}"#),
        Fail(403, r#"{"text":"Invalid token","code":4}"#),
        Fail(400, r#"{"text":"Incorrect index","code":7,"invalid-event-number":1}"#),
        Fail(400, "<html>a proxy</html>"),
        Fail(200, "<html>a portal</html>"),
        Hang,
        Forget,
        Fail(302, ""),
    ]
}

#[tokio::test]
async fn a_receiver_that_misbehaves_gets_every_entry_in_order_and_holds_up_no_other_sink() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("usage.jsonl");
    for has_acks in [false, true] {
        let all = entries(1000);
        let (receiver, url) = Receiver::start(&misbehaviour()).await;
        receiver.has_acks.store(has_acks, SeqCst);
        receiver.is_down.store(true, SeqCst);
        receiver.cuts.store(3, SeqCst);
        let mut hec = Running::start(&all, 70, sink(&url));
        eventually("HEC is asked", || receiver.requests.load(SeqCst) > 3).await;
        Running::start(&all, 70, Jsonl::new(JsonlSettings::new(&path))).finished().await;
        assert_eq!((hec.committed(), receiver.events().len()), (0, 0), "the other is done, this one has not begun");
        assert_eq!(hec.metric(r#"tollgate_sink_up{sink="tested"}"#), 0.0);

        receiver.is_down.store(false, SeqCst);
        hec.finished().await;
        assert_eq!(first_of_each(&receiver.ids()), ids(&all), "with acknowledgements: {has_acks}");
        assert!(receiver.ids().len() > all.len(), "some came twice");
        assert_eq!(hec.committed(), all.len());
        assert_eq!(hec.metric(r#"tollgate_sink_events_total{sink="tested",result="sent"}"#), all.len() as f64);
        assert_eq!(hec.metric(r#"tollgate_sink_events_total{sink="tested",result="refused"}"#), 0.0);
        assert!(hec.metric(r#"tollgate_sink_failures_total{sink="tested"}"#) >= misbehaviour().len() as f64 - 3.0);
        assert_eq!(hec.metric(r#"tollgate_sink_up{sink="tested"}"#), 1.0);
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2000);
}

#[tokio::test]
async fn entries_wait_for_their_acknowledgement_and_are_sent_again_on_another_channel() {
    let all = entries(10);
    let (receiver, url) = Receiver::start(&[Act::Forget, Act::Forget]).await;
    receiver.has_acks.store(true, SeqCst);
    let mut hec = Running::start(&all, 10, sink(&url));
    eventually("they have arrived", || receiver.ids().len() == 10).await;
    assert_eq!(hec.committed(), 0, "they arrived, and are not acknowledged");
    hec.finished().await;
    assert_eq!((receiver.ids().len(), receiver.channels()), (30, 3));
    assert_eq!(hec.committed(), 10);
}

#[tokio::test]
async fn many_requests_wait_for_their_acknowledgements_together() {
    // Of three megabytes, so that one request does not take them.
    let large: Arc<[Entry]> = entries(3000)
        .iter()
        .cloned()
        .map(|entry| match entry {
            Entry::Usage(mut event) => {
                event.finish_reasons = vec!["x".repeat(1000)];
                Entry::Usage(event)
            }
            tracked => tracked,
        })
        .collect();
    let (receiver, url) = Receiver::start(&[]).await;
    receiver.has_acks.store(true, SeqCst);
    let mut sink = sink(&url);
    let refs: Vec<&Entry> = large.iter().collect();
    let taken = sink.send(&refs).await.unwrap();
    assert_eq!((taken.entries, taken.rejected), (3000, 0));
    assert!(receiver.requests.load(SeqCst) > 5);
    assert_eq!(receiver.ids(), ids(&large));
}

#[tokio::test]
async fn one_bad_event_is_left_out_and_the_rest_arrives() {
    for tells_which in [false, true] {
        let all: Arc<[Entry]> = entries(100)
            .iter()
            .cloned()
            .map(|entry| match entry {
                Entry::Usage(mut event) if ["e33", "e34", "e99"].contains(&event.event_id.as_str()) => {
                    event.event_id = format!("bad-{}", event.event_id);
                    Entry::Usage(event)
                }
                entry => entry,
            })
            .collect();
        let (receiver, url) = Receiver::start(&[]).await;
        receiver.tells_which.store(tells_which, SeqCst);
        let mut hec = Running::start(&all, 100, sink(&url));
        hec.finished().await;
        let good: Vec<_> = ids(&all).into_iter().filter(|id| !id.starts_with("bad")).collect();
        assert_eq!(receiver.ids(), good);
        assert_eq!(hec.metric(r#"tollgate_sink_events_total{sink="tested",result="refused"}"#), 3.0);
        assert_eq!(hec.metric(r#"tollgate_sink_events_total{sink="tested",result="sent"}"#), 97.0);
    }
}

#[tokio::test]
async fn a_crash_between_sending_and_committing_loses_nothing() {
    let all = entries(600);
    let (receiver, url) = Receiver::start(&[]).await;
    receiver.has_acks.store(true, SeqCst);
    let mut cursor = Arc::default();
    for arrived in [50, 200, 400] {
        let hec = Running::resume(&all, &cursor, 50, sink(&url));
        eventually("some arrive", || receiver.ids().len() >= arrived).await;
        cursor = hec.kill().await;
    }
    Running::resume(&all, &cursor, 50, sink(&url)).finished().await;
    assert_eq!(first_of_each(&receiver.ids()), ids(&all));
}

#[tokio::test]
async fn events_have_the_fields_of_the_dashboards() {
    for gzip in [false, true] {
        let all = entries(8);
        let (receiver, url) = Receiver::start(&[]).await;
        let settings = HecSettings { gzip, index: Some("llm".into()), host: "gate-1".into(), ..settings(&url) };
        Running::start(&all, 8, Hec::new(settings).unwrap()).finished().await;
        let events = receiver.events();
        let (call, tracked) = (&events[0], &events[7]);
        assert_eq!((&call["time"], &call["sourcetype"]), (&json!(1_732_550_400.123), &json!("llm:usage")));
        assert_eq!(
            (&call["index"], &call["host"], &call["source"]),
            (&json!("llm"), &json!("gate-1"), &json!("tollgate"))
        );
        let event = &call["event"];
        assert_eq!((&event["model"], &event["total_tokens"]), (&json!("gpt-4o"), &json!(150)));
        assert_eq!((&event["is_streaming"], &event["cost_known"]), (&json!(false), &json!(true)));
        assert_eq!(event["estimated_cost_usd"], json!(0.000_045));
        assert_eq!(event["upstream_rate_limits"], json!({ "x-ratelimit-remaining-requests": "950" }));
        assert_eq!((&event["tenant"], &event["tier"], &event["status"]), (&json!("acme"), &json!("pro"), &json!(200)));
        assert_eq!((&tracked["sourcetype"], &tracked["event"]["quantity"]), (&json!("llm:tracked"), &json!(2.5)));
    }
}

#[tokio::test]
async fn the_token_is_not_told() {
    let echo = r#"{"text":"Invalid token s3cret-token","code":4}"#;
    let (_receiver, url) = Receiver::start(&[Act::Fail(403, echo)]).await;
    let all = entries(1);
    let error = sink(&url).send(&[&all[0]]).await.unwrap_err();
    assert!(
        matches!(&error, SinkError::Retry { why, .. } if why.contains("code 4") && !why.contains(TOKEN)),
        "{error}"
    );
    assert!(!format!("{:?}", settings(&url)).contains(TOKEN));
}

#[tokio::test]
async fn a_wrong_token_holds_entries_until_it_is_right() {
    let all = entries(5);
    let (receiver, url) = Receiver::start(&[]).await;
    let wrong = HecSettings { token: Secret::new("other"), ..settings(&url) };
    let hec = Running::start(&all, 5, Hec::new(wrong).unwrap());
    eventually("it is tried again", || hec.metric(r#"tollgate_sink_failures_total{sink="tested"}"#) > 2.0).await;
    let cursor = hec.kill().await;
    Running::resume(&all, &cursor, 5, sink(&url)).finished().await;
    assert_eq!(receiver.ids(), ids(&all));
}
