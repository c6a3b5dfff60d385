use super::*;

#[test]
fn reads_something() {
    let mut reader = RequestReader::new(None);
    reader.feed(br#"{"model":"m","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"Hello world"}]}"#);
    let facts = reader.facts();
    assert_eq!(
        facts,
        RequestFacts {
            model: Some("m".to_owned()),
            stream: Some(true),
            output_cap: Some(5),
            choices: 1,
            input_estimate: facts.input_estimate,
            complete: true
        }
    );
}
