"""Draw plots as SVG. A plotting library would be many times larger than Slipway, and its pictures
do not adapt to dark mode or print.

Colours are CSS classes (`s0` to `s7`); columns also differ in the shape of their dots, for people
who cannot see colours.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from slipway.evals.markup import Markup, tag
from slipway.evals.statistics import Measured
from slipway.types import Record

WIDTH, LEFT, RIGHT = 720, 48, 24
LANE = 16  # height of one dot
PAD = 8  # above and below a row
LABEL = 28  # height of a row's label, which is larger on a phone
HEIGHT = 220  # of curves
SERIES = 8  # number of colours


class Row(Record, frozen=True, kw_only=True):
    """One metric, with the measured values by the number of their series."""

    label: str
    values: Mapping[int, Measured]


def intervals(
    title: str,
    rows: Sequence[Row],
    label_of: Callable[[float], str],
    *,
    span: tuple[float, float] | None = None,
) -> Markup:
    """Draw a dot with its interval, if it has one, for each series of each row. The axis covers at
    least `span`.
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
    shapes: list[Markup] = [*_grid(axis, bottom, label_of)]
    top = 0
    for row, height in zip(rows, heights, strict=True):
        shapes.append(tag("text", row.label, x=0, y=top + LABEL - 7, class_="label"))
        for lane, (series, m) in enumerate(row.values.items()):
            shapes += _dot(axis, series, m, top + LABEL + LANE * (lane + 0.5))
        top += height
        shapes.append(tag("line", x1=0, x2=WIDTH, y1=top, y2=top, class_="rule"))
    return _picture(title, bottom + 26, shapes)


def curves(
    title: str, series: Mapping[int, Sequence[float]], label_of: Callable[[float], str]
) -> Markup:
    """Draw the share of values up to each value; a line that rises early is a fast column."""
    axis = Axis(0.0, max(max(values) for values in series.values()), LEFT, WIDTH - RIGHT)
    shapes: list[Markup] = [*_grid(axis, HEIGHT, label_of)]
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
    """Map values to x, with round numbers at both ends."""

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
    """Draw the legend: the colour and shape of each column."""

    def item(number: int, name: str) -> Markup:
        shape = tag(
            "svg", _form(number, 8, 8), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true"
        )
        return tag("li", shape, f" {name}")

    return tag("ul", (item(number, name) for number, name in enumerate(columns)), class_="key")


def _grid(axis: Axis, bottom: float, label_of: Callable[[float], str]) -> Iterator[Markup]:
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
            label_of(0.0 if abs(tick) < axis.step / 1e6 else tick),
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
    """Draw a circle, a square, a diamond or a triangle."""
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
    """Return the next of 1, 2, 5, 10, … that is not below `least`."""
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


class Spot(Record, frozen=True, kw_only=True):
    """A labelled point with the interval of its y; a line joins the `strong` ones."""

    label: str
    x: float
    y: Measured
    series: int = 0
    strong: bool = True


def scatter(
    title: str,
    spots: Sequence[Spot],
    x_label: Callable[[float], str],
    y_label: Callable[[float], str],
) -> Markup:
    """Draw points with their names; a line joins the strong ones from left to right."""
    across = Axis(0.0, max(spot.x for spot in spots), LEFT + 24, WIDTH - 130)
    ends = [e for s in spots for e in (s.y.value, s.y.low, s.y.high) if not math.isnan(e)]
    up = Axis(min(ends), max(ends), HEIGHT, 0)
    shapes: list[Markup] = [*_grid(across, HEIGHT, x_label)]
    for tick in up.ticks:
        y = up.x(tick)
        shapes.append(tag("line", x1=across.left, x2=WIDTH, y1=y, y2=y, class_="rule"))
        label = y_label(0.0 if abs(tick) < up.step / 1e6 else tick)
        shapes.append(
            tag("text", label, x=across.left - 8, y=y + 4, text_anchor="end", class_="tick")
        )
    front = sorted((spot.x, spot.y.value) for spot in spots if spot.strong)
    if len(front) > 1:
        corners = " ".join(f"{across.x(x):.1f},{up.x(y):.1f}" for x, y in front)
        shapes.append(tag("polyline", points=corners, class_="curve s7"))
    taken: list[tuple[float, float]] = []
    for spot in spots:
        x, y = across.x(spot.x), up.x(spot.y.value)
        if not math.isnan(spot.y.low):
            whisker = f"whisker {_class(spot.series)}"
            low, high = up.x(spot.y.low), up.x(spot.y.high)
            shapes.append(tag("line", x1=x, x2=x, y1=low, y2=high, class_=whisker))
        shapes.append(_form(spot.series, x, y))
        shapes.append(tag("text", spot.label, x=x + 10, y=_free(taken, x, y + 4), class_="label"))
    return _picture(title, HEIGHT + 26, shapes)


def _free(taken: list[tuple[float, float]], x: float, y: float) -> float:
    """Return the y of a label: further down if another label is near."""
    while any(abs(x - other_x) < 110 and abs(y - other_y) < 14 for other_x, other_y in taken):
        y += 2
    taken.append((x, y))
    return y


def lines(
    title: str,
    series: Mapping[int, Sequence[tuple[float, float]]],
    x_label: Callable[[float], str],
    y_label: Callable[[float], str],
    *,
    at: float | None = None,
) -> Markup:
    """Draw lines through points; `at` is marked by an upright line."""
    points = [point for each in series.values() for point in each]
    across = Axis(0.0, max(x for x, _ in points), LEFT + 24, WIDTH - RIGHT)
    up = Axis(0.0, max(y for _, y in points), HEIGHT, 0)
    shapes: list[Markup] = [*_grid(across, HEIGHT, x_label)]
    for tick in up.ticks:
        y = up.x(tick)
        shapes.append(tag("line", x1=across.left, x2=across.right, y1=y, y2=y, class_="rule"))
        shapes.append(
            tag("text", y_label(tick), x=across.left - 8, y=y + 4, text_anchor="end", class_="tick")
        )
    for number, each in series.items():
        corners = " ".join(f"{across.x(x):.1f},{up.x(y):.1f}" for x, y in each)
        shapes.append(tag("polyline", points=corners, class_=f"curve {_class(number)}"))
    if at is not None:
        x = across.x(at)
        shapes.append(tag("line", x1=x, x2=x, y1=0, y2=HEIGHT, class_="zero"))
    return _picture(title, HEIGHT + 26, shapes)
