//! What Splunk answers, and what to do about it.

use std::time::Duration;

use serde::Deserialize;

use crate::sinks::SinkError;

/// The longest text of an answer that is told.
const MAX_TEXT_CHARS: usize = 200;

/// Codes that are about the events themselves: no data, invalid format, no event, blank event, indexed fields. All others are
/// about the token, the index, the channel or the server, which somebody sets right, and then the same events pass.
const CODES_OF_EVENTS: [u64; 5] = [5, 6, 12, 13, 15];

/// The body of an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    text: String,
    code: Option<u64>,
    #[serde(rename = "ackId")]
    ack_id: Option<u64>,
    #[serde(rename = "invalid-event-number")]
    invalid_event_number: Option<usize>,
}

/// What an answer says to `entries` that were sent: the number by which to ask for the acknowledgement, where there will be
/// one.
pub(super) fn read(
    status: u16,
    after: Option<Duration>,
    body: &[u8],
    entries: usize,
) -> Result<Option<u64>, SinkError> {
    let parsed: Body = serde_json::from_slice(body).unwrap_or_default();
    let text: String = parsed.text.chars().take(MAX_TEXT_CHARS).collect();
    let why = match parsed.code {
        Some(code) => format!("HEC answered {status}, code {code}: {text}"),
        None => format!("HEC answered {status}, not as HEC does"),
    };
    match (status, parsed.code) {
        // A proxy's page is none of its words.
        (200, Some(0)) => Ok(parsed.ack_id),
        (400, Some(code)) if CODES_OF_EVENTS.contains(&code) => {
            Err(SinkError::Refused { entries, at: parsed.invalid_event_number, why })
        }
        // Too large.
        (413, _) => Err(SinkError::Refused { entries, at: None, why }),
        _ => Err(SinkError::Retry { after, why }),
    }
}

/// Which of the numbers that were asked for are acknowledged.
pub(super) fn acknowledged(body: &[u8]) -> Option<Vec<u64>> {
    #[derive(Deserialize)]
    struct Acks {
        acks: std::collections::HashMap<String, bool>,
    }
    let acks: Acks = serde_json::from_slice(body).ok()?;
    Some(
        acks.acks
            .iter()
            .filter(|(_, is_acknowledged)| **is_acknowledged)
            .filter_map(|(id, _)| id.parse().ok())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Result<Option<u64>, SinkError> {
        super::read(status, Some(Duration::from_secs(3)), body.as_bytes(), 5)
    }

    #[test]
    fn a_success_has_the_number_of_its_acknowledgement() {
        assert_eq!(read(200, r#"{"text":"Success","code":0}"#), Ok(None));
        assert_eq!(read(200, r#"{"text":"Success","code":0,"ackId":7}"#), Ok(Some(7)));
    }

    #[test]
    fn only_what_is_wrong_with_events_is_for_good() {
        for (status, body, at) in [
            (400, r#"{"text":"Invalid data format","code":6,"invalid-event-number":2}"#, Some(2)),
            (400, r#"{"text":"Event field is required","code":12,"invalid-event-number":0}"#, Some(0)),
            (400, r#"{"text":"Event field cannot be blank","code":13}"#, None),
            (413, "<html>too large</html>", None),
        ] {
            let refused = matches!(read(status, body), Err(SinkError::Refused { entries: 5, at: is, .. }) if is == at);
            assert!(refused, "{body}");
        }
        for (status, body) in [
            (400, r#"{"text":"Incorrect index","code":7,"invalid-event-number":1}"#),
            (400, r#"{"text":"Data channel is missing","code":10}"#),
            (401, r#"{"text":"Token is required","code":2}"#),
            (403, r#"{"text":"Invalid token","code":4}"#),
            (503, r#"{"text":"Server is busy","code":9}"#),
            (429, r#"{"text":"HEC queue at capacity","code":26}"#),
            (500, ""),
            (400, "<html>a proxy</html>"),
            (200, "<html>a portal</html>"),
            (200, r#"{"text":"?","code":9}"#),
            (302, ""),
        ] {
            let retried =
                matches!(read(status, body), Err(SinkError::Retry { after: Some(after), .. }) if after.as_secs() == 3);
            assert!(retried, "{status} {body}");
        }
    }

    #[test]
    fn acknowledgements_are_read() {
        let mut acknowledged = super::acknowledged(br#"{"acks":{"0":true,"1":false,"2":true}}"#).unwrap();
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, [0, 2]);
        assert_eq!(super::acknowledged(b"?"), None);
    }
}
