"""`/metrics` of the page: what the exporter for Prometheus serves, for who has the page up anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from autoinst.errors import AutoinstError
from autoinst.export.exposition import OPENMETRICS, TEXT, render, wants_openmetrics
from autoinst.export.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from autoinst.web.source import Source


class Metrics:
    """The one route."""

    def __init__(self, source: Source, rules: Mapping[str, Any]) -> None:
        """Serve the metrics of `source`, those of the check-ins `rules` among them."""
        self._source = source
        self._maker = Prometheus(rules)

    async def answer(self, request: Request) -> Response:
        """Return the metrics in the format that is asked for."""
        return await run_in_threadpool(self._answer, wants_openmetrics(request.headers.get("accept", "")))

    def _answer(self, openmetrics: bool) -> Response:
        self._source.touch()
        try:
            with self._source.own() as store:
                data = render(self._maker.families(store), openmetrics=openmetrics)
        except AutoinstError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return Response(data, headers={"Content-Type": OPENMETRICS if openmetrics else TEXT})
