"""autoinst: `autoinst run` starts the worker and an agent, rules name the jobs, the agent stores them."""

from __future__ import annotations

from benchmarks.peers.product import Product

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from benchmarks.peers.sink import Ports, Posted, Seen

RULES = """version: 1
jobs:
  - {module: jobs, functions: [noop, events, raising, hanging, generator]}
  - {class: jobs.Worker, methods: [perform, caller, deep]}
events:
  - {function: jobs.step, name: step.bench}
"""


class Autoinst(Product):
    """As a user has it without a word of configuration, but for the rules that name the jobs."""

    name = "autoinst"
    title = package = "autoinst"
    records = warm = True  # rules are compiled once

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Name a home and rules."""
        rules = folder / "rules.yaml"
        rules.write_text(RULES)
        return {"AUTOINST_HOME": str(folder / "home"), "AUTOINST_RULES": str(rules)}

    def command(self, words: list[str], programs: Path) -> list[str]:
        """Run under its command."""
        return [str(programs / "autoinst"), "run", *words]

    def seen(self, posted: Iterable[Posted], folder: Path) -> Seen:  # noqa: ARG002
        """Drain what is left in the spool and count what is stored."""
        from autoinst.agent.drain import drain_once
        from autoinst.store.query import JobFilter
        from autoinst.store.sqlite import Store
        from benchmarks.peers.sink import Seen

        home = folder / "home"
        drain_once(str(home))
        with Store(str(home / "store.sqlite3")) as store:
            killed = sum(1 for _ in store.jobs(JobFilter(limit=0, status=frozenset({"killed"}))))
            counted = sum(cell.counted for cell in store.totals(0, 2**62).values())
            return Seen(store.count() - killed, counted, killed)


PRODUCT = Autoinst()
