"""Streams content through Tollgate with Google's GenAI SDK, then calls until the plan says no."""

from google import genai
from google.genai import errors, types

from tollgate_calls import BASE_URL, HEADERS, INPUT_TOKENS, OUTPUT_TOKENS, PROMPT, TEXT, TIMEOUT_S, until_denied

REQUEST = {"model": "gemini-2.5-flash", "contents": PROMPT}


def stream(client: genai.Client) -> None:
    chunks = list(client.models.generate_content_stream(**REQUEST))
    usage = chunks[-1].usage_metadata
    assert "".join(chunk.text or "" for chunk in chunks) == TEXT, chunks
    assert usage.prompt_token_count == INPUT_TOKENS, usage
    assert usage.candidates_token_count + usage.thoughts_token_count == OUTPUT_TOKENS, usage


def main() -> None:
    options = types.HttpOptions(
        base_url=BASE_URL,
        headers=HEADERS,
        timeout=TIMEOUT_S * 1000,
        retry_options=types.HttpRetryOptions(attempts=1),
    )
    client = genai.Client(vertexai=False, api_key="unused", http_options=options)
    stream(client)
    calls = [
        lambda: client.models.generate_content(**REQUEST),
        lambda: list(client.models.generate_content_stream(**REQUEST)),
    ]
    for call in calls:
        error = until_denied(call, errors.ClientError)
        assert (error.code, error.status) == (429, "RESOURCE_EXHAUSTED"), error


if __name__ == "__main__":
    main()
