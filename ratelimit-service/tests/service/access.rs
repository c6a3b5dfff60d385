//! Who may ask for what: each route of the API's own description, by each kind of caller.

use hyper::Request;
use serde_json::{Value, json};

use crate::harness::{Answer, Folder, Service};

/// Keys of all kinds, made while the service needed none; then it does.
struct Keys {
    service: Service,
    admin: String,
    viewer: String,
    acme: String,
    acme_viewer: String,
    scoped: String,
}

async fn key(service: &Service, body: Value) -> (String, String) {
    let answer = service.post("/api/v1/keys", body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    (text("key"), text("id"))
}

async fn keys(folder: &Folder) -> Keys {
    let open = Service::start(folder);
    for tenant in ["acme", "bolt"] {
        let request = Request::put(format!("/api/v1/tenants/{tenant}")).header("content-type", "application/json");
        assert_eq!(open.http(request.body("{}".to_owned()).unwrap()).await.status, 201);
    }
    let key = async |body| key(&open, body).await.0;
    let admin = key(json!({"name": "root", "role": "admin"})).await;
    let viewer = key(json!({"name": "dashboard"})).await;
    let acme = key(json!({"name": "acme's", "role": "admin", "tenant": "acme"})).await;
    let acme_viewer = key(json!({"name": "acme's", "tenant": "acme"})).await;
    let scoped = key(json!({"name": "meter", "role": "admin", "scopes": ["usage"]})).await;
    assert!(open.terminate().await.success());
    let service = Service::start_closed(folder);
    Keys { service, admin, viewer, acme, acme_viewer, scoped }
}

async fn ask(service: &Service, method: &str, path: &str, key: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if method != "GET" {
        request = request.header("content-type", "application/json");
    }
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let body = if method == "GET" { String::new() } else { "{}".to_owned() };
    service.http(request.body(body).unwrap()).await
}

#[tokio::test]
async fn every_route_is_for_those_that_it_is_for() {
    let folder = Folder::new();
    let Keys { service, admin, viewer, acme, acme_viewer, .. } = keys(&folder).await;
    let document = ask(&service, "GET", "/openapi.json", None).await.json();
    let mut routes = 0;
    for (pattern, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            routes += 1;
            let is_open = pattern == "/health";
            let path = |tenant: &str| pattern.replace("{tenant}", tenant).replace("{id}", "none");
            let status = async |tenant: &str, key: Option<&str>| {
                ask(&service, &method, &path(tenant), key).await.status.as_u16()
            };
            let may = async |tenant: &str, key: &str| !matches!(status(tenant, Some(key)).await, 401 | 403);
            let what = format!("{method} {pattern}");
            assert_eq!(status("acme", None).await == 401, !is_open, "{what} without a key");
            let wrong = format!("{}x", &admin[..admin.len() - 1]);
            if !is_open && method == "GET" && pattern.contains("usage") {
                assert_eq!(status("acme", Some(&wrong)).await, 401, "{what} with a mistyped key");
            }
            let questions = ["/api/v1/usage/check", "/api/v1/cost"];
            let reads = method == "GET" || questions.iter().any(|question| pattern.starts_with(question));
            assert!(may("acme", &admin).await, "{what} by an operator");
            assert_eq!(may("acme", &viewer).await, reads || is_open, "{what} by an operator who may read");
            let is_own = pattern.starts_with("/api/v1/usage");
            let both = ["/api/v1/track", "/api/v1/keys", "/api/v1/webhooks"];
            let read =
                ["/api/v1/tenants", "/api/v1/budgets", "/api/v1/limit-overrides", "/api/v1/invoices", "/api/v1/prices"];
            let is_among =
                |roots: &[&str]| roots.iter().any(|root| pattern == root || pattern.starts_with(&format!("{root}/")));
            let tenants_may =
                is_open || is_own || is_among(&both) || reads && (is_among(&read) || is_among(&questions));
            assert_eq!(may("acme", &acme).await, tenants_may, "{what} by acme");
            assert_eq!(may("acme", &acme_viewer).await, tenants_may && (reads || is_open), "{what} by acme's viewer");
            if pattern.contains("{tenant}") {
                assert_eq!(status("bolt", Some(&acme)).await, 403, "{what} of bolt by acme");
            }
        }
    }
    assert!(routes > 25, "{routes}");
}

#[tokio::test]
async fn a_tenants_key_sees_its_own_records_alone() {
    let folder = Folder::new();
    let Keys { service, admin, acme, .. } = keys(&folder).await;
    let names = async |key: &str, path: &str| {
        let items = ask(&service, "GET", path, Some(key)).await.json()["items"].clone();
        items.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&admin, "/api/v1/tenants").await, ["acme", "bolt"]);
    assert_eq!(names(&acme, "/api/v1/tenants").await, ["acme"]);
    assert_eq!((names(&admin, "/api/v1/keys").await.len(), names(&acme, "/api/v1/keys").await.len()), (5, 2));
    assert_eq!(ask(&service, "GET", "/api/v1/tenants/bolt", Some(&acme)).await.status, 404);
    let check = json!({"tenant_id": "bolt"}).to_string();
    for (path, body) in [("/api/v1/usage/check", check.clone()), ("/api/v1/track", track("bolt"))] {
        let request = Request::post(path).header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {acme}")).body(body).unwrap();
        assert_eq!(service.http(request).await.status, 403, "{path}");
    }
    let foreign = json!({"name": "not mine", "tenant": "bolt"}).to_string();
    let request = Request::post("/api/v1/keys").header("content-type", "application/json");
    let request = request.header("authorization", format!("Bearer {acme}")).body(foreign).unwrap();
    assert_eq!(service.http(request).await.status, 403);
}

fn track(tenant: &str) -> String {
    json!({"tenant_id": tenant, "event_type": "image", "quantity": 1, "id": "one"}).to_string()
}

#[tokio::test]
async fn a_key_makes_none_that_outlasts_it() {
    let folder = Folder::new();
    let Keys { service, admin, .. } = keys(&folder).await;
    let made = async |key: &str, expires_at_ms: Option<u64>| {
        let body = json!({"name": "ci", "role": "admin", "expires_at_ms": expires_at_ms}).to_string();
        let request = Request::post("/api/v1/keys").header("content-type", "application/json");
        service.http(request.header("authorization", format!("Bearer {key}")).body(body).unwrap()).await
    };
    let until_ms = u64::MAX >> 12;
    let ending = made(&admin, Some(until_ms)).await;
    assert_eq!(ending.status, 201, "{}", ending.body);
    let ending = ending.json()["key"].as_str().unwrap().to_owned();
    for expires_at_ms in [None, Some(until_ms + 1)] {
        let refused = made(&ending, expires_at_ms).await;
        assert_eq!(refused.status, 403, "{}", refused.body);
    }
    assert_eq!(made(&ending, Some(until_ms)).await.status, 201);
}

#[tokio::test]
async fn a_key_is_revoked_and_its_uses_are_in_the_audit_log() {
    let folder = Folder::new();
    let Keys { service, admin, scoped, .. } = keys(&folder).await;
    assert_eq!(ask(&service, "GET", "/api/v1/usage/acme", Some(&scoped)).await.status, 200);
    assert_eq!(ask(&service, "GET", "/api/v1/tenants", Some(&scoped)).await.status, 403);
    let id = &scoped[..15];
    let shown = ask(&service, "GET", &format!("/api/v1/keys/{id}"), Some(&admin)).await.json();
    assert!(shown["last_used_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{shown}");
    let listed = ask(&service, "GET", "/api/v1/keys", Some(&admin)).await.json();
    let used = |key: &Value| (key["id"].as_str().unwrap().to_owned(), key["last_used_at"].is_string());
    let uses: Vec<_> = listed["items"].as_array().unwrap().iter().map(used).collect();
    assert!(uses.iter().all(|(key, is_used)| *is_used == [id, &admin[..15]].contains(&key.as_str())), "{uses:?}");
    assert_eq!(ask(&service, "POST", &format!("/api/v1/keys/{id}/revoke"), Some(&admin)).await.status, 200);
    let refused = ask(&service, "GET", "/api/v1/usage/acme", Some(&scoped)).await;
    assert_eq!((refused.status.as_u16(), refused.json()["detail"].as_str()), (401, Some("the key was revoked")));
    let reset = ask(&service, "POST", "/api/v1/admin/tenants/acme/reset", Some(&admin)).await;
    assert_eq!(reset.status, 200, "{}", reset.body);
    let log = ask(&service, "GET", "/api/v1/admin/audit", Some(&admin)).await.json();
    assert_eq!(log["entries"][0]["actor"], admin[..15]);
    let log = ask(&service, "GET", "/api/v1/admin/changes?limit=2", Some(&admin)).await.json();
    let [revoked, made] = [0, 1].map(|at| log["changes"][at].clone());
    assert_eq!((&revoked["actor"], &revoked["action"]), (&json!(&admin[..15]), &json!("update")));
    assert_eq!((&revoked["kind"], &revoked["record_id"]), (&json!("api_key"), &json!(id)));
    assert!(revoked["was"]["revoked_at_ms"].is_null() && revoked["became"]["revoked_at_ms"].is_u64(), "{revoked}");
    assert_eq!((&made["action"], &made["was"]), (&json!("create"), &Value::Null));
    assert!(!log.to_string().contains(&scoped[15..]), "no change tells a secret: {log}");
    let of_acme = ask(&service, "GET", "/api/v1/admin/changes?tenant=acme", Some(&admin)).await.json();
    let of_acme = of_acme["changes"].as_array().unwrap();
    assert!(of_acme.len() == 3 && of_acme.iter().all(|change| change["tenant_id"] == "acme"), "{of_acme:?}");
    let before = format!("/api/v1/admin/changes?before={}", made["id"]);
    let before = ask(&service, "GET", &before, Some(&admin)).await.json();
    assert_eq!(before["changes"][0]["id"].as_u64(), made["id"].as_u64().map(|id| id - 1));
}

#[tokio::test]
async fn who_guesses_keys_has_to_wait() {
    let folder = Folder::new();
    let Keys { service, admin, .. } = keys(&folder).await;
    let mut statuses = Vec::new();
    for guess in 0..25 {
        statuses.push(ask(&service, "GET", "/api/v1/usage/acme", Some(&format!("tg_{guess}"))).await.status.as_u16());
    }
    assert_eq!((statuses[0], statuses[19], statuses[20]), (401, 401, 429));
    let right = ask(&service, "GET", "/api/v1/usage/acme", Some(&admin)).await;
    assert_eq!((right.status.as_u16(), right.retry_after.as_deref()), (429, Some("60")));
}
