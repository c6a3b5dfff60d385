//! Requests that are forms, read at every cut.

use proptest::prelude::*;
use tollgate_usage::{Endpoint, RequestFacts, RequestReader};

/// A form as OpenAI's SDK writes it, with a picture between its fields.
fn form(boundary: &str, picture: &[u8]) -> Vec<u8> {
    let field = |name: &str, value: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
    };
    let file = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"image[]\"; filename=\"n\"\r\nContent-Type: image/png\r\n\r\n"
    );
    let fields = [field("prompt", "A boat\r\n--at dawn"), file.into_bytes(), picture.to_vec(), b"\r\n".to_vec()];
    let behind = [field("model", "gpt-image-1"), field("size", "auto"), field("n", "3"), field("stream", "true")];
    [fields.concat(), behind.concat(), format!("--{boundary}--\r\n").into_bytes()].concat()
}

fn read_form(content_type: &str, pieces: &[&[u8]]) -> RequestFacts {
    let endpoint = Endpoint::of("/v1/images/edits", None);
    let mut reader = RequestReader::of_form(endpoint.as_ref(), content_type).unwrap();
    pieces.iter().for_each(|piece| assert_eq!(reader.feed(piece), []));
    reader.facts()
}

const FORM: &str = "multipart/form-data; charset=utf-8; boundary=\"x-7b\"";

#[test]
fn a_form_is_read_at_every_cut() {
    let picture = b"\x89PNG\r\n\x1a\n--x-7b\r\r\n--x-7\r\n--x-7c name=\"model\"\r\n\r\nother\r\n\r";
    let body = form("x-7b", picture);
    let whole = read_form(FORM, &[&body]);
    assert_eq!((whole.model.as_deref(), whole.images, whole.stream), (Some("gpt-image-1"), 3, Some(true)));
    assert!(whole.complete && (5..12).contains(&whole.input_estimate), "{whole:?}");
    for at in 0..=body.len() {
        let (first, second) = body.split_at(at);
        assert_eq!(read_form(FORM, &[first, second]), whole, "at {at}");
        let cut = read_form(FORM, &[first]);
        assert_eq!(cut.complete, at >= body.len() - 2, "at {at}");
    }
    assert_eq!(read_form(FORM, &body.chunks(1).collect::<Vec<_>>()), whole);
}

#[test]
fn what_is_no_form_is_told_so() {
    for content_type in [
        "application/json",
        "multipart/mixed; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
    ] {
        assert!(RequestReader::of_form(None, content_type).is_none(), "{content_type}");
    }
    let too_long = format!("multipart/form-data; boundary={}", "x".repeat(71));
    assert!(RequestReader::of_form(None, &too_long).is_none());
    for body in
        ["", "--x-7b", "no form", "--x-7b\r\n\r\n", "\r\n--x-7b\nContent-Disposition: form-data; name=model\n\nm"]
    {
        let facts = read_form(FORM, &[body.as_bytes()]);
        assert_eq!((facts.model, facts.images, facts.complete), (None, 1, false), "{body}");
    }
}

proptest! {
    #[test]
    fn any_form_reads_the_same_byte_by_byte(parts in prop::collection::vec(prop::sample::select(vec![
        "--x-7b", "\r\n", "\r", "\n", "--", "Content-Disposition: form-data; name=\"model\"", "name=\"n\"", "7", "é", "x-7b",
        "\r\n--x-7b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n5", "\r\n\r\n",
    ]), 0..30)) {
        let body = parts.concat().into_bytes();
        prop_assert_eq!(read_form(FORM, &body.chunks(1).collect::<Vec<_>>()), read_form(FORM, &[&body]));
    }
}
