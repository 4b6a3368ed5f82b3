"""Charts as numbers for SVG: the templates draw them, without any style attribute (the page's policy forbids those)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoinst.wording import duration, exact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autoinst.store.rollups import Cell
    from autoinst.store.totals import Deploy, Step
    from autoinst.web.window import Window

WIDTH, HEIGHT = 720, 120
SPARK_WIDTH, SPARK_HEIGHT = 96, 20
GAP = 0.18  # of a bar's width
LEAST_STROKE = 3
MOST_STEPS = 3  # lines above 0
TINY = 1e-9  # jobs a minute: one in two thousand years
ROUNDING = 1e-9
MAX_NAMED, MAX_NAME = 6, 14  # names of revisions in a chart, and their characters


@dataclass(frozen=True)
class Bar:
    """One step: `parts` are (class, y, height), `title` what is said of it."""

    x: float
    width: float
    parts: list[tuple[str, float, float]]
    title: str

    @property
    def slot(self) -> float:
        """The width up to the next bar, in which the pointer finds this one."""
        return round(self.width / (1 - GAP), 2)


@dataclass(frozen=True)
class Line:
    """A line as an SVG path."""

    name: str
    path: str


@dataclass(frozen=True)
class Chart:
    """What a chart draws; `ticks` are what stands at its lines, from the upper edge down, evenly spaced.

    `marks` are (x, text, class) of lines across, `span` its begin and end in ms since the epoch if it is about a time.
    """

    label: str
    ticks: list[str]
    labels: list[str]
    bars: list[Bar] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    slots: list[Bar] = field(default_factory=list)
    markers: list[tuple[float, Deploy]] = field(default_factory=list)
    marks: list[tuple[float, str, str]] = field(default_factory=list)
    span: tuple[int, int] | None = None
    empty: bool = False
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def named(self) -> list[tuple[float, str, str]]:
        """What stands beside lines across: (x in % of the width, text, where the text begins)."""
        names = [(x, deploy.revision) for x, deploy in self.markers[:MAX_NAMED]]
        names = [(x, name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…") for x, name in names]
        names += [(x, text) for x, text, _ in self.marks]
        return [(round(x / WIDTH * 100, 2), text, _anchor(x)) for x, text in names]

    @property
    def grid(self) -> str:
        """The lines as an SVG path."""
        gaps = max(len(self.ticks) - 1, 1)
        return "".join(f"M0 {max(index * HEIGHT / gaps, 0.5):.1f}H{WIDTH}" for index in range(gaps))


def _anchor(x: float) -> str:
    return "end" if x > WIDTH * 0.85 else "start"


def throughput(window: Window, cells: dict[int, Cell], deploys: Sequence[Deploy]) -> Chart:
    """Draw jobs a minute, those that failed or were killed in their own colour."""
    minutes = window.step_ns / 60e9  # a step has
    numbers = {at: (cell.jobs, cell.errors + cell.killed) for at, cell in cells.items()}
    most = max((jobs for jobs, _ in numbers.values()), default=0)
    scale = Steps(most / minutes)
    bars = []
    for x, width, at in _slots(window):
        jobs, failed = numbers.get(at, (0, 0))
        if jobs:
            tall, red = scale.height(jobs / minutes), scale.height(failed / minutes)
            parts = [
                ("ok", round(HEIGHT - tall, 1), round(tall - red, 1)),
                ("bad", round(HEIGHT - red, 1), round(red, 1)),
            ]
            bars.append(
                Bar(x, width, [part for part in parts if part[2]], f"{exact(at)}: {jobs} jobs, {failed} failed")
            )
    label = f"Jobs a minute: at most {most / minutes:.3g}"
    return Chart(
        label,
        scale.ticks("/min"),
        window.labels(),
        bars,
        markers=_markers(window, deploys),
        span=_span(window),
        empty=not bars,
    )


def durations(window: Window, cells: dict[int, Cell], deploys: Sequence[Deploy]) -> Chart:
    """Draw the median and the 95th percentile of the durations."""
    return _percentiles(window, cells, deploys, "Duration", lambda cell, share: cell.percentile_ns(share))


def queue_times(window: Window, cells: dict[int, Cell], deploys: Sequence[Deploy]) -> Chart:
    """Draw the median and the 95th percentile of the times in the queue."""
    return _percentiles(
        window, cells, deploys, "Wait in the queue", lambda cell, share: cell.queue_percentile_ns(share)
    )


def _percentiles(
    window: Window,
    cells: dict[int, Cell],
    deploys: Sequence[Deploy],
    what: str,
    percentile: Callable[[Cell, float], float | None],
) -> Chart:
    values: dict[int, tuple[float, float]] = {}
    for at, cell in cells.items():
        low, high = percentile(cell, 0.5), percentile(cell, 0.95)
        if low is not None and high is not None:
            values[at] = max(low, 1.0), max(high, 1.0)
    if not values:
        return Chart(f"{what}: nothing known", [], [], empty=True)
    most = max(high for _, high in values.values())
    scale = Decades(min(low for low, _ in values.values()), most)
    lines, slots = [], []
    for index, name in enumerate(("p50", "p95")):
        points: list[tuple[float, float] | None] = []
        for x, width, at in _slots(window):
            pair = values.get(at)
            points.append(None if pair is None else (x + width / 2, scale.y(pair[index])))
        lines.append(Line(name, _path(points, WIDTH / max(len(points), 1))))
    for x, width, at in _slots(window):
        if at in values:
            low, high = values[at]
            slots.append(Bar(x, width, [], f"{exact(at)}: median {_ms(low)}, 95 % within {_ms(high)}"))
    label = f"{what}: 95 % within at most {_ms(most)}"
    markers = _markers(window, deploys)
    return Chart(label, scale.ticks(), window.labels(), [], lines, slots, markers, span=_span(window))


class Steps:
    """A scale from 0 upwards whose lines are 1, 2 or 5 times a power of ten apart, two or three of them above 0."""

    def __init__(self, most: float, least: float = 0.0) -> None:
        """Reach `most` or just above it, with lines at least `least` apart."""
        wanted = max(most / MOST_STEPS, least, TINY)
        power = 10.0 ** math.floor(math.log10(wanted))
        self.step = next(each * power for each in (1, 2, 5, 10) if each * power >= wanted * (1 - ROUNDING))
        self.number = max(math.ceil(most / self.step * (1 - ROUNDING)), 1)

    def height(self, value: float) -> float:
        """Return how tall a bar of `value` is."""
        return value / (self.step * self.number) * HEIGHT

    def ticks(self, unit: str = "") -> list[str]:
        """Return what stands at the lines, the greatest first, which bears the unit."""
        digits = max(-math.floor(math.log10(self.step) + ROUNDING), 1)
        numbers = [f"{self.step * index:,.{digits}f}".rstrip("0").rstrip(".") for index in range(self.number, -1, -1)]
        return [numbers[0] + unit, *numbers[1:]]


class Decades:
    """A scale from a power of ten to another, so that a median is seen beside what takes a hundred times as long."""

    def __init__(self, least: float, most: float) -> None:
        """Reach from below `least` to above `most`, both in ns and above 0."""
        self.low = math.floor(math.log10(least))
        self.high = max(math.ceil(math.log10(most)), self.low + 1)

    def y(self, value: float) -> float:
        """Return where `value` is drawn."""
        return HEIGHT * (1 - (math.log10(value) - self.low) / (self.high - self.low))

    def ticks(self) -> list[str]:
        """Return the powers of ten, the greatest first."""
        return [_round(10.0**power) for power in range(self.high, self.low - 1, -1)]


def counts(window: Window, numbers: dict[int, int], label: str) -> Chart:
    """Draw how often something happened."""
    scale = Steps(max(numbers.values(), default=0), 1)
    bars = []
    for x, width, at in _slots(window):
        count = numbers.get(at, 0)
        if count:
            tall = round(scale.height(count), 1)
            bars.append(Bar(x, width, [("bad", round(HEIGHT - tall, 1), tall)], f"{exact(at)}: {count}"))
    return Chart(label, scale.ticks(), window.labels(), bars, span=_span(window), empty=not bars)


def histogram(cell: Cell, middle: Callable[[int], float]) -> Chart:
    """Draw how many jobs took how long, from the shortest to the longest, with the median and the 95th percentile."""
    buckets = cell.durations
    if not buckets:
        return Chart("No durations", [], [], empty=True)
    low, high = min(buckets), max(buckets)
    size = max(1, -(-(high - low + 1) // 48))
    grouped: dict[int, int] = {}
    for number, count in buckets.items():
        grouped[(number - low) // size] = grouped.get((number - low) // size, 0) + count
    scale = Steps(max(grouped.values()), 1)
    number_of = (high - low) // size + 1
    width = WIDTH / number_of
    bars = []
    for index in sorted(grouped):
        tall = round(max(scale.height(grouped[index]), 1.5), 1)
        about = _ms(middle(low + index * size + size // 2))
        x, across = round(index * width, 2), round(width * (1 - GAP), 2)
        bars.append(Bar(x, across, [("plain", round(HEIGHT - tall, 1), tall)], f"about {about}: {grouped[index]:,}"))
    labels = [_ms(middle(low)), _ms(middle((low + high) // 2)), _ms(middle(high))]
    marks = []
    for name, share in (("median", 0.5), ("95 %", 0.95)):
        value = cell.percentile_ns(share)
        number = next((number for number in range(low, high + 1) if value is not None and middle(number) >= value), low)
        marks.append((round(((number - low) // size + 0.5) * width, 1), f"{name} {_ms(value)}", "share"))
    return Chart(f"Durations from {labels[0]} to {labels[2]}", scale.ticks(), labels, bars, marks=marks)


def spark(window: Window, steps: Sequence[Step]) -> dict[str, Any]:
    """Return the bars of a small chart of jobs over time: two paths, all jobs and those that failed."""
    most = max((step.jobs for step in steps), default=0)
    number = max(len(window.steps()), 1)
    width = SPARK_WIDTH / number
    across = max(width * (1 - GAP), 0.6)
    good, bad = [], []
    for step in steps:
        index = (step.at_ns - window.since_ns) // window.step_ns
        if 0 <= index < number and step.jobs:
            tall = max(step.jobs / most * SPARK_HEIGHT, 1.0)
            red = 0.0 if not step.failed else max(step.failed / most * SPARK_HEIGHT, 1.5)
            good.append(_block(index * width, across, tall))
            if red:
                bad.append(_block(index * width, across, red))
    return {"good": "".join(good), "bad": "".join(bad), "label": f"at most {most:,} a step" if most else "no jobs"}


def coarse(window: Window) -> Window:
    """Return `window` in at most 48 steps, for small charts."""
    from autoinst.web.window import Window as Made

    factor = -(-len(window.steps()) // 48)
    step = window.step_ns * factor
    until = -(-window.until_ns // step) * step
    return Made(window.name, window.since_ns // step * step, until, step)


def _block(x: float, width: float, tall: float) -> str:
    return f"M{x:.1f} {SPARK_HEIGHT}v-{tall:.1f}h{width:.1f}v{tall:.1f}z"


def _slots(window: Window) -> list[tuple[float, float, int]]:
    steps = window.steps()
    width = WIDTH / max(len(steps), 1)
    return [(round(index * width, 2), round(width * (1 - GAP), 2), at) for index, at in enumerate(steps)]


def _path(points: list[tuple[float, float] | None], step: float) -> str:
    """Return a path that is broken where there is no point; a lonely point is a stroke as wide as a step."""
    out: list[str] = []
    drawing = False
    for index, point in enumerate(points):
        if point is None:
            drawing = False
            continue
        x, y = point
        if not drawing and (index + 1 == len(points) or points[index + 1] is None):
            out.append(f"M{x - step / 2:.1f} {y:.1f}h{max(step, LEAST_STROKE):.1f}")
        else:
            out.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        drawing = True
    return "".join(out)


def _markers(window: Window, deploys: Sequence[Deploy]) -> list[tuple[float, Deploy]]:
    return [
        (round((deploy.first_ns - window.since_ns) / window.span_ns * WIDTH, 1), deploy)
        for deploy in deploys
        if window.since_ns <= deploy.first_ns < window.until_ns
    ]


def _span(window: Window) -> tuple[int, int]:
    return window.since_ns // 10**6, window.until_ns // 10**6


def _round(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:,.0f} {unit}"
    return f"{ns:.0f} ns"


def _ms(ns: float | None) -> str:
    return duration(None if ns is None else ns / 1e6) or "unknown"
