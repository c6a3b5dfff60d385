//! However large a response or a request is, and whatever it is, reading it takes a bounded amount of memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tollgate_usage::{End, Endpoint, Hints, Reader, Report, RequestFacts, RequestReader};

/// What a reader may have allocated at any time, with itself: far above what it takes, far below what it reads.
const MAX_READER_BYTES: usize = 64 * 1024;

thread_local! {
    static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<usize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread has allocated.
struct Counting;

// SAFETY: both calls are handed on as they are.
#[expect(unsafe_code, reason = "an allocator is unsafe to write")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE_BYTES.get().wrapping_add(layout.size());
        LIVE_BYTES.set(live);
        PEAK_BYTES.set(PEAK_BYTES.get().max(live));
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.set(LIVE_BYTES.get().wrapping_sub(layout.size()));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The tables, which all readers share, are built by the first.
fn reader() -> Reader {
    Reader::new(Hints::default()).feed(b"{");
    Reader::new(Hints::default())
}

/// What a response told, and the most bytes that reading it took.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Report, usize) {
    let mut reader = reader();
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    pieces.into_iter().for_each(|piece| reader.feed(piece));
    let peak = PEAK_BYTES.get() - before + size_of::<Reader>();
    (reader.finish(), peak)
}

/// The same of a request.
fn read_request<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (RequestFacts, usize) {
    let endpoint = Endpoint::of("/v1/chat/completions", None);
    RequestReader::new(endpoint.as_ref()).feed(b"{");
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    let mut reader = RequestReader::new(endpoint.as_ref());
    pieces.into_iter().for_each(|piece| drop(reader.feed(piece)));
    let peak = PEAK_BYTES.get() - before + size_of::<RequestReader>();
    (reader.facts(), peak)
}

fn assert_bounded(peak: usize) {
    assert!(peak < MAX_READER_BYTES, "{peak} bytes");
}

const MIB: usize = 1024 * 1024;
const USAGE: &[u8] = b"\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":12}}";

#[test]
fn a_body_of_a_gibibyte_takes_no_memory() {
    let text = vec![b'a'; MIB];
    let pieces = [&b"{\"model\":\"m\",\"choices\":[{\"message\":{\"content\":\""[..]]
        .into_iter()
        .chain(std::iter::repeat_n(&text[..], 1024))
        .chain([&b"\"},\"finish_reason\":\"stop\"}],"[..], USAGE]);
    let (report, peak) = read(pieces);
    assert_eq!(report.usage.map(|usage| (usage.input, usage.output)), Some((11, 12)));
    assert_eq!(report.end, End::Complete);
    assert!(report.output_estimate > MIB as u64, "{}", report.output_estimate);
    assert_bounded(peak);
}

#[test]
fn an_event_of_a_gibibyte_takes_no_memory() {
    let text = vec![b'a'; MIB];
    let opening = b"data: {\"id\":\"i\",\"model\":\"m\",\"choices\":[{\"delta\":{}}]}\n\n";
    let pieces = [&opening[..], b"data: {\"obfuscation\":\""]
        .into_iter()
        .chain(std::iter::repeat_n(&text[..], 1024))
        .chain([&b"\","[..], USAGE, b"\n\n"]);
    let (report, peak) = read(pieces);
    assert_eq!(report.usage.map(|usage| (usage.input, usage.output)), Some((11, 12)));
    assert_bounded(peak);
}

#[test]
fn images_of_a_gibibyte_take_no_memory() {
    let picture = vec![b'A'; MIB];
    let pictures = || std::iter::repeat_n(&picture[..], 512);
    let tokens = &b"\"usage\":{\"input_tokens\":11,\"output_tokens\":12}}"[..];
    let body = [&b"{\"data\":[{\"b64_json\":\""[..]]
        .into_iter()
        .chain(pictures())
        .chain([&b"\"},{\"b64_json\":\""[..]])
        .chain(pictures())
        .chain([&b"\"}],"[..], tokens]);
    let partial = &b"data: {\"type\":\"image_generation.partial_image\",\"b64_json\":\""[..];
    let completed = &b"\"}\n\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\""[..];
    let stream = [partial].into_iter().chain(pictures()).chain([completed]).chain(pictures()).chain([
        &b"\","[..],
        tokens,
        b"\n\n",
    ]);
    for (images, (report, peak)) in [(2, read(body)), (1, read(stream))] {
        assert_eq!(report.usage.map(|usage| (usage.images, usage.input, usage.output)), Some((images, 11, 12)));
        assert_eq!((report.end, report.output_estimate), (End::Complete, 0));
        assert!(peak < 16 * 1024, "{peak} bytes");
    }
}

#[test]
fn depth_and_width_take_no_memory() {
    for piece in [
        "[",
        "{\"a\":[",
        "{\"usage\":{",
        "[{\"choices\":",
        "\"a\":1,",
        "{\"candidates\":[{\"content\":{\"parts\":[{",
        "\\",
    ] {
        let pieces = piece.repeat(MIB / piece.len());
        for opening in ["", "{\"a\":", "data: {\"a\":", "data: ", "[{\"choices\":[{\"message\":{\"tool_calls\":"] {
            let (_, peak) =
                read([opening.as_bytes(), pieces.as_bytes()].into_iter().flat_map(|piece| piece.chunks(4096)));
            assert_bounded(peak);
        }
    }
}

#[test]
fn long_names_numbers_and_reasons_take_no_memory() {
    let long = "9".repeat(MIB);
    let body = format!(
        "{{\"id\":\"{long}\",\"model\":\"{long}\",\"{long}\":1,\"choices\":[{}],\"error\":{{\"type\":\"{long}\"}},\
         \"usage\":{{\"prompt_tokens\":{long},\"completion_tokens\":3,\"completion_tokens\":{long}}}}}",
        (0..9999)
            .map(|at| format!("{{\"finish_reason\":\"{at}{long:.999}\",\"delta\":1}}"))
            .collect::<Vec<_>>()
            .join(",")
    );
    let (report, peak) = read(body.as_bytes().chunks(1400));
    assert_bounded(peak);
    assert_eq!(report.model.map(|model| model.len()), Some(256));
    assert_eq!(report.error.map(|error| error.len()), Some(256));
    assert_eq!(report.finish_reasons.len(), 16);
    assert_eq!(report.usage.map(|usage| (usage.input, usage.output)), Some((0, 3)));
}

#[test]
fn events_that_are_like_none_before_take_no_memory() {
    let mut reader = reader();
    reader.feed(b"data: {\"id\":\"i\",\"model\":\"m\",\"choices\":[{\"delta\":{}}]}\n\n");
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    for at in 0..9999 {
        let event =
            format!("data: {{\"k{at}\":[{}],\"x\":\"{}\"}}\n\n", "\"s\",".repeat(at % 70), "y".repeat(at % 900));
        reader.feed(event.as_bytes());
    }
    let peak = PEAK_BYTES.get() - before + size_of::<Reader>();
    assert!(peak < 16 * 1024, "{peak} bytes");
}

#[test]
fn content_allocates_nothing_after_the_first_events() {
    let event = |content: &str| {
        format!("data: {{\"id\":\"i\",\"model\":\"m\",\"choices\":[{{\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n")
    };
    let events: Vec<_> = (0..99).map(|at| event(&"word ".repeat(at))).collect();
    let mut reader = reader();
    events.iter().take(3).for_each(|event| reader.feed(event.as_bytes()));
    let before = ALLOCATIONS.get();
    for event in &events {
        reader.feed(event.as_bytes());
        event.as_bytes().chunks(7).for_each(|chunk| reader.feed(chunk));
    }
    assert_eq!(ALLOCATIONS.get(), before);
}

#[test]
fn a_request_with_a_gibibyte_of_images_takes_no_memory() {
    let image = vec![b'A'; MIB];
    let pieces = [&b"{\"messages\":[{\"content\":[{\"image_url\":{\"url\":\"data:image/png;base64,"[..]]
        .into_iter()
        .chain(std::iter::repeat_n(&image[..], 1024))
        .chain([&b"\"}}]}],\"stream\":true,\"model\":\"m\"}"[..]]);
    let (facts, peak) = read_request(pieces);
    assert_eq!((facts.model.as_deref(), facts.stream, facts.complete), (Some("m"), Some(true), true));
    assert!(peak < 16 * 1024, "{peak} bytes");
}

#[test]
fn a_form_with_a_gibibyte_of_pictures_takes_no_memory() {
    let endpoint = Endpoint::of("/v1/images/edits", None);
    let (picture, lines) = (vec![b'A'; MIB], b"\r\n-".repeat(MIB / 3));
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    let mut reader = RequestReader::of_form(endpoint.as_ref(), "multipart/form-data; boundary=b").unwrap();
    let part = |name: &str| format!("\r\n--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    for name in ["image", "model", "prompt", "n"] {
        reader.feed(part(name).as_bytes());
        (0..255).for_each(|_| drop(reader.feed(&picture)));
        reader.feed(&lines);
    }
    reader.feed(b"\r\n--b--");
    let facts = reader.facts();
    assert_eq!((facts.model.map(|model| model.len()), facts.images, facts.complete), (Some(256), 1, true));
    let peak = PEAK_BYTES.get() - before + size_of::<RequestReader>();
    assert!(peak < 16 * 1024, "{peak} bytes");
}

#[test]
fn requests_of_any_depth_and_width_take_no_memory() {
    for piece in
        ["[", "{\"messages\":[", "{\"content\":[{", "\"a\":\"b\",", "{\"input\":[[", "\"model\":\"m\",", "\\u0041"]
    {
        let pieces = piece.repeat(MIB / piece.len());
        for opening in ["", "{", "{\"messages\":[{\"content\":", "{\"tools\":[{\"parameters\":", "{\"model\":\""] {
            let (_, peak) =
                read_request([opening, &pieces].into_iter().flat_map(|piece| piece.as_bytes().chunks(4096)));
            assert!(peak < 16 * 1024, "{peak} bytes");
        }
    }
}
