"""What decodes and receives what exporters send: OpenTelemetry's own messages, in an environment of their own."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.libraries import python_of

# Prints a message as JSON: ids as hexadecimal digits, enums as numbers, as OTLP's JSON has them.
DECODE = """
import base64, json, sys
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

IDS = ("traceId", "spanId", "parentSpanId")

def with_ids(value):
    if isinstance(value, list):
        return [with_ids(item) for item in value]
    if isinstance(value, dict):
        return {k: base64.b64decode(v).hex() if k in IDS else with_ids(v) for k, v in value.items()}
    return value

kind = {"traces": ExportTraceServiceRequest, "metrics": ExportMetricsServiceRequest}[sys.argv[1]]
for line in sys.stdin:
    message = kind.FromString(base64.b64decode(line))
    print(json.dumps(with_ids(MessageToDict(message, use_integers_for_enums=True))))
"""


def decode(kind: str, *bodies: bytes) -> list[dict[str, Any]]:
    """Return what protobuf bodies of `traces` or `metrics` say, as OTLP's JSON would have it."""
    import base64

    lines = "".join(base64.b64encode(body).decode() + "\n" for body in bodies)
    done = subprocess.run(
        [python_of("receivers"), "-c", DECODE, kind], input=lines, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def spans_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all spans of a message, their attributes as plain mappings."""
    found = []
    for resource in message["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            found += [span | {"attributes": attributes_of(span)} for span in scope["spans"]]
    return found


def attributes_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span, an event or a resource as a plain mapping."""
    return {entry["key"]: _value(entry["value"]) for entry in item.get("attributes", ())}


def _value(value: dict[str, Any]) -> Any:
    ((kind, found),) = value.items()
    if kind == "intValue":
        return int(found)
    if kind == "arrayValue":
        return [_value(item) for item in found.get("values", ())]
    return found
