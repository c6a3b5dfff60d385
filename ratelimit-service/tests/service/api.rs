//! What the REST API tells of itself, and how often it may be asked.

use hyper::Request;
use serde_json::{Value, json};

use crate::harness::{Answer, Folder, Service};

async fn get(service: &Service, path: &str) -> Answer {
    service.http(Request::get(path).body(String::new()).unwrap()).await
}

#[tokio::test]
async fn the_description_is_served_and_its_page_needs_nothing_from_elsewhere() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let (status, document) = service.get("/openapi.json").await;
    assert_eq!((status.as_u16(), &document["openapi"]), (200, &json!("3.1.0")));
    let golden: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    assert_eq!(document, golden);

    let page = get(&service, "/docs/").await;
    assert_eq!((page.status.as_u16(), page.content_type.as_deref()), (200, Some("text/html")));
    let attributes = page.body.split(['"', '\'']).filter(|text| text.contains('/') && text.contains('.'));
    let loaded: Vec<_> = attributes.filter_map(|text| text.strip_prefix("./")).collect();
    assert!(loaded.contains(&"swagger-ui-bundle.js"), "{}", page.body);
    assert!(!page.body.contains("//"), "{}", page.body);
    for file in loaded.iter().filter(|file| !file.ends_with(".png")) {
        assert_eq!(get(&service, &format!("/docs/{file}")).await.status, 200, "{file}");
    }
    let settings = get(&service, "/docs/swagger-initializer.js").await.body;
    assert!(
        settings.contains(r#""url": "/openapi.json""#) && settings.contains(r#""validatorUrl": "none""#),
        "{settings}"
    );
    assert_eq!(get(&service, "/docs").await.status, 303);
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let folder = Folder::new();
    // The usual keys have `rest` already: it is said anew.
    let config = format!(
        "
grpc: {{ listen: 127.0.0.1:0 }}
rest: {{ listen: 127.0.0.1:0, requests_per_second: 1, burst: 3 }}
log: {{ format: json, filter: info }}
ledger: {{ sqlite: {} }}
",
        folder.ledger().display()
    );
    let service = Service::start_with(&folder.write("slow.yaml", &config));
    let mut answers = Vec::new();
    // More than any machine could be given back meanwhile.
    for _ in 0..100 {
        answers.push(get(&service, "/api/v1/usage/acme").await);
    }
    assert!(answers[..3].iter().all(|answer| answer.status == 200), "{:?}", &answers[..3]);
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    let first = refused.first().unwrap();
    assert_eq!(first.content_type.as_deref(), Some("application/problem+json"));
    assert_eq!(first.retry_after.as_deref(), Some("1"));
    assert!(first.json()["detail"].as_str().unwrap().contains("rest.requests_per_second"), "{first:?}");

    // What watches the service is not held up.
    let metrics = service.metrics().await;
    assert!(metrics.contains(&format!("tollgate_rest_requests_refused_total {}\n", refused.len())), "{metrics}");
    assert_eq!(service.get("/health").await.0, 200);
}
