"""Which exporters are on, and how they are set: variables go before `exporters:` of the rules file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.errors import StoreError
from autoinst.export.choice import chosen_names
from autoinst.export.endpoint import ExporterError
from autoinst.export.feed import Feed, Service
from autoinst.export.variables import Asked
from autoinst.store.clickhouse import address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from autoinst.store.clickhouse.address import Address


def _otlp(asked: Asked) -> Sequence[Feed]:
    from autoinst.export.otlp_settings import make

    return make(asked)


def _appsignal(asked: Asked) -> Sequence[Feed]:
    from autoinst.export.appsignal_settings import make

    return make(asked)


def _prometheus(asked: Asked) -> Sequence[Service]:
    from autoinst.export.prometheus_settings import make

    return make(asked)


def _webhook(asked: Asked) -> Sequence[Feed]:
    from autoinst.export.webhook_settings import make

    return make(asked)


MAKERS: dict[str, Callable[[Asked], Sequence[Feed | Service]]] = {
    "otlp": _otlp,
    "appsignal": _appsignal,
    "prometheus": _prometheus,
    "webhook": _webhook,
}


class Chosen:
    """The exporters that are on: their feeds and services, and in `problems` what is wrong with their settings."""

    def __init__(self) -> None:
        self.feeds: list[Feed] = []
        self.services: list[Service] = []
        self.store: Address | None = None  # past this machine, to which all goes
        self.problems: list[str] = []

    def close(self) -> None:
        """Close all connections."""
        for feed in self.feeds:
            feed.close()


def choose(environ: Mapping[str, str], settings: Mapping[str, Any], home: str = "") -> Chosen:
    """Return the exporters that are on in `home`; of one whose settings are wrong the jobs wait in the store."""
    out = Chosen()
    names, out.problems = chosen_names(environ, settings)
    try:
        out.store = address.chosen(environ)
    except StoreError as error:
        out.problems.append(f"{error}; jobs wait in this machine's store")
    for name, told in names.items():
        try:
            made = MAKERS[name](Asked(environ, told, settings, home))
            out.feeds += [each for each in made if isinstance(each, Feed)]
            out.services += [each for each in made if isinstance(each, Service)]
        except ExporterError as error:
            out.problems.append(f"exporter {name}: {error}; it is off, and its jobs wait in the store")
    return out
