"""Streams a chat completion through Tollgate with OpenAI's SDK, then calls until the plan's limit says no.

Usage: openai_stream.py BASE_URL. Ends with status 0 when all was as an application would want it.
"""

import sys

import openai

# One more than any plan here admits in a burst.
MAX_CALLS = 200


def stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "How does a tollgate count?"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    usage = chunks[-1].usage
    assert text == "Every gate counts what passes, and lets", text
    assert all(chunk.usage is None for chunk in chunks[:-1]), chunks
    assert usage is not None and usage.completion_tokens == 8, chunks[-1]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


def call_until_denied(client: openai.OpenAI) -> openai.RateLimitError:
    for _ in range(MAX_CALLS):
        try:
            client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Again?"}])
        except openai.RateLimitError as error:
            return error
    raise AssertionError(f"{MAX_CALLS} calls, and none was refused")


def main() -> None:
    client = openai.OpenAI(
        base_url=sys.argv[1], api_key="unused", default_headers={"X-Tenant-Id": "acme"}, max_retries=0, timeout=30
    )
    stream(client)
    error = call_until_denied(client)
    assert (error.status_code, error.code, error.type) == (429, "rate_limit_exceeded", "requests"), error
    assert int(error.response.headers["retry-after"]) >= 1, error.response.headers


if __name__ == "__main__":
    main()
