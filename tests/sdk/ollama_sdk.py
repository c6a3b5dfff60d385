"""Streams a chat and a completion through Tollgate with Ollama's SDK, then calls until the plan says no."""

import ollama

from tollgate_calls import BASE_URL, HEADERS, INPUT_TOKENS, OUTPUT_TOKENS, PROMPT, TEXT, TIMEOUT_S, until_denied

MODEL = "llama3.2"
MESSAGES = [{"role": "user", "content": PROMPT}]


def stream(client: ollama.Client) -> None:
    parts = list(client.chat(model=MODEL, messages=MESSAGES, stream=True))
    last = parts[-1]
    assert "".join(part.message.content for part in parts) == TEXT, parts
    assert last.done and (last.prompt_eval_count, last.eval_count) == (INPUT_TOKENS, OUTPUT_TOKENS), last


def stream_generate(client: ollama.Client) -> None:
    parts = list(client.generate(model=MODEL, prompt=PROMPT, stream=True))
    assert "".join(part.response for part in parts) == TEXT and parts[-1].eval_count == OUTPUT_TOKENS, parts


def main() -> None:
    client = ollama.Client(host=BASE_URL, headers=HEADERS, timeout=TIMEOUT_S)
    stream(client)
    stream_generate(client)
    calls = [
        lambda: client.chat(model=MODEL, messages=MESSAGES),
        lambda: list(client.chat(model=MODEL, messages=MESSAGES, stream=True)),
    ]
    for call in calls:
        error = until_denied(call, ollama.ResponseError)
        assert error.status_code == 429 and error.error, error


if __name__ == "__main__":
    main()
