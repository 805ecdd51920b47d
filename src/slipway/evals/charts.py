"""Plots as SVG, drawn here: a plotting library weighs many times what Slipway does, and its
pictures know neither dark pages nor paper.

Colours are classes (`s0` to `s7`), which the page's style gives; columns also differ in the form of
their dots, for who sees no colours.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from slipway.evals.markup import Markup, tag
from slipway.evals.statistics import Measured
from slipway.types import Record

WIDTH, LEFT, RIGHT = 720, 48, 24
LANE, PAD, LABEL = (
    16,
    8,
    28,
)  # of one dot; above and below a row; of its label, which stands above it and is larger on a phone
HEIGHT = 220  # of curves
SERIES = 8  # colours


class Row(Record, frozen=True, kw_only=True):
    """One metric; `values` of the series by their numbers, those that were measured."""

    label: str
    values: Mapping[int, Measured]


def intervals(
    title: str,
    rows: Sequence[Row],
    told: Callable[[float], str],
    *,
    span: tuple[float, float] | None = None,
) -> Markup:
    """A dot with its interval, where it has one, for each series of each row. `span` is the least
    that the axis covers.
    """
    ends = [
        end
        for row in rows
        for m in row.values.values()
        for end in (m.value, m.low, m.high)
        if not math.isnan(end)
    ] + list(span or ())
    axis = Axis(min(ends), max(ends), LEFT, WIDTH - RIGHT)
    heights = [LABEL + LANE * len(row.values) + PAD for row in rows]
    bottom = sum(heights)
    shapes: list[Markup] = [*_grid(axis, bottom, told)]
    top = 0
    for row, height in zip(rows, heights, strict=True):
        shapes.append(tag("text", row.label, x=0, y=top + LABEL - 7, class_="label"))
        for lane, (series, m) in enumerate(row.values.items()):
            shapes += _dot(axis, series, m, top + LABEL + LANE * (lane + 0.5))
        top += height
        shapes.append(tag("line", x1=0, x2=WIDTH, y1=top, y2=top, class_="rule"))
    return _picture(title, bottom + 26, shapes)


def curves(
    title: str, series: Mapping[int, Sequence[float]], told: Callable[[float], str]
) -> Markup:
    """Which share of the values is at most so large: a line that rises early is a fast column."""
    axis = Axis(0.0, max(max(values) for values in series.values()), LEFT, WIDTH - RIGHT)
    shapes: list[Markup] = [*_grid(axis, HEIGHT, told)]
    for share in (0.0, 0.5, 0.95):
        y = HEIGHT * (1 - share)
        shapes.append(
            tag("text", f"{share:.0%}", x=LEFT - 8, y=y + 4, text_anchor="end", class_="tick")
        )
        shapes.append(tag("line", x1=axis.left, x2=axis.right, y1=y, y2=y, class_="rule"))
    for number, values in series.items():
        ordered = sorted(values)
        corners = [(axis.left, float(HEIGHT))]
        for n, value in enumerate(ordered, 1):
            corners += [
                (axis.x(value), corners[-1][1]),
                (axis.x(value), HEIGHT * (1 - n / len(ordered))),
            ]
        corners.append((axis.right, corners[-1][1]))
        shapes.append(
            tag(
                "polyline",
                points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners),
                class_=f"curve {_class(number)}",
            )
        )
    return _picture(title, HEIGHT + 26, shapes)


class Axis:
    """From values to x, with round numbers at its ends."""

    def __init__(self, low: float, high: float, left: float, right: float) -> None:
        self.step = _step((high - low) / 5 or abs(high) / 5 or 1.0)
        self.low = math.floor(low / self.step + 1e-9) * self.step
        self.high = max(math.ceil(high / self.step - 1e-9) * self.step, self.low + self.step)
        self.left, self.right = left, right

    def x(self, value: float) -> float:
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)

    @property
    def ticks(self) -> list[float]:
        return [
            self.low + n * self.step for n in range(round((self.high - self.low) / self.step) + 1)
        ]


def key(columns: Sequence[str]) -> Markup:
    """Which colour and form is which column."""

    def item(number: int, name: str) -> Markup:
        shape = tag(
            "svg", _form(number, 8, 8), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true"
        )
        return tag("li", shape, f" {name}")

    return tag("ul", (item(number, name) for number, name in enumerate(columns)), class_="key")


def _grid(axis: Axis, bottom: float, told: Callable[[float], str]) -> Iterator[Markup]:
    for tick in axis.ticks:
        x = axis.x(tick)
        yield tag(
            "line",
            x1=x,
            x2=x,
            y1=0,
            y2=bottom,
            class_="zero" if abs(tick) < axis.step / 1e6 else "rule",
        )
        yield tag(
            "text",
            told(0.0 if abs(tick) < axis.step / 1e6 else tick),
            x=x,
            y=bottom + 18,
            text_anchor="middle",
            class_="tick",
        )


def _dot(axis: Axis, series: int, m: Measured, y: float) -> Iterator[Markup]:
    if not math.isnan(m.low):
        yield tag(
            "line",
            x1=axis.x(m.low),
            x2=axis.x(m.high),
            y1=y,
            y2=y,
            class_=f"whisker {_class(series)}",
        )
    yield _form(series, axis.x(m.value), y)


def _form(series: int, x: float, y: float) -> Markup:
    """A circle, a square, a diamond or a triangle."""
    name = f"dot {_class(series)}"
    if series % 4 == 0:
        return tag("circle", cx=x, cy=y, r=5, class_=name)
    if series % 4 == 1:
        return tag("rect", x=x - 4.5, y=y - 4.5, width=9, height=9, class_=name)
    corners = (
        [(0, -6), (6, 0), (0, 6), (-6, 0)] if series % 4 == 2 else [(0, -5.5), (6, 5), (-6, 5)]
    )
    return tag(
        "path",
        d="M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in corners) + "Z",
        class_=name,
    )


def _class(series: int) -> str:
    return f"s{series % SERIES}"


def _step(least: float) -> float:
    """The next of 1, 2, 5, 10, …"""
    power = 10.0 ** math.floor(math.log10(least))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= least * (1 - 1e-9))


def _picture(title: str, height: float, shapes: Sequence[Markup]) -> Markup:
    return tag(
        "svg",
        tag("title", title),
        *shapes,
        viewBox=f"0 -6 {WIDTH} {height + 6:g}",
        role="img",
        aria_label=title,
    )
