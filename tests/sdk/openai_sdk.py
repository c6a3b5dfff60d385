"""Streams a chat completion and a response through Tollgate with OpenAI's SDK, then calls until the plan says no."""

import openai

from tollgate_calls import BASE_URL, HEADERS, INPUT_TOKENS, OUTPUT_TOKENS, PROMPT, TEXT, TIMEOUT_S, until_denied

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": PROMPT}]


def stream_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    usage = chunks[-1].usage
    assert text == TEXT, text
    assert all(chunk.usage is None for chunk in chunks[:-1]), chunks
    assert usage is not None, chunks[-1]
    assert (usage.prompt_tokens, usage.completion_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS), usage


def stream_without_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    # Code in the field takes the first choice of every chunk, for it did not ask for a chunk without any.
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT, chunks
    assert all(chunk.usage is None for chunk in chunks), chunks


def stream_response(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input=PROMPT, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert text == TEXT and last.type == "response.completed" and last.response.output_text == TEXT, last
    assert last.response.usage.output_tokens == OUTPUT_TOKENS, last


def main() -> None:
    client = openai.OpenAI(
        base_url=f"{BASE_URL}/v1", api_key="unused", default_headers=HEADERS, max_retries=0, timeout=TIMEOUT_S
    )
    stream_with_usage(client)
    stream_without_usage(client)
    stream_response(client)
    calls = [
        lambda: client.chat.completions.create(model=MODEL, messages=MESSAGES),
        lambda: client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True),
    ]
    for call in calls:
        error = until_denied(call, openai.RateLimitError)
        assert (error.status_code, error.code, error.type) == (429, "rate_limit_exceeded", "requests"), error
        assert int(error.response.headers["retry-after"]) >= 1, error.response.headers


if __name__ == "__main__":
    main()
