"""The OTLP/HTTP exporter: spans and metrics, as protobuf or JSON (OTLP 1.x, opentelemetry.io/docs/specs/otlp)."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from autoinst.export import metrics, otlp_json, protobuf, spans
from autoinst.export.answers import BAD_REQUEST, MULTIPLE_CHOICES, OK, Answer, Verdict, judge
from autoinst.export.feed import BACKLOG, Feed
from autoinst.export.signals import INTERNAL, Metric, Point, Resource, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autoinst.export.endpoint import Endpoint
    from autoinst.export.signals import Attributes
    from autoinst.posting import Response
    from autoinst.record import Record
    from autoinst.store.feeds import Batch

PROTOBUF, JSON = "application/x-protobuf", "application/json"
ENCODERS = {
    ("traces", PROTOBUF): protobuf.traces,
    ("traces", JSON): otlp_json.traces,
    ("metrics", PROTOBUF): protobuf.metrics,
    ("metrics", JSON): otlp_json.metrics,
}
METRIC_SECONDS = 60.0  # OTEL_METRIC_EXPORT_INTERVAL's default
METRIC_BATCH = 8192
TEST_METRIC = Metric("autoinst.doctor", "1", "A test.", (), (Point({"autoinst.test": True}, 0, 0.0, ()),))
TOKEN_HEADER = "Idempotency-Key"  # noqa: S105 - draft-ietf-httpapi-idempotency-key-header


class Traces(Feed):
    """Jobs as spans, which may be another's than plain OpenTelemetry's."""

    def __init__(
        self,
        endpoint: Endpoint,
        content_type: str,
        *,
        backlog: int = BACKLOG,
        name: str = "otlp/traces",
        resources: Callable[[Sequence[Record]], list[Resource]] | None = None,
        test_attributes: Attributes | None = None,
    ) -> None:
        self.name, self.place, self.backlog = name, endpoint.url, backlog
        self._endpoint = endpoint
        self._content_type = content_type
        self._resources = resources or resources_of
        self._test_attributes = test_attributes or {"autoinst.test": True}

    def send(self, records: Sequence[Record], batch: Batch) -> Answer:
        """Send the spans of `records`."""
        return post(self._endpoint, "traces", self._content_type, self._resources(records), batch.token)

    def test(self) -> Answer:
        """Send one span that says it is a test."""
        now = time.time_ns()
        ids = os.urandom(16), os.urandom(8)
        span = Span(*ids, None, "autoinst doctor", INTERNAL, now, now, self._test_attributes)
        resource = Resource({"service.name": "autoinst doctor"}, (span,))
        return post(self._endpoint, "traces", self._content_type, [resource], os.urandom(16).hex())

    def close(self) -> None:
        """Close connections."""
        self._endpoint.close()


class Metrics(Feed):
    """What batches of jobs add to metrics, as deltas: plain OpenTelemetry's, or what `measure` makes of them."""

    batch = METRIC_BATCH

    def __init__(
        self,
        endpoint: Endpoint,
        content_type: str,
        *,
        backlog: int = BACKLOG,
        gather: float = METRIC_SECONDS,
        name: str = "otlp/metrics",
        resource_of: Callable[[Record], Attributes] = spans.resource_of,
        measure: Callable[[Sequence[Record]], tuple[Metric, ...]] = metrics.of_records,
        test: tuple[Metric, ...] = (TEST_METRIC,),
    ) -> None:
        self.name, self.place, self.backlog, self.gather = name, endpoint.url, backlog, gather
        self._resource_of, self._measure, self._test = resource_of, measure, test
        self._endpoint = endpoint
        self._content_type = content_type

    def send(self, records: Sequence[Record], batch: Batch) -> Answer:
        """Send what `records` add up to, as of the times fixed with the batch."""
        groups: dict[tuple[object, ...], list[Record]] = {}
        for record in records:  # not by process: pids would make as many time series
            groups.setdefault((record.service, record.revision, record.environment, record.host), []).append(record)
        resources = [
            Resource(
                {**self._resource_of(group[0]), "process.pid": None},
                (),
                self._measure(group),
                batch.since_ns,
                batch.at_ns,
            )
            for group in groups.values()
        ]
        resources = [resource for resource in resources if resource.metrics]
        if not resources:
            return Answer(Verdict.ACCEPTED, "nothing to send", posts=0)
        return post(self._endpoint, "metrics", self._content_type, resources, batch.token)

    def test(self) -> Answer:
        """Send a count of nothing, or nothing at all where the receiver would show even that."""
        now = time.time_ns()
        found = [Resource({"service.name": "autoinst doctor"}, (), self._test, now - 1, now)] if self._test else []
        return post(self._endpoint, "metrics", self._content_type, found, os.urandom(16).hex())

    def close(self) -> None:
        """Close connections."""
        self._endpoint.close()


def resources_of(records: Sequence[Record]) -> list[Resource]:
    """Return the spans of records, by process."""
    return [
        Resource(spans.resource_of(group[0]), tuple(span for record in group for span in spans.of_record(record)))
        for group in spans.by_resource(records).values()
    ]


def post(endpoint: Endpoint, signal: str, content_type: str, resources: Sequence[Resource], token: str) -> Answer:
    """Post signals under an idempotency token; return what became of them."""
    body = ENCODERS[signal, content_type](resources)
    response, size = endpoint.post(body, content_type, {TOKEN_HEADER: token})
    if isinstance(response, Answer):
        return response
    return read(response)._replace(size=size)


def read(response: Response) -> Answer:
    """Return what a receiver's response means."""
    kind = response.content_type
    if not OK <= response.status < MULTIPLE_CHOICES:
        told = ""
        if kind == PROTOBUF and response.status >= BAD_REQUEST:
            with contextlib.suppress(ValueError):
                told = protobuf.status_message(response.body)
        return judge(response, told)
    if response.body and kind not in (PROTOBUF, JSON, "application/protobuf"):
        text = f"answered {response.status} with {kind or 'a body of no type'}: that is no OTLP receiver"
        return Answer(Verdict.WRONG, text)
    try:
        success = otlp_json.partial_success if kind == JSON else protobuf.partial_success
        rejected, message = success(response.body)
    except ValueError:
        return Answer(Verdict.WRONG, f"answered {response.status} with what is no OTLP: that is no OTLP receiver")
    return Answer(Verdict.ACCEPTED, message or f"answered {response.status}", rejected=rejected)
