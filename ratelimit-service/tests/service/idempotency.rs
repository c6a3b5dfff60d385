//! Requests that come again under an idempotency key.

use anyhow::ensure;
use futures_util::future::join_all;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

use crate::harness::{Answer, Folder, Service};

async fn send(service: &Service, method: &str, path: &str, key: &str, body: &Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    service.http(request.header("idempotency-key", key).body(body.to_string()).unwrap()).await
}

async fn count(service: &Service, path: &str) -> usize {
    let (status, page) = service.get(path).await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().unwrap().len()
}

fn plan(tokens: u64) -> Value {
    json!({"context_tokens": tokens, "limits": []})
}

fn replayed(answer: &Answer) -> bool {
    answer.replayed.as_deref() == Some("true")
}

#[tokio::test]
async fn what_is_asked_again_is_done_once_and_answered_the_same() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let first = send(&service, "PUT", "/api/v1/plans/gold", "k1", &plan(100)).await;
    assert!(first.status == StatusCode::CREATED && !replayed(&first), "{first:?}");
    // Made without a key again, it is there already.
    let put = Request::put("/api/v1/plans/gold").header("content-type", "application/json");
    assert_eq!(service.http(put.body(plan(100).to_string()).unwrap()).await.status, 409);
    for key in ["k1", "\"k1\""] {
        let again = send(&service, "PUT", "/api/v1/plans/gold", key, &plan(100)).await;
        assert!(replayed(&again), "{again:?}");
        assert_eq!((again.status, &again.etag, &again.body), (first.status, &first.etag, &first.body));
        assert_eq!(again.content_type, first.content_type);
    }
    // A refusal is an answer too.
    let refused = send(&service, "PUT", "/api/v1/plans/gold", "k2", &plan(100)).await;
    let again = send(&service, "PUT", "/api/v1/plans/gold", "k2", &plan(100)).await;
    assert_eq!((refused.status.as_u16(), again.status.as_u16(), &refused.body), (409, 409, &again.body));
    assert!(replayed(&again) && again.content_type.as_deref() == Some("application/problem+json"), "{again:?}");
    // A restart keeps what is kept.
    assert!(service.terminate().await.success());
    let service = Service::start(&folder);
    let again = send(&service, "PUT", "/api/v1/plans/gold", "k1", &plan(100)).await;
    assert!(replayed(&again) && again.body == first.body, "{again:?}");
}

#[tokio::test]
async fn a_key_is_of_one_request_and_one_caller() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let first = send(&service, "PUT", "/api/v1/plans/gold", "k", &plan(100)).await;
    assert_eq!(first.status, 201, "{}", first.body);
    for (method, path, body) in [
        ("PUT", "/api/v1/plans/gold", plan(200)),
        ("PUT", "/api/v1/plans/silver", plan(100)),
        ("DELETE", "/api/v1/plans/gold", plan(100)),
    ] {
        let other = send(&service, method, path, "k", &body).await;
        assert!(other.status == 422 && other.body.contains("idempotency-key: another request"), "{other:?}");
    }
    let of_version = Request::put("/api/v1/plans/gold").header("content-type", "application/json");
    let of_version = of_version.header("idempotency-key", "k").header("if-match", "\"1\"");
    assert_eq!(service.http(of_version.body(plan(100).to_string()).unwrap()).await.status, 422);
    let (_, gold) = service.get("/api/v1/plans/gold").await;
    assert_eq!((&gold["version"], &gold["context_tokens"]), (&json!(1), &json!(100)));
    assert_eq!(count(&service, "/api/v1/plans").await, 1);

    let bobs = Request::put("/api/v1/plans/silver").header("content-type", "application/json");
    let bobs = bobs.header("idempotency-key", "k").header("x-tollgate-actor", "bob");
    let bobs = service.http(bobs.body(plan(100).to_string()).unwrap()).await;
    assert!(bobs.status == 201 && !replayed(&bobs), "{bobs:?}");

    for wrong in ["", &"x".repeat(256)] {
        let refused = send(&service, "PUT", "/api/v1/plans/bronze", wrong, &plan(100)).await;
        assert!(refused.status == 400 && refused.body.contains("1 to 255 characters"), "{refused:?}");
    }
    assert_eq!(send(&service, "PUT", "/api/v1/plans/bronze", &"x".repeat(255), &plan(100)).await.status, 201);
}

#[tokio::test]
async fn of_several_at_once_one_is_done() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let body = json!({"name": "robot", "role": "viewer"});
    let answers = join_all((0..8).map(|_| send(&service, "POST", "/api/v1/keys", "k", &body))).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert!(made.len() == 1 && answers.iter().all(|answer| matches!(answer.status.as_u16(), 201 | 409)), "{answers:?}");
    assert_eq!(count(&service, "/api/v1/keys").await, 1);
}

#[tokio::test]
async fn a_new_key_is_kept_nowhere_and_its_request_is_known() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let body = json!({"name": "robot", "role": "viewer"});
    let made = send(&service, "POST", "/api/v1/keys", "k", &body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let [key, id] = ["key", "id"].map(|field| made.json()[field].as_str().unwrap().to_owned());
    let again = send(&service, "POST", "/api/v1/keys", "k", &body).await;
    assert!(again.status == 409 && !replayed(&again), "{again:?}");
    assert!(again.body.contains(&format!("`{id}`")) && !again.body.contains(&key), "{again:?}");
    assert_eq!(count(&service, "/api/v1/keys").await, 1);
    assert!(service.terminate().await.success());
    let secret = key.as_bytes();
    let mut files = 0;
    for file in
        std::fs::read_dir(folder.path("data")).unwrap().map(|file| file.unwrap().path()).filter(|file| file.is_file())
    {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", file.display());
        files += 1;
    }
    assert!(files >= 2, "the ledger and the accounts");
}

#[tokio::test]
async fn what_a_client_did_not_wait_for_is_done_and_told_when_it_asks_again() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let (path, body) = ("/api/v1/plans/gold", plan(100));
    let head = format!("PUT {path} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\nidempotency-key: k\r\n");
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.to_string().len());
    let is_made = async || {
        // One that leaves early may not have been heard at all.
        let mut client = TcpStream::connect(service.rest()).await?;
        client.write_all(request.as_bytes()).await?;
        drop(client);
        let (status, _) = service.get(path).await;
        ensure!(status == StatusCode::OK, "{status}");
        Ok(())
    };
    eventually("the plan", PATIENCE, is_made).await.unwrap();
    let is_told = async || {
        let again = send(&service, "PUT", path, "k", &body).await;
        ensure!(again.status == StatusCode::CREATED && replayed(&again), "{again:?}");
        Ok(())
    };
    eventually("the answer", PATIENCE, is_told).await.unwrap();
    assert_eq!(service.get(path).await.1["version"], 1);
}
