"""Metrics as text: Prometheus' exposition format 0.0.4, and OpenMetrics 1.0 with its exemplars."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
NS = 10**9
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
Labels = tuple[tuple[str, str], ...]


class Exemplar(NamedTuple):
    """One that was counted: its labels, its value, and when it was (ns since the epoch)."""

    labels: Labels
    value: float
    at_ns: int


class Sample(NamedTuple):
    """A number under some labels; `suffix` is what its name ends in, beyond the family's."""

    suffix: str
    labels: Labels
    value: float
    exemplar: Exemplar | None = None


class Family(NamedTuple):
    """Samples that belong together; a counter's `name` is without `_total`."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def histogram(
    labels: Labels, bounds: Iterable[tuple[float, int]], count: int, total: float, exemplar: Exemplar | None = None
) -> Iterator[Sample]:
    """Yield a histogram's samples; `bounds` are upper bounds, each with how many are at or below it."""
    told = exemplar
    for bound, below in bounds:
        fits = told is not None and told.value <= bound
        yield Sample("_bucket", (*labels, ("le", repr(bound))), below, told if fits else None)
        told = None if fits else told
    yield Sample("_bucket", (*labels, ("le", "+Inf")), count, told)
    yield Sample("_count", labels, count)
    yield Sample("_sum", labels, total)


def render(families: Iterable[Family], *, openmetrics: bool) -> bytes:
    """Return the families as text, which ends with a newline."""
    lines = []
    for family in families:
        name = family.name if openmetrics or family.kind != COUNTER else f"{family.name}_total"
        lines += [f"# HELP {name} {_escaped(family.help, quotes=False)}", f"# TYPE {name} {family.kind}"]
        for sample in family.samples:
            suffix = "_total" if family.kind == COUNTER else sample.suffix
            line = f"{family.name}{suffix}{_labels(sample.labels)} {_number(sample.value)}"
            if openmetrics and sample.exemplar is not None:
                told = sample.exemplar
                line += f" # {_labels(told.labels)} {_number(told.value)} {told.at_ns / NS:.3f}"
            lines.append(line)
    if openmetrics:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def wants_openmetrics(accept: str) -> bool:
    """Return whether an Accept header asks for OpenMetrics first, as Prometheus' does."""
    return "application/openmetrics-text" in accept


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
