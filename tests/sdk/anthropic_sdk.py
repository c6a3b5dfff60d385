"""Streams a message through Tollgate with Anthropic's SDK, then calls until the plan says no."""

import anthropic

from tollgate_calls import BASE_URL, HEADERS, INPUT_TOKENS, OUTPUT_TOKENS, PROMPT, TEXT, TIMEOUT_S, until_denied

REQUEST = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": [{"role": "user", "content": PROMPT}]}


def stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**REQUEST) as events:
        text = "".join(events.text_stream)
        message = events.get_final_message()
    usage = message.usage
    assert (text, message.stop_reason) == (TEXT, "end_turn"), message
    assert usage.input_tokens + usage.cache_read_input_tokens == INPUT_TOKENS, usage
    assert usage.output_tokens == OUTPUT_TOKENS, usage


def main() -> None:
    client = anthropic.Anthropic(
        base_url=BASE_URL, api_key="unused", default_headers=HEADERS, max_retries=0, timeout=TIMEOUT_S
    )
    stream(client)
    for call in [lambda: client.messages.create(**REQUEST), lambda: client.messages.create(**REQUEST, stream=True)]:
        error = until_denied(call, anthropic.RateLimitError)
        assert (error.status_code, error.body["type"]) == (429, "error"), error
        assert error.body["error"]["type"] == "rate_limit_error", error.body
        assert int(error.response.headers["retry-after"]) >= 1, error.response.headers


if __name__ == "__main__":
    main()
