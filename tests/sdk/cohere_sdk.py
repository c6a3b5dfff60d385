"""Streams a chat through Tollgate with Cohere's SDK, both versions of the API, then calls until the plan says no."""

import cohere
from cohere.core import RequestOptions

from tollgate_calls import BASE_URL, HEADERS, INPUT_TOKENS, OUTPUT_TOKENS, PROMPT, TEXT, TIMEOUT_S, until_denied

MODEL = "command-a-03-2025"
MESSAGES = [{"role": "user", "content": PROMPT}]
OPTIONS = RequestOptions(additional_headers=HEADERS, max_retries=0, timeout_in_seconds=TIMEOUT_S)


def stream(client: cohere.ClientV2) -> None:
    events = list(client.chat_stream(model=MODEL, messages=MESSAGES, request_options=OPTIONS))
    text = "".join(event.delta.message.content.text for event in events if event.type == "content-delta")
    last = events[-1]
    assert text == TEXT and last.type == "message-end", events
    tokens = last.delta.usage.tokens
    assert (tokens.input_tokens, tokens.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS), last


def stream_v1(client: cohere.Client) -> None:
    events = list(client.chat_stream(model=MODEL, message=PROMPT, request_options=OPTIONS))
    text = "".join(event.text for event in events if event.event_type == "text-generation")
    last = events[-1]
    assert text == TEXT and last.event_type == "stream-end", events
    assert last.response.meta.tokens.output_tokens == OUTPUT_TOKENS, last


def main() -> None:
    client = cohere.ClientV2(api_key="unused", base_url=BASE_URL)
    stream(client)
    stream_v1(cohere.Client(api_key="unused", base_url=BASE_URL))
    calls = [
        lambda: client.chat(model=MODEL, messages=MESSAGES, request_options=OPTIONS),
        lambda: list(client.chat_stream(model=MODEL, messages=MESSAGES, request_options=OPTIONS)),
    ]
    for call in calls:
        error = until_denied(call, cohere.TooManyRequestsError)
        assert error.status_code == 429 and error.body["message"], error
        assert int(error.headers["retry-after"]) >= 1, error.headers


if __name__ == "__main__":
    main()
