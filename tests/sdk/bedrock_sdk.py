"""Streams a conversation and an invocation through Tollgate with boto3, then calls until the plan says no."""

import json

import boto3
from botocore.config import Config

from tollgate_calls import BASE_URL, HEADERS, INPUT_TOKENS, OUTPUT_TOKENS, PROMPT, TEXT, TIMEOUT_S, until_denied

MODEL = "anthropic.claude-3-5-haiku-20241022-v1:0"
REQUEST = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": PROMPT}]}]}


def identify(request, **_) -> None:
    for name, value in HEADERS.items():
        request.headers[name] = value


def stream(client) -> None:
    events = list(client.converse_stream(**REQUEST)["stream"])
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    usage = events[-1]["metadata"]["usage"]
    assert text == TEXT, events
    assert usage["inputTokens"] + usage["cacheReadInputTokens"] == INPUT_TOKENS, usage
    assert usage["outputTokens"] == OUTPUT_TOKENS, usage


def stream_invoke(client) -> None:
    request = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    answer = client.invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(request))
    events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == TEXT, events
    assert events[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == OUTPUT_TOKENS, events[-1]


def main() -> None:
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=BASE_URL,
        region_name="us-east-1",
        aws_access_key_id="unused",
        aws_secret_access_key="unused",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=TIMEOUT_S),
    )
    client.meta.events.register("before-sign", identify)
    stream(client)
    stream_invoke(client)
    for call in [lambda: client.converse(**REQUEST), lambda: client.converse_stream(**REQUEST)]:
        error = until_denied(call, client.exceptions.ThrottlingException)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429, error.response
        assert error.response["Error"]["Code"] == "ThrottlingException", error.response


if __name__ == "__main__":
    main()
