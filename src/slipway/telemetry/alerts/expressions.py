"""Expressions over metrics that can be written as PromQL, and evaluated over `History`.

A value is what Prometheus calls an instant vector: a number for each combination of labels. A
comparison keeps the numbers for which it is true.
"""

import math
import operator
from collections.abc import Callable, Mapping
from statistics import median
from typing import Protocol

import msgspec

from slipway.telemetry.definitions import METRICS, Labels
from slipway.telemetry.history import History

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
Where = Mapping[str, tuple[str, ...]]
Vector = dict[Labels, float]


class Expression(Protocol):
    """Something that has a value at a time."""

    def promql(self) -> str: ...

    def value(self, history: History, now: float) -> Vector: ...


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an expression; all its numbers are fields, so that a test can change them."""


class Increase(Node, frozen=True, kw_only=True):
    """How much a counter grew in a window, or how many observations a histogram got.

    With `at_most`, only observations up to that edge of a bucket count.
    """

    metric: str
    window_s: float
    where: Where = {}
    offset_s: float = 0.0
    at_most: float | None = None

    def promql(self) -> str:
        return f"sum({self._rate()})"

    def _rate(self) -> str:
        suffix, more = "_total", tuple[str, ...]()
        if METRICS[self.metric].buckets:
            suffix = "_count" if self.at_most is None else "_bucket"
            more = () if self.at_most is None else (f'le="{float(self.at_most)}"',)
        name = f"{METRICS[self.metric].name}{suffix}{selector(self.where, more)}"
        offset = f" offset {duration(self.offset_s)}" if self.offset_s else ""
        return f"increase({name}[{duration(self.window_s)}]{offset})"

    def value(self, history: History, now: float) -> Vector:
        then = now - self.offset_s
        if self.at_most is None:
            found = history.increase(self.metric, self.window_s, where=self.where, now=then)
        else:
            found = history.below(
                self.metric, self.at_most, self.window_s, where=self.where, now=then
            )
        # a counter that did not grow is 0, one that is not there yet has no value
        is_there = history.is_there(self.metric, self.where, then)
        return found or ({(): 0.0} if is_there else {})


class Percentile(Node, frozen=True, kw_only=True):
    """A quantile of what a histogram observed in a window."""

    metric: str
    q: float
    window_s: float

    def promql(self) -> str:
        name = f"{METRICS[self.metric].name}_bucket"
        window = duration(self.window_s)
        return f"histogram_quantile({number(self.q)}, sum by (le) (increase({name}[{window}])))"

    def value(self, history: History, now: float) -> Vector:
        return history.quantile(self.metric, self.q, self.window_s, now=now)


class UsualHour(Node, frozen=True, kw_only=True):
    """The median of what a counter grew in each of the last whole hours, without the current one."""

    metric: str
    hours: int

    def promql(self) -> str:
        hourly = f"sum(increase({METRICS[self.metric].name}_total[1h]))"
        return f"quantile_over_time(0.5, {hourly}[{self.hours}h:1h] offset 1h)"

    def value(self, history: History, now: float) -> Vector:
        hour = Increase(metric=self.metric, window_s=HOUR)
        found = [
            value
            for number in range(1, self.hours + 1)
            if now - (number + 1) * HOUR >= history.began_at
            for value in hour.value(history, now - number * HOUR).values()
        ]
        return {(): median(found)} if found else {}


class GaugeMaximum(Node, frozen=True, kw_only=True):
    """The values of a gauge: their maximum, or that of each combination of the labels in `by`."""

    metric: str
    where: Where = {}
    by: tuple[str, ...] = ()

    def promql(self) -> str:
        by = f" by ({', '.join(self.by)})" if self.by else ""
        return f"max{by} ({METRICS[self.metric].name}{selector(self.where)})"

    def value(self, history: History, now: float) -> Vector:
        names = METRICS[self.metric].labels
        found: Vector = {}
        for labels, value in history.gauge(self.metric, where=self.where, now=now).items():
            group = tuple(labels[names.index(name)] for name in self.by)
            found[group] = max(value, found.get(group, value))
        return found


class GaugeTotal(Node, frozen=True, kw_only=True):
    """The sum of the values of a gauge."""

    metric: str
    where: Where = {}

    def promql(self) -> str:
        return f"sum({METRICS[self.metric].name}{selector(self.where)})"

    def value(self, history: History, now: float) -> Vector:
        return history.gauge(self.metric, by=(), where=self.where, now=now)


class Number(Node, frozen=True, kw_only=True):
    number: float

    def promql(self) -> str:
        return f"vector({number(self.number)})"

    def value(self, history: History, now: float) -> Vector:
        return {(): self.number}


OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


class Arithmetic(Node, frozen=True, kw_only=True):
    """Two values with an operator between; a division by zero has no value."""

    left: Expression
    operator: str
    right: Expression

    def promql(self) -> str:
        right = self.right.promql()
        if self.operator == "/":
            right = f"({right} != 0)"
        return f"({self.left.promql()} {self.operator} {right})"

    def value(self, history: History, now: float) -> Vector:
        left, right = self.left.value(history, now), self.right.value(history, now)
        apply = OPERATORS[self.operator]
        return {
            labels: apply(value, right[labels])
            for labels, value in left.items()
            if labels in right and (self.operator != "/" or right[labels] != 0)
        }


class Root(Node, frozen=True, kw_only=True):
    """The square root of a value."""

    inner: Expression

    def promql(self) -> str:
        return f"sqrt({self.inner.promql()})"

    def value(self, history: History, now: float) -> Vector:
        return {
            labels: math.sqrt(value)
            for labels, value in self.inner.value(history, now).items()
            if value >= 0
        }


class Otherwise(Node, frozen=True, kw_only=True):
    """A value, or a number if there is none."""

    inner: Expression
    number: float

    def promql(self) -> str:
        return f"({self.inner.promql()} or vector({number(self.number)}))"

    def value(self, history: History, now: float) -> Vector:
        return self.inner.value(history, now) or {(): self.number}


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "==": operator.eq,
}


class Compared(Node, frozen=True, kw_only=True):
    """The values that compare so with a number."""

    left: Expression
    comparison: str
    number: float

    def promql(self) -> str:
        return f"{self.left.promql()} {self.comparison} {number(self.number)}"

    def value(self, history: History, now: float) -> Vector:
        compare = COMPARISONS[self.comparison]
        found = self.left.value(history, now)
        return {labels: value for labels, value in found.items() if compare(value, self.number)}


class ComparedTo(Node, frozen=True, kw_only=True):
    """The values that compare so with another value of the same labels."""

    left: Expression
    comparison: str
    right: Expression

    def promql(self) -> str:
        return f"{self.left.promql()} {self.comparison} {self.right.promql()}"

    def value(self, history: History, now: float) -> Vector:
        compare, right = COMPARISONS[self.comparison], self.right.value(history, now)
        return {
            labels: value
            for labels, value in self.left.value(history, now).items()
            if labels in right and compare(value, right[labels])
        }


class AllOf(Node, frozen=True, kw_only=True):
    """The values of the first condition, if all others hold, too."""

    conditions: tuple[Expression, ...]

    def promql(self) -> str:
        first, *others = (f"({each.promql()})" for each in self.conditions)
        return "\nand on() ".join([first, *others])

    def value(self, history: History, now: float) -> Vector:
        first, *others = (each.value(history, now) for each in self.conditions)
        return first if all(others) else {}


class Always(Node, frozen=True, kw_only=True):
    """A condition that always holds."""

    def promql(self) -> str:
        return "vector(1)"

    def value(self, history: History, now: float) -> Vector:
        return {(): 1.0}


class InPrometheus(Node, frozen=True, kw_only=True):
    """A condition that only Prometheus can know, such as that this server is not there."""

    text: str

    def promql(self) -> str:
        return self.text

    def value(self, history: History, now: float) -> Vector:
        return {}


def shared_part(part: Increase, whole: Increase) -> Expression:
    """Return the share of `part` in `whole`; a part that was never counted is 0."""
    return Arithmetic(left=Otherwise(inner=part, number=0), operator="/", right=whole)


def selector(where: Where, more: tuple[str, ...] = ()) -> str:
    """Return label matchers; of several values, any may match."""
    matchers = [
        f'{name}="{escaped(values[0])}"'
        if len(values) == 1
        else f'{name}=~"{"|".join(escaped(pattern(value)) for value in values)}"'
        for name, values in where.items()
    ]
    return f"{{{','.join([*matchers, *more])}}}" if matchers or more else ""


def pattern(text: str) -> str:
    """Escape a text for a regular expression in RE2's syntax."""
    return "".join(c if c.isalnum() or c in "_-:/ " or ord(c) > 127 else f"\\{c}" for c in text)


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def duration(seconds: float) -> str:
    """Return a duration as PromQL writes it."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{round(seconds)}s"


def number(value: float) -> str:
    return f"{value:.10g}"
