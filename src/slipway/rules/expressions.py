"""Compute the expressions of templates: `{count * 4.5}`, `{start + 14}`, `{round(x / 3, 2)}`.

Arithmetic is exact (fractions) and bounded. An expression is parsed once, when the rules are read,
into Python's syntax tree, of which only the nodes below are allowed; nothing is ever executed.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from fractions import Fraction

from slipway.rules.units import Unit, UnitProblem, convert, unit_named
from slipway.rules.values import (
    MAX_DIGITS,
    Formula,
    MoneyAmount,
    Quantity,
    TableRow,
    Value,
    rounded,
)

LONGEST = 500  # characters
MAX_POWER = 64
MAX_BITS = MAX_DIGITS * 10 // 3
MAX_DAYS = 366 * 1000
_NUMBER = re.compile(r"[-+]?\d{1,30}(?:\.\d{1,30})?", re.ASCII)  # no exponent, which could be huge


class ExpressionProblem(Exception):
    """An expression is not allowed, or cannot be computed; the message says why."""


def parse(text: str) -> ast.expr:
    """Return the syntax tree of an expression. Raises ExpressionProblem."""
    if len(text) > LONGEST:
        raise ExpressionProblem(f"it is longer than {LONGEST} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionProblem(f"`{text.strip()}` is not an expression") from None
    check(tree)
    return tree


def check(node: ast.expr) -> None:
    """Raise ExpressionProblem for what an expression may not have."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        check(node.left)
        check(node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        check(node.operand)
    elif isinstance(node, ast.Call):
        check_call(node)
    elif isinstance(node, ast.Attribute):
        check(node.value)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float | str):
            raise ExpressionProblem(f"`{ast.unparse(node)}` is not a number or a text in quotes")
    elif not isinstance(node, ast.Name):
        raise ExpressionProblem(
            f"`{ast.unparse(node)}` is not allowed; use slots, numbers, + - * / // % ** and "
            f"{', '.join(FUNCTIONS)}"
        )


def check_call(node: ast.Call) -> None:
    if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords:
        raise ExpressionProblem(
            f"there is no function `{ast.unparse(node.func)}`; known: {', '.join(FUNCTIONS)}"
        )
    for argument in node.args:
        check(argument)


def names_in(node: ast.expr) -> set[str]:
    """Return the names that an expression reads, without functions."""
    called = {id(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and id(n) not in called}


def columns_in(node: ast.expr) -> set[tuple[str, str]]:
    """Return each (slot, column) that an expression reads from a table."""
    return {
        (n.value.id, n.attr)
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
    }


def compute(node: ast.expr, values: Mapping[str, Value]) -> Value:
    """Return the value of a checked expression. Raises ExpressionProblem."""
    try:
        return bounded(evaluate(node, values))
    except ZeroDivisionError:
        raise ExpressionProblem("it divides by zero") from None
    except (OverflowError, UnitProblem, TypeError, ValueError) as error:
        raise ExpressionProblem(str(error)) from None


def evaluate(node: ast.expr, values: Mapping[str, Value]) -> Value:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else Fraction(str(node.value))
    if isinstance(node, ast.Name):
        if node.id not in values:
            raise ExpressionProblem(f"there is no slot `{node.id}`")
        return values[node.id]
    if isinstance(node, ast.Attribute):
        return attribute(evaluate(node.value, values), node.attr)
    if isinstance(node, ast.UnaryOp):
        operand = evaluate(node.operand, values)
        return scaled(operand, Fraction(-1)) if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp):
        left, right = evaluate(node.left, values), evaluate(node.right, values)
        return bounded(combine(type(node.op), left, right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return FUNCTIONS[node.func.id](*(evaluate(argument, values) for argument in node.args))
    raise ExpressionProblem(f"`{ast.unparse(node)}` cannot be computed")


def attribute(value: Value, name: str) -> Value:
    """Return a column of a table's row, or a part of a quantity or of a formula."""
    if isinstance(value, TableRow) and name in value.cells:
        return TableRow(key=value.cells[name], cells={})
    if isinstance(value, Quantity | MoneyAmount) and name == "amount":
        return value.amount
    if isinstance(value, Formula) and name == "result":
        return value.result
    raise ExpressionProblem(f"there is no `.{name}` here")


def number(value: Value) -> Fraction:
    """Return a value as a number; a cell of a table may hold one."""
    if isinstance(value, Fraction):
        return value
    if isinstance(value, Formula):
        return value.result
    text = value.key if isinstance(value, TableRow) else value
    if isinstance(text, str):
        if _NUMBER.fullmatch(plain := text.strip().replace(",", "").replace("\u2212", "-")):
            return Fraction(plain)
        raise ExpressionProblem(f"`{text[:50]}` is not a number")
    raise ExpressionProblem("this is not a number")


def combine(op: type[ast.operator], left: Value, right: Value) -> Value:
    if isinstance(left, date):
        return with_date(op, left, right)
    if isinstance(left, Quantity | MoneyAmount) or isinstance(right, Quantity | MoneyAmount):
        return with_quantity(op, left, right)
    one, other = number(left), number(right)
    if op is ast.Pow:
        if other.denominator != 1 or abs(other) > MAX_POWER:
            raise ExpressionProblem(f"a power must be a whole number up to {MAX_POWER}")
        return Fraction(one ** int(other))
    return Fraction(_OPERATORS[op](one, other))


def with_date(op: type[ast.operator], left: date, right: Value) -> Value:
    if op is ast.Sub and isinstance(right, date):
        return Fraction((left - right).days)
    if op in (ast.Add, ast.Sub):
        days = number(right)
        if days.denominator != 1 or abs(days) > MAX_DAYS:
            raise ExpressionProblem("only whole days can be added to a date")
        return left + timedelta(days=int(days) if op is ast.Add else -int(days))
    raise ExpressionProblem("a date can be added to and subtracted from, nothing else")


def with_quantity(op: type[ast.operator], left: Value, right: Value) -> Value:
    """Add quantities of one kind, or multiply and divide one by a number."""
    if op in (ast.Add, ast.Sub):
        sign = Fraction(1 if op is ast.Add else -1)
        if isinstance(left, Quantity) and isinstance(right, Quantity):
            more = convert(right.amount, right.unit, left.unit)
            return Quantity(amount=left.amount + sign * more, unit=left.unit)
        if isinstance(left, MoneyAmount) and isinstance(right, MoneyAmount):
            if left.currency != right.currency:
                raise ExpressionProblem(f"{left.currency} is not {right.currency}")
            return MoneyAmount(amount=left.amount + sign * right.amount, currency=left.currency)
    if op is ast.Mult and not isinstance(left, Quantity | MoneyAmount):
        return scaled(right, number(left))
    if op in (ast.Mult, ast.Div) and not isinstance(right, Quantity | MoneyAmount):
        by = number(right)
        return scaled(left, by if op is ast.Mult else 1 / by)
    raise ExpressionProblem("these quantities cannot be combined")


def scaled(value: Value, by: Fraction) -> Value:
    if isinstance(value, Quantity):
        return Quantity(amount=value.amount * by, unit=value.unit)
    if isinstance(value, MoneyAmount):
        return MoneyAmount(amount=value.amount * by, currency=value.currency)
    return number(value) * by


def bounded(value: Value) -> Value:
    """Return the value. Raises ExpressionProblem for a number that is too long to show."""
    amount = value.amount if isinstance(value, Quantity | MoneyAmount) else value
    if isinstance(amount, Fraction) and (
        amount.numerator.bit_length() > MAX_BITS or amount.denominator.bit_length() > MAX_BITS
    ):
        raise ExpressionProblem(f"the number has more than {MAX_DIGITS} digits")
    return value


def to_unit(value: Value, unit: Value) -> Value:
    if not isinstance(value, Quantity):
        raise ExpressionProblem("`to` needs a slot of type `unit`")
    wanted = unit if isinstance(unit, Unit) else unit_named(str(unit))
    return Quantity(amount=convert(value.amount, value.unit, wanted), unit=wanted)


def round_number(value: Value, places: Value = Fraction(0)) -> Value:
    digits = int(number(places))
    if not 0 <= digits <= 12:
        raise ExpressionProblem("`round` takes 0 to 12 places")
    if isinstance(value, Quantity):
        return Quantity(amount=rounded(value.amount, digits), unit=value.unit)
    return rounded(number(value), digits)


def money(value: Value, currency: Value) -> Value:
    return MoneyAmount(amount=number(value), currency=str(currency))


def weekday(value: Value) -> Value:
    if not isinstance(value, date):
        raise ExpressionProblem("`weekday` needs a date")
    return ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[
        value.weekday()
    ]


def weekday_zh(value: Value) -> Value:
    if not isinstance(value, date):
        raise ExpressionProblem("`weekday_zh` needs a date")
    return f"星期{'一二三四五六日'[value.weekday()]}"


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "round": round_number,
    "min": lambda *values: min(map(number, values)),
    "max": lambda *values: max(map(number, values)),
    "abs": lambda value: abs(number(value)),
    "to": to_unit,
    "money": money,
    "weekday": weekday,
    "weekday_zh": weekday_zh,
}
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction | int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, power: base ** int(power),
}
