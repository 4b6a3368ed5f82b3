"""New Relic's agent under newrelic-admin; it speaks TLS to the sink, whose certificate it is given."""

from __future__ import annotations

from benchmarks.peers.product import EVENT, JOB, Product

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from benchmarks.peers.sink import Ports, Posted, Seen

METRIC = f"OtherTransaction/Bench/{JOB}"
CONNECTED = {
    "agent_run_id": "1",
    "account_id": "1",
    "trusted_account_key": "1",
    "primary_application_id": "1",
    "entity_guid": "bench",
    "apdex_t": 0.5,
    "collect_errors": True,
    "collect_traces": True,
    "collect_span_events": True,
    "data_report_period": 60,
    "messages": [],
    "url_rules": [],
    "product_level": 50,
}


class NewRelic(Product):
    """It aggregates in the process: events beyond the size of its reservoir are only counted."""

    name = "newrelic"
    title = "New Relic"
    package = "newrelic"
    environment = "peer-newrelic"
    records = True

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Name the sink, and have the program wait until it is registered, as its documentation says."""
        return {
            "NEW_RELIC_LICENSE_KEY": "0" * 40,
            "NEW_RELIC_APP_NAME": "bench",
            "NEW_RELIC_HOST": "127.0.0.1",
            "NEW_RELIC_PORT": str(ports.https),
            "NEW_RELIC_CA_BUNDLE_PATH": ports.certificate,
            "NEW_RELIC_STARTUP_TIMEOUT": "10",
            "NEW_RELIC_LOG": "stderr",
            "NEW_RELIC_LOG_LEVEL": "critical",
        }

    def command(self, words: list[str], programs: Path) -> list[str]:
        """Run under its command."""
        return [str(programs / "newrelic-admin"), "run-program", *words]

    def answer(self, path: str) -> bytes:
        """Answer the methods of its collector."""
        import json

        value: Any = None
        if "method=preconnect" in path:
            value = {"redirect_host": "127.0.0.1"}
        elif "method=connect" in path:
            value = CONNECTED
        elif "method=get_agent_commands" in path or "method=agent_settings" in path:
            value = []
        return json.dumps({"return_value": value}).encode()

    def seen(self, posted: Iterable[Posted], folder: Path) -> Seen:  # noqa: ARG002
        """Take transactions' events one by one, and the rest from the metric that counts them."""
        import json

        from benchmarks.peers.sink import Seen

        events = total = 0
        for sent in posted:
            if "method=analytic_event_data" in sent.path:
                events += len(json.loads(sent.body)[-1])
            elif "method=metric_data" in sent.path:
                metrics = json.loads(sent.body)[-1]
                total += sum(values[0] for name, values in metrics if name == {"name": METRIC, "scope": ""})
        return Seen(events, max(total - events, 0))

    def job(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a transaction."""
        import newrelic.agent

        task: Callable[..., Any] = newrelic.agent.background_task(name=JOB, group="Bench")(function)
        newrelic.agent.register_application(timeout=10.0)
        return task

    def event(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a trace of the transaction."""
        import newrelic.agent

        traced: Callable[..., Any] = newrelic.agent.function_trace(name=EVENT)(function)
        return traced


PRODUCT = NewRelic()
