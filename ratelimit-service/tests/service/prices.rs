//! Prices and costs over REST.

use anyhow::ensure;
use hyper::Request;
use serde_json::{Value, json};
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use crate::harness::{Answer, Folder, Service, event};

const PRICES: &str = "
prices:
  - { model: 'house-*', provider: in-house, input: 1, output: 2, per_request: 0.001 }
  - { model: house-draw, provider: in-house-too, per_image: 0.05, per_request: 0.001 }
tenants:
  acme: { prices: [{ model: gpt-4o-mini, input: 0.1, output: 0.4 }] }
";

async fn post(service: &Service, path: &str, body: Value) -> (u16, Value) {
    let answer = service.post(path, body.to_string()).await;
    (answer.status.as_u16(), answer.json())
}

async fn with_key(service: &Service, method: &str, path: &str, key: &str, body: &Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
    service.http(request.header("content-type", "application/json").body(body.to_string()).unwrap()).await
}

async fn put(service: &Service, path: &str, body: Value) -> Answer {
    let request = Request::put(path).header("content-type", "application/json");
    service.http(request.body(body.to_string()).unwrap()).await
}

#[tokio::test]
async fn what_a_call_costs_is_exact_and_says_by_which_price() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, PRICES);
    let call = |more: Value| {
        let mut call = json!({"model": "gpt-4o-mini", "day": "2026-11-26", "tokens": {"input": 1000, "output": 1000}});
        more.as_object().unwrap().iter().for_each(|(key, value)| call[key] = value.clone());
        call
    };
    let (status, cost) = post(&service, "/api/v1/cost", call(json!({"provider": "openai"}))).await;
    assert_eq!(status, 200, "{cost}");
    let expected = json!({
        "tenant_id": null, "model": "gpt-4o-mini", "provider": "openai", "day": "2026-11-26", "cost_known": true,
        "cost_usd": "0.00075", "version": "gpt-4o-mini@1970-01-01", "layer": "shipped",
        "parts": [
            {"meter": "input", "quantity": 1000, "unit_usd": "0.00000015", "cost_usd": "0.00015"},
            {"meter": "output", "quantity": 1000, "unit_usd": "0.0000006", "cost_usd": "0.0006"},
        ],
    });
    assert_eq!(cost, expected);

    let told = |cost: &Value| [&cost["cost_usd"], &cost["layer"], &cost["cost_known"]].map(Clone::clone);
    let (_, own) = post(&service, "/api/v1/cost", call(json!({"tenant_id": "acme"}))).await;
    assert_eq!(told(&own), [json!("0.0005"), json!("tenant"), json!(true)]);
    // JSON knows no whole numbers: clients write them so, too.
    let house = json!({"model": "house-7b", "tokens": {"input": 3.0}, "requests": 2.0});
    let (_, house) = post(&service, "/api/v1/cost", house).await;
    assert_eq!(told(&house), [json!("0.002003"), json!("operator"), json!(true)]);
    assert_eq!(house["parts"][1]["meter"], "requests");
    let drawn = json!({"model": "house-draw", "provider": "in-house-too", "images": 3});
    let (_, drawn) = post(&service, "/api/v1/cost", drawn).await;
    let parts = json!([
        {"meter": "images", "quantity": 3, "unit_usd": "0.05", "cost_usd": "0.15"},
        {"meter": "requests", "quantity": 1, "unit_usd": "0.001", "cost_usd": "0.001"},
    ]);
    assert_eq!((&drawn["cost_usd"], &drawn["parts"]), (&json!("0.151"), &parts));
    let (status, unknown) = post(&service, "/api/v1/cost", json!({"model": "mystery"})).await;
    assert_eq!((status, told(&unknown)), (200, [Value::Null, Value::Null, json!(false)]));

    for (body, status) in [
        (json!({"model": "a", "tokens": {"inputs": 1}}), 422),
        (json!({"model": "a", "tokens": {"input": -1}}), 422),
        (json!({"model": "a", "day": "yesterday"}), 400),
        (json!({"model": "a", "tenant_id": ""}), 400),
    ] {
        assert_eq!(post(&service, "/api/v1/cost", body.clone()).await.0, status, "{body}");
    }
    let most = u64::MAX;
    let (_, cost) = post(&service, "/api/v1/cost", call(json!({"tokens": {"input": most}, "requests": most}))).await;
    assert_eq!(cost["cost_known"], true);
}

#[tokio::test]
async fn models_are_compared_and_a_text_is_estimated() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, PRICES);
    let question = json!({"provider": "openai", "model": "gpt-4o*", "day": "2026-11-26", "limit": 2,
        "tokens": {"input": 1000, "output": 1000}});
    let (status, compared) = post(&service, "/api/v1/cost/compare", question.clone()).await;
    assert_eq!(status, 200, "{compared}");
    let items = compared["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["version"]), (2, &json!("gpt-4o-mini@1970-01-01")));
    assert!(compared["models"].as_u64().unwrap() > 2, "{compared}");
    let (_, cheapest) = post(&service, "/api/v1/cost/cheapest", question).await;
    assert_eq!(cheapest, items[0]);
    assert_eq!(post(&service, "/api/v1/cost/cheapest", json!({"model": "mystery"})).await.0, 404);
    let drawn = json!({"provider": "openai", "day": "2026-11-26", "images": 10});
    let (_, drawn) = post(&service, "/api/v1/cost/compare", drawn).await;
    let costs = [0, 1].map(|at| &drawn["items"][at]["cost_usd"]);
    assert_eq!((&drawn["models"], costs), (&json!(2), [&json!("0.2"), &json!("0.4")]));
    assert_eq!(post(&service, "/api/v1/cost/compare", json!({"limit": 0})).await.0, 400);

    let text = "The quick brown fox jumps over the lazy dog.";
    let asked = json!({"model": "gpt-4o-mini", "provider": "openai", "text": text, "output_tokens": 10});
    let (status, cost) = post(&service, "/api/v1/cost/text", asked).await;
    assert_eq!(status, 200, "{cost}");
    let tokens = cost["estimated_input_tokens"].as_u64().unwrap();
    assert!((8..14).contains(&tokens), "{cost}");
    assert_eq!(cost["parts"][0]["quantity"], tokens);
    let messages = json!({"model": "mystery", "messages": [{"role": "user", "content": text}]});
    let (_, framed) = post(&service, "/api/v1/cost/text", messages).await;
    assert!(framed["estimated_input_tokens"].as_u64().unwrap() >= tokens, "{framed}");
    assert_eq!(framed["cost_known"], false);
    assert_eq!(post(&service, "/api/v1/cost/text", json!({"model": "a"})).await.0, 400);
    assert_eq!(post(&service, "/api/v1/cost/text", json!({"model": "a", "messages": {}})).await.0, 400);
}

#[tokio::test]
async fn prices_in_force_are_listed_and_a_tenant_sees_its_own() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, PRICES);
    let (status, house) = service.get("/api/v1/prices?provider=in-house").await;
    assert_eq!(status, 200, "{house}");
    let expected = json!([{"layer": "operator", "version": "house-*@1970-01-01", "price":
        {"provider": "in-house", "model": "house-*", "input": "1", "output": "2", "per_request": "0.001"}}]);
    assert_eq!(house["items"], expected);
    let (_, one) = service.get("/api/v1/prices?provider=openai&model=gpt-4o-2024-08-06&day=2026-11-26").await;
    assert_eq!((one["items"].as_array().unwrap().len(), &one["day"]), (1, &json!("2026-11-26")));
    let (_, all) = service.get("/api/v1/prices").await;
    assert!(all["items"].as_array().unwrap().len() > 300);
    assert_eq!(service.get("/api/v1/prices?day=2026-02-30").await.0, 400);

    // A tenant's key.
    assert_eq!(put(&service, "/api/v1/tenants/beta", json!({})).await.status, 201);
    let (status, made) = post(&service, "/api/v1/keys", json!({"tenant": "beta", "name": "costs"})).await;
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().unwrap();
    let call = json!({"model": "gpt-4o-mini", "provider": "openai", "tokens": {"input": 1_000_000}});
    let own = with_key(&service, "POST", "/api/v1/cost", key, &call).await.json();
    assert_eq!((&own["tenant_id"], &own["cost_usd"]), (&json!("beta"), &json!("0.15")));
    let others = json!({"model": "gpt-4o-mini", "tenant_id": "zeta"});
    for (method, path, body) in [
        ("POST", "/api/v1/cost", &others),
        ("GET", "/api/v1/prices?tenant=zeta", &Value::Null),
        ("PUT", "/api/v1/price-rows/mine", &json!({"price": {"model": "a", "input": "0"}})),
        ("GET", "/api/v1/admin/unpriced", &Value::Null),
    ] {
        assert_eq!(with_key(&service, method, path, key, body).await.status, 403, "{method} {path}");
    }
}

#[tokio::test]
async fn price_rows_are_checked_and_a_wrong_amount_is_told_by_its_path() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let row = |price: Value| json!({"tenant": null, "position": 3, "price": price});
    let path = "/api/v1/price-rows/openai:m@2026-12-01";
    let price = json!({"model": "m", "provider": "openai", "from": "2026-12-01", "input": "0.15"});
    let made = put(&service, path, row(price.clone())).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let (_, read) = service.get(path).await;
    assert_eq!((&read["price"], &read["position"], &read["version"]), (&price, &json!(3), &json!(1)));
    for (price, what) in [
        (json!({"model": "m", "input": "-1"}), "price: input: "),
        (json!({"model": "m", "inputs": "1"}), "price: inputs: unknown field"),
        (json!({"model": "m"}), "price: names no price"),
        (json!([]), "price: invalid"),
    ] {
        let refused = put(&service, "/api/v1/price-rows/b", row(price)).await;
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(refused.status, 400);
        assert!(detail.starts_with(what), "{detail}");
    }
}

#[tokio::test]
async fn a_price_that_comes_later_is_in_the_cost_of_what_was_used_before() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let call = |id: &str, model: &str, at_ms: u64| UsageEvent {
        request_model: Some(model.to_owned()),
        usage_source: UsageSource::Reported,
        started_at_ms: at_ms,
        ..event(id, "acme", 10, 2)
    };
    let now_ms = event("now", "acme", 1, 1).started_at_ms;
    let known = call("e3", "gpt-4o-mini", now_ms);
    service.export(&[call("e1", "mystery", now_ms), call("e2", "riddle", now_ms), known]).await;
    let cost = async || {
        let (_, summary) = service.get("/api/v1/usage/acme?period=month").await;
        (summary["cost_usd"].as_str().unwrap().to_owned(), summary["requests_without_cost"].as_u64().unwrap())
    };
    assert_eq!(cost().await, ("0.0000027".to_owned(), 2));
    let price = json!({"price": {"model": "mystery", "input": "100000", "output": "500000"}});
    assert_eq!(put(&service, "/api/v1/price-rows/mystery", price).await.status, 201);
    // Ten tokens at 0.1 and two at 0.5 US dollars.
    eventually("the price is in the cost", PATIENCE, async || {
        let cost = cost().await;
        ensure!(cost == ("2.0000027".to_owned(), 1), "{cost:?}");
        Ok(())
    })
    .await
    .unwrap();
    let (_, breakdown) = service.get("/api/v1/usage/acme/breakdown?by=model").await;
    let of = |model: &str| breakdown["parts"].as_array().unwrap().iter().find(|part| part["label"] == model).unwrap();
    let costs = ["mystery", "riddle"].map(|model| (&of(model)["cost_usd"], &of(model)["requests_without_cost"]));
    assert_eq!(costs, [(&json!("2"), &json!(0)), (&json!("0"), &json!(1))]);
}

#[tokio::test]
async fn models_that_were_used_and_have_no_price_are_listed() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let call = |id: &str, model: &str, input| UsageEvent {
        request_model: Some(model.to_owned()),
        usage_source: UsageSource::Reported,
        ..event(id, "acme", input, 2)
    };
    service.export(&[call("e1", "mystery", 3), call("e2", "mystery", 5), call("e3", "gpt-4o-mini", 9)]).await;
    let (status, unpriced) = service.get("/api/v1/admin/unpriced").await;
    assert_eq!(status, 200, "{unpriced}");
    let expected = json!([{"tenant_id": "acme", "model": "mystery", "calls_without_price": 2, "calls": 2,
        "tokens": 12, "priced_now_by": null}]);
    assert_eq!((&unpriced["items"], &unpriced["left_off"]), (&expected, &json!(0)));
    assert_eq!(service.get("/api/v1/admin/unpriced?period=2020-01").await.1["items"], json!([]));
    assert_eq!(service.get("/api/v1/admin/unpriced?period=soon").await.0, 400);
}
