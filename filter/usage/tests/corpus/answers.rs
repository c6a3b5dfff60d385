//! What a model says never counts, whatever it says.

use proptest::prelude::*;
use tollgate_usage::{Hints, Reader, Report};

use crate::cuts::broken_response;

/// Responses with a place for what the model says, as a JSON string.
const RESPONSES: &[&str] = &[
    concat!(
        "data: {\"id\":\"i\",\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":SAID}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":SAID}}]}}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":12}}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":SAID}}]}\n\n",
    ),
    concat!(
        "data: {\"message\":{\"id\":\"i\",\"model\":\"m\",\"usage\":{\"input_tokens\":11,\"output_tokens\":1}}}\n\n",
        "data: {\"delta\":{\"text\":SAID}}\n\ndata: {\"delta\":{\"partial_json\":SAID}}\n\n",
        "data: {\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":12}}\n\n",
    ),
    concat!(
        "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":SAID}]}}],\"usageMetadata\":{\"promptTokenCount\":11}},",
        "{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"args\":{\"usageMetadata\":SAID}}}]}}],",
        "\"usageMetadata\":{\"promptTokenCount\":11,\"candidatesTokenCount\":12,\"totalTokenCount\":23}}]",
    ),
    concat!(
        "{\"model\":\"m\",\"message\":{\"content\":SAID},\"done\":false}\n",
        "{\"model\":\"m\",\"message\":{\"content\":SAID},\"done\":true,\"prompt_eval_count\":11,\"eval_count\":12}\n",
    ),
];

fn read(response: &str, said: &str) -> Report {
    let said = serde_json::to_string(said).expect("a string is JSON");
    let mut reader = Reader::new(Hints::default());
    reader.feed(response.replace("SAID", &said).as_bytes());
    reader.finish()
}

proptest! {
    #[test]
    fn an_answer_does_not_change_the_report(said in broken_response()) {
        let said = String::from_utf8_lossy(&said);
        for response in RESPONSES {
            let report = read(response, &said);
            prop_assert_eq!(report.usage.map(|usage| (usage.input, usage.output)), Some((11, 12)));
            // That more was written is all that may differ.
            let silent = read(response, "");
            prop_assert!(silent.output_estimate <= report.output_estimate);
            prop_assert_eq!(Report { output_estimate: 0, ..report }, Report { output_estimate: 0, ..silent });
        }
    }
}
