//! The stand-in does what it is told, and says what it was asked: other tests rest on it.

use serde_json::json;
use tollgate_e2e::harness::http::Request;
use tollgate_e2e::standin::{Options, Recording, Standin};

async fn standin() -> Standin {
    Standin::start(Options { recording: Recording::RecentCalls, ..Options::default() }).await.unwrap()
}

fn chat(standin: &Standin) -> Request {
    Request::post(standin.addr(), "/v1/chat/completions?trace=1", &json!({"model": "m", "messages": []}))
}

#[tokio::test]
async fn the_first_attempts_at_a_request_fail() {
    let standin = standin().await;
    let mut statuses = Vec::new();
    for id in ["a", "a", "b", "a", "b", "b"] {
        let request = chat(&standin).header("x-request-id", id).header("x-standin-fail-attempts", "2");
        statuses.push(request.send().await.unwrap().status.as_u16());
    }
    assert_eq!(statuses, [503, 503, 503, 200, 503, 200]);
    let reset = chat(&standin).header("x-request-id", "c").header("x-standin-reset-after-bytes", "0");
    let reset = reset.header("x-standin-fail-attempts", "1");
    assert!(reset.clone().send().await.is_err());
    assert_eq!(reset.send().await.unwrap().status, 200);
    let anonymous = chat(&standin).header("x-standin-fail-attempts", "1").send().await.unwrap();
    assert_eq!(anonymous.status, 400);
}

#[tokio::test]
async fn a_call_is_recorded_as_it_was() {
    let standin = standin().await;
    let request = chat(&standin).header("x-standin-encoding", "gzip").header("x-standin-header-x-limit", "5");
    let reply = request.header("x-tenant-id", "acme").send().await.unwrap();
    assert_eq!((reply.header("content-encoding"), reply.header("x-limit")), (Some("gzip"), Some("5")));
    let call = standin.recent_calls().pop().unwrap();
    assert_eq!((call.path.as_str(), call.query.as_deref()), ("/v1/chat/completions", Some("trace=1")));
    assert_eq!((&call.request_body[..], &call.body), (&br#"{"messages":[],"model":"m"}"#[..], &reply.body));
    assert_eq!(call.headers["x-tenant-id"], "acme");
}

#[tokio::test]
async fn an_answer_that_hangs_gives_what_came_before_and_no_end() {
    let standin = standin().await;
    let mut hanging = chat(&standin).header("x-standin-hang-after-bytes", "100").start().await.unwrap();
    let mut received = Vec::new();
    while received.len() < 100 {
        received.extend_from_slice(&hanging.next_bytes().await.unwrap().unwrap());
    }
    let sent = standin.recent_calls().pop().unwrap().body;
    assert!(sent.len() > 100);
    assert_eq!(received, sent[..100]);
}
