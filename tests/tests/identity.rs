//! Who pays is said by the places that the operator chose, or nobody is served.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};
use tollgate_e2e::harness::http::{Reply, Request};
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::PATIENCE;

/// What signs the tokens, by HMAC-SHA-256.
const TOKEN_KEY: &[u8] = b"tollgate-test-key-of-256-bits-ok";
/// The claims of a token, and their signature by [`TOKEN_KEY`].
type Signed = (&'static str, &'static str);
const ACME: Signed =
    (r#"{"iss":"idp","org":{"id":"acme","plan":"pro"}}"#, "EO4PJCeHOdpjkVeayR7zRu3Y3JHUbySAcIBvErJUp6I");
const NOBODY: Signed = (r#"{"iss":"idp","sub":"someone"}"#, "aTQhrk_WBr0Y2TpAXUF2gj3kWvIYx-Cjhear7eEsGaw");
const NUMBER: Signed = (r#"{"iss":"idp","org":{"id":42}}"#, "0GAUoQrf44vMyHIxXKpLGPF4C0d4QxopH1uRdHRoDyc");

/// The filter's config: this identity, and events that don't wait for each other.
fn identity(identity: &Value) -> Value {
    json!({"identity": identity, "usage": {"flush_interval_ms": 1}})
}

fn refusal(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status.as_u16(), reply.header("x-tollgate-error"))
}

#[tokio::test]
async fn a_call_without_a_tenant_is_refused() {
    let stack = Stack::builder().start().await.unwrap();
    let reply = stack.chat("acme").without_header("x-tenant-id").send().await.unwrap();
    assert_eq!(reply.status, 401);
    let error = &reply.json().unwrap()["error"];
    assert_eq!((&error["code"], &error["type"]), (&"tenant_missing".into(), &"authentication_error".into()));
    assert!(error["message"].as_str().unwrap().contains("x-tenant-id"), "{error}");
    assert_eq!(stack.standin.call_count(), 0);
}

#[tokio::test]
async fn the_configured_tenant_and_tier_stand_in_for_those_that_are_missing() {
    let identity = json!({"identity": {"default_tenant": "walk-in", "default_tier": "pro"}});
    let stack = Stack::builder().filter_config(identity).start().await.unwrap();
    let reply = stack.chat("acme").without_header("x-tenant-id").send().await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-ratelimit-limit-requests")), (200, Some("120")));
    let usage = stack.usage_after("walk-in", 1, PATIENCE).await.unwrap();
    assert_eq!(usage["plan_tier"], "pro");
}

#[tokio::test]
async fn only_the_configured_headers_say_who_pays() {
    let identity = json!({"identity": {"tenant": [{"header": "x-team"}], "tier": [{"header": "x-plan"}]}});
    let stack = Stack::builder().filter_config(identity).start().await.unwrap();
    let request = stack.chat("mallory").header("x-plan-tier", "enterprise").header("x-team", "acme");
    let reply = request.header("x-plan", "pro").send().await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-ratelimit-limit-requests")), (200, Some("120")));
    stack.usage_after("acme", 1, PATIENCE).await.unwrap();
    stack.usage_after("mallory", 0, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_header_that_is_no_name_is_refused_and_not_passed_over() {
    let sources = json!({"tenant": [{"header": "x-team"}, {"header": "x-tenant-id"}]});
    let stack = Stack::builder().filter_config(identity(&sources)).start().await.unwrap();
    let invalid = [
        ("twice", stack.chat("mallory").header("x-team", "acme").header_again("x-team", "mallory")),
        ("the same twice", stack.chat("mallory").header("x-team", "acme").header_again("x-team", "acme")),
        ("empty", stack.chat("mallory").header("x-team", "")),
        ("too long", stack.chat("mallory").header("x-team", &"x".repeat(257))),
    ];
    for (what, request) in invalid {
        let reply = request.send().await.unwrap();
        assert_eq!(refusal(&reply), (400, Some("identity_invalid")), "{what}: {}", reply.text());
        assert!(reply.text().contains("x-team"), "{what}: {}", reply.text());
    }
    assert_eq!(stack.standin.call_count(), 0);
    let longest = "x".repeat(256);
    assert_eq!(stack.chat("mallory").header("x-team", &longest).send().await.unwrap().status, 200);
    stack.usage_after(&longest, 1, PATIENCE).await.unwrap();
    stack.envoy.stat_reaches("tollgate_filter_calls_unidentified_total", 4).await.unwrap();
}

#[tokio::test]
async fn a_verified_tokens_claims_say_who_pays() {
    let claim = |name| json!({"jwt_claim": ["jwt_payload", "org", name]});
    let sources = json!({
        "tenant": [claim("id"), {"header": "x-tenant-id"}],
        "tier": [claim("plan")],
        "remove_headers": ["x-tenant-id"],
    });
    let stack = Stack::builder().filter_config(identity(&sources)).filter_before(jwt_authn()).start().await.unwrap();
    let with_token = |token: Signed| stack.chat("mallory").header("authorization", &bearer(token));

    let reply = with_token(ACME).send().await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-ratelimit-limit-requests")), (200, Some("120")), "acme's tier");
    let upstream = stack.standin.recent_calls().pop().unwrap();
    assert!(!upstream.headers.contains_key("x-tenant-id"), "{:?}", upstream.headers);
    let models = Request::get(stack.envoy.listener(), "/v1/models").header("x-tenant-id", "acme");
    assert_eq!(models.send().await.unwrap().status, 200);
    let upstream = stack.standin.recent_calls().pop().unwrap();
    assert!(!upstream.headers.contains_key("x-tenant-id"), "{:?}", upstream.headers);

    let forged = (ACME.0.replace("acme", "mallory"), ACME.1);
    let reply = stack.chat("mallory").header("authorization", &bearer((&forged.0, forged.1))).send().await.unwrap();
    assert_eq!(refusal(&reply), (401, None), "Envoy refuses it: {}", reply.text());
    let reply = with_token(NUMBER).send().await.unwrap();
    assert_eq!(refusal(&reply), (400, Some("identity_invalid")), "{}", reply.text());
    for request in [stack.chat("mallory"), with_token(NOBODY)] {
        let reply = request.without_header("x-tenant-id").send().await.unwrap();
        assert_eq!(refusal(&reply), (401, Some("tenant_missing")), "{}", reply.text());
        assert!(reply.text().contains("the token's claim `org.id`"), "{}", reply.text());
    }
    assert_eq!(stack.standin.call_count(), 2);

    let event = stack.events("acme", 1).await.unwrap().remove(0);
    assert_eq!(event["tier"], "pro", "{event}");
    stack.usage_after("mallory", 0, PATIENCE).await.unwrap();
    assert_eq!(stack.chat("globex").send().await.unwrap().status, 200, "the next source, where no token is");
    stack.usage_after("globex", 1, PATIENCE).await.unwrap();
}

/// Envoy's own check of tokens. Calls without one pass.
fn jwt_authn() -> Value {
    let key = json!({"kty": "oct", "alg": "HS256", "k": BASE64_URL_SAFE_NO_PAD.encode(TOKEN_KEY)});
    let provider = json!({
        "issuer": "idp",
        "local_jwks": {"inline_string": json!({"keys": [key]}).to_string()},
        "payload_in_metadata": "jwt_payload",
    });
    let a_token_or_none = json!({"requirements": [{"provider_name": "idp"}, {"allow_missing": {}}]});
    json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"idp": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": a_token_or_none}}],
        },
    })
}

fn bearer((claims, signature): (&str, &str)) -> String {
    let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("Bearer {}.{}.{signature}", encoded(r#"{"alg":"HS256"}"#), encoded(claims))
}

// A thread of its own serves the stand-in while others wait for curl.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_clients_certificate_says_who_pays() {
    let sources = json!({
        "tenant": [{"peer_certificate": "uri", "match": "^spiffe://prod/ns/([^/]+)/"}],
        "tier": [{"peer_certificate": "subject", "match": "OU=([a-z]+)"}],
    });
    let files = RunDir::create().unwrap();
    let authority = authority();
    let here = SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
    issue(&authority, "envoy", "starter", here, files.path());
    for (name, id) in [("acme", "spiffe://prod/ns/acme/sa/app"), ("staging", "spiffe://staging/ns/acme/sa/app")] {
        issue(&authority, name, "pro", SanType::URI(id.try_into().unwrap()), files.path());
    }
    let file = |name: &str| json!({"filename": files.path().join(name)});
    let stack = Stack::builder().filter_config(identity(&sources)).client_certificates(json!({
        "tls_certificates": [{"certificate_chain": file("envoy.pem"), "private_key": file("envoy.key")}],
        "validation_context": {"trusted_ca": {"inline_string": authority.pem()}},
    }));
    let stack = stack.start().await.unwrap();
    fs::write(files.path().join("authority.pem"), authority.pem()).unwrap();

    let answer = chat_as("acme", stack.envoy.listener(), files.path()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let event = stack.events("acme", 1).await.unwrap().remove(0);
    assert_eq!(event["tier"], "pro", "{event}");
    let answer = chat_as("staging", stack.envoy.listener(), files.path()).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("x-tollgate-error: tenant_missing"), "{answer}");
    assert_eq!(stack.standin.call_count(), 1);
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Makes a certificate for `name` in `unit`, in `dir`: `NAME.pem` and `NAME.key`.
fn issue(authority: &CertifiedIssuer<'_, KeyPair>, name: &str, unit: &str, alternative: SanType, dir: &Path) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    params.subject_alt_names.push(alternative);
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, authority).unwrap().pem()).unwrap();
    fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// A chat completion by a client with this certificate, which also says that it is another: the whole answer.
async fn chat_as(name: &str, envoy: SocketAddr, dir: &Path) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--include"]);
    curl.args(["--cacert", "authority.pem", "--cert", &format!("{name}.pem"), "--key", &format!("{name}.key")]);
    curl.args(["--header", "x-tenant-id: mallory", "--header", "content-type: application/json"]);
    curl.args(["--data", r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"How much?"}]}"#]);
    curl.arg(format!("https://{envoy}/v1/chat/completions")).current_dir(dir);
    let output = tokio::task::spawn_blocking(move || curl.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_certificate_that_the_nearest_proxy_saw_says_who_pays() {
    let sources = json!({"tenant": [{"forwarded_client_cert": "uri", "match": "^spiffe://prod/ns/([^/]+)/"}]});
    let forwarded = json!({"forward_client_cert_details": "ALWAYS_FORWARD_ONLY"});
    let stack = Stack::builder().filter_config(identity(&sources)).connection_manager(forwarded).start().await.unwrap();
    let element = |namespace: &str| format!("By=spiffe://prod/mesh;Hash=0a;URI=spiffe://prod/ns/{namespace}/sa/app");
    let forwarding = |elements: &[String]| stack.chat("mallory").header("x-forwarded-client-cert", &elements.join(","));

    let acme = element("acme") + r#";Subject="CN=app,URI=spiffe://prod/ns/mallory/sa/app""#;
    assert_eq!(forwarding(&[element("mallory"), acme.clone()]).send().await.unwrap().status, 200);
    stack.usage_after("acme", 1, PATIENCE).await.unwrap();
    let refused = [
        (stack.chat("mallory"), (401, Some("tenant_missing"))),
        (forwarding(&[]), (401, Some("tenant_missing"))),
        (forwarding(&[acme, "By=spiffe://prod/mesh;Hash=0b".to_owned()]), (401, Some("tenant_missing"))),
        (forwarding(&[element(&"x".repeat(257))]), (400, Some("identity_invalid"))),
    ];
    for (index, (request, expected)) in refused.into_iter().enumerate() {
        let reply = request.send().await.unwrap();
        assert_eq!(refusal(&reply), expected, "{index}: {}", reply.text());
    }
    // Envoy makes one list of several such headers, in their order.
    let twice = forwarding(&[element("mallory")]).header_again("x-forwarded-client-cert", &element("acme"));
    assert_eq!(twice.send().await.unwrap().status, 200);
    assert_eq!(stack.standin.call_count(), 2);
    stack.usage_after("acme", 2, PATIENCE).await.unwrap();
    stack.usage_after("mallory", 0, PATIENCE).await.unwrap();
}
