"""Templates: an answer with `{slot}` and `{expression}`; `{{` and `}}` are braces."""

import ast
import re
from collections.abc import Mapping

from slipway.rules.expressions import ExpressionProblem, columns_in, compute, names_in, parse
from slipway.rules.values import Value, shown
from slipway.types import Record

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
MAX_ANSWER = 100_000  # characters
TODAY = "today"  # the name that every template may use


class TemplateProblem(Exception):
    """A template is not valid, or cannot be filled in; the message says why."""


class Template(Record, frozen=True, kw_only=True):
    """Texts and expressions in their order."""

    parts: tuple[str | ast.expr, ...]

    @property
    def names(self) -> set[str]:
        """Return the names that it reads."""
        return set[str]().union(*(names_in(p) for p in self.parts if isinstance(p, ast.expr)))

    @property
    def columns(self) -> set[tuple[str, str]]:
        """Return each (slot, column) that it reads."""
        return set[tuple[str, str]]().union(
            *(columns_in(p) for p in self.parts if isinstance(p, ast.expr))
        )

    @property
    def fixed(self) -> str | None:
        """Return the text of a template without expressions, or None."""
        if any(isinstance(part, ast.expr) for part in self.parts):
            return None
        return "".join(part for part in self.parts if isinstance(part, str))

    def filled(self, values: Mapping[str, Value]) -> str:
        """Return the text with every expression computed. Raises TemplateProblem."""
        try:
            return "".join(
                part if isinstance(part, str) else shown(compute(part, values))
                for part in self.parts
            )
        except ExpressionProblem as problem:
            raise TemplateProblem(str(problem)) from None


def template_of(text: str) -> Template:
    """Return the template of an answer. Raises TemplateProblem."""
    parts, end = list[str | ast.expr](), 0
    for found in _PART.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        if found[1] is not None:
            try:
                parts.append(parse(found[1]))
            except ExpressionProblem as problem:
                raise TemplateProblem(f"{problem}; write `{{{{` for a brace itself") from None
        elif found[0] in "{}":
            raise TemplateProblem(
                f"a `{found[0]}` is alone; write `{found[0] * 2}` for a brace itself"
            )
        else:
            parts.append(found[0][0])
    return Template(parts=tuple(part for part in (*parts, text[end:]) if part != ""))
