"""Tells of calls with OpenTelemetry's own SDK, as an instrumentation that follows the GenAI conventions does.

Called with REST_URL, GRPC_TARGET and TENANT. Over HTTP and over gRPC, packed, it tells of CALLS calls each, and of one that has
no tokens and no name, which the collector rejects and the SDK does not mind. It ends with status 0 when all was delivered.
"""

import sys

from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
import grpc

REST_URL, GRPC_TARGET, TENANT = sys.argv[1:4]
CALLS = 25
EVENT_NAME = "gen_ai.client.inference.operation.details"
ATTRIBUTES = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.request.stream": True,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.response.time_to_first_chunk": 0.25,
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 3,
    "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "a secret"}]}],
}


def tell(exporter: LogRecordExporter) -> None:
    logs = LoggerProvider(resource=Resource.create({"tenant.id": TENANT}))
    logs.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = logs.get_logger("instrumentation")
    tracer = TracerProvider().get_tracer("instrumentation")
    for _ in range(CALLS):
        with tracer.start_as_current_span("chat gpt-4o"):
            logger.emit(LogRecord(event_name=EVENT_NAME, attributes=ATTRIBUTES))
    logger.emit(LogRecord(body="an application's own log line"))
    assert logs.force_flush(), "not all was delivered"
    logs.shutdown()


tell(HttpExporter(endpoint=f"{REST_URL}/v1/logs", compression=HttpCompression.Gzip))
tell(GrpcExporter(endpoint=GRPC_TARGET, insecure=True, compression=grpc.Compression.Gzip))
