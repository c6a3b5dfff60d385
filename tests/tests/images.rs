//! Images are counted, priced, and kept within a budget.

use serde_json::{Value, json};
use tollgate_e2e::harness::http::Request;
use tollgate_e2e::harness::stack::Stack;

fn draw(stack: &Stack, tenant: &str, body: &Value) -> Request {
    Request::post(stack.envoy.listener(), "/v1/images/generations", body).header("x-tenant-id", tenant)
}

#[tokio::test]
async fn images_are_counted_and_priced_however_they_come() {
    let stack = Stack::builder().start().await.unwrap();
    let dalle = json!({"model": "dall-e-3", "prompt": "A boat at dawn"});
    let gpt = json!({"model": "gpt-image-1", "prompt": "A boat at dawn", "n": 2});
    let stream = json!({"model": "gpt-image-1", "prompt": "A boat", "stream": true, "partial_images": 2});
    let mut expected = Vec::new();
    for (body, images, cut) in [(dalle, 1, "1000000"), (gpt, 2, "70000"), (stream, 1, "16384")] {
        let reply = draw(&stack, "acme", &body).header("x-standin-cut", cut).send().await.unwrap();
        let sent = stack.standin.recent_calls().pop().unwrap();
        assert!((reply.status, &reply.body) == (sent.status, &sent.body), "it passes byte for byte: {}", reply.status);
        let usage = sent.usage.unwrap();
        // By the shipped table: $0.04 an image, or $5 and $40 a million tokens.
        let (tokens, cost_nanousd) = match images {
            1 if body["stream"].is_null() => ((0, 0), 40_000_000),
            _ => {
                let (input, output) = (usage.prompt_tokens, usage.completion_tokens);
                ((input, output), u64::from(input) * 5_000 + u64::from(output) * 40_000)
            }
        };
        expected.push((json!(images), json!(tokens.0), json!(tokens.1), json!(cost_nanousd)));
    }
    let events = stack.events("acme", 3).await.unwrap();
    for event in &events {
        assert_eq!(
            (&event["api"], &event["operation"]),
            (&json!("openai-images"), &json!("image_generation")),
            "{event}"
        );
        assert_eq!((&event["usage_source"], &event["finish"]), (&json!("reported"), &json!("complete")), "{event}");
    }
    let of =
        |event: &Value| ["images", "input_tokens", "output_tokens", "cost_nanousd"].map(|name| event[name].clone());
    let counted: Vec<_> =
        events.iter().map(of).map(|[images, input, output, cost]| (images, input, output, cost)).collect();
    assert_eq!(counted, expected);
    let usage = stack.rest_get("/api/v1/usage/acme?period=month").await.unwrap();
    assert_eq!(usage["images"], 4);
}

#[tokio::test]
async fn a_budget_has_room_for_the_images_that_are_asked_for() {
    let limits = json!([{"unit": "cost", "capacity": 0.1, "window": "month"}]);
    let tiers = json!({"tiers": {"starter": {"context_tokens": 1_000_000, "limits": limits}}});
    let stack = Stack::builder().service_config(tiers).start().await.unwrap();
    for (images, status) in [(3, 429), (2, 200), (1, 429)] {
        let body = json!({"model": "dall-e-3", "prompt": "A boat at dawn", "n": images});
        assert_eq!(draw(&stack, "acme", &body).send().await.unwrap().status, status, "{images} at $0.04 each");
    }
    let event = stack.events("acme", 1).await.unwrap().remove(0);
    assert_eq!((&event["images"], &event["cost_nanousd"]), (&json!(2), &json!(80_000_000)), "{event}");
}
