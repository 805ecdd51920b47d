"""Plots as SVG: bars, intervals, columns and a curve. Every text is escaped; nothing is loaded."""

import html
import math
from collections.abc import Collection, Mapping, Sequence

WIDTH, LEFT, LANE, HEIGHT = 720, 130, 30, 200


def bars(title: str, values: Mapping[str, float], form: str) -> str:
    most = max(values.values())
    shapes = []
    for n, (name, value) in enumerate(values.items()):
        y, length = n * LANE, (WIDTH - LEFT - 90) * value / most
        shapes.append(_text(LEFT - 10, y + 19, name, "end"))
        shapes.append(
            f"<rect class='bar' x='{LEFT}' y='{y + 5}' width='{length:.1f}' height='18' rx='3'/>"
        )
        shapes.append(_text(LEFT + length + 8, y + 19, form.format(value)))
    return _figure(title, len(values) * LANE, shapes)


def intervals(title: str, values: Mapping[str, tuple[float, float, float]]) -> str:
    """(value, low, high) of ratios; 1 is the original, and the line to compare with."""
    finite = [each for v in values.values() for each in v if math.isfinite(each)]
    low, high = min([*finite, 1.0]), max([*finite, 1.0])
    span = (high - low) or 0.01
    low, high = low - 0.05 * span, high + 0.05 * span

    def x(value: float) -> float:
        value = min(max(value, low), high)
        return LEFT + (WIDTH - LEFT - 90) * (value - low) / (high - low)

    bottom = len(values) * LANE
    shapes = [f"<line class='zero' x1='{x(1):.1f}' x2='{x(1):.1f}' y1='0' y2='{bottom}'/>"]
    for n, (name, (value, a, b)) in enumerate(values.items()):
        y = n * LANE + 14
        shapes.append(_text(LEFT - 10, y + 5, name, "end"))
        shapes.append(f"<line class='whisker' x1='{x(a):.1f}' x2='{x(b):.1f}' y1='{y}' y2='{y}'/>")
        shapes.append(f"<circle class='bar' cx='{x(value):.1f}' cy='{y}' r='5'/>")
        shapes.append(_text(x(b) + 10, y + 5, f"{value:.3f}"))
    return _figure(title, bottom, shapes)


def columns(title: str, values: Mapping[int, float], marked: Collection[int]) -> str:
    most, wide = max(values.values()) or 1.0, (WIDTH - 20) / len(values)
    shapes = []
    for n, value in values.items():
        height = HEIGHT * value / most
        kind = "bar gone" if n in marked else "bar"
        shapes.append(
            f"<rect class='{kind}' x='{10 + n * wide:.1f}' y='{HEIGHT - height:.1f}' "
            f"width='{wide * 0.8:.1f}' height='{height:.1f}'/>"
        )
        shapes.append(_text(10 + (n + 0.4) * wide, HEIGHT + 16, str(n), "middle", "tick"))
    return _figure(title, HEIGHT + 20, shapes)


def curve(title: str, points: Sequence[tuple[int, float]]) -> str:
    """A line from its first step to its last, smoothed over a twentieth of them."""
    wide = max(1, len(points) // 20)
    smooth = [
        (step, sum(v for _, v in points[max(0, n - wide + 1) : n + 1]) / min(n + 1, wide))
        for n, (step, _) in enumerate(points)
    ]
    most, last = max(v for _, v in smooth) or 1.0, max(points[-1][0], 1)
    at = " ".join(
        f"{60 + (WIDTH - 80) * s / last:.1f},{HEIGHT - HEIGHT * v / most:.1f}" for s, v in smooth
    )
    shapes = [
        f"<polyline class='curve' points='{at}'/>",
        f"<line class='zero' x1='60' x2='{WIDTH - 20}' y1='{HEIGHT}' y2='{HEIGHT}'/>",
        _text(52, 10, f"{most:.2f}", "end", "tick"),
        _text(52, HEIGHT, "0", "end", "tick"),
        _text(WIDTH - 20, HEIGHT + 16, f"step {last}", "end", "tick"),
    ]
    return _figure(title, HEIGHT + 20, shapes)


def _figure(title: str, height: float, shapes: Sequence[str]) -> str:
    words = html.escape(title)
    return (
        f"<figure><figcaption>{words}</figcaption><svg role='img' aria-label='{words}' "
        f"viewBox='0 0 {WIDTH} {height + 6:.0f}'>{''.join(shapes)}</svg></figure>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "label") -> str:
    return (
        f"<text class='{kind}' x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>"
        f"{html.escape(text)}</text>"
    )
