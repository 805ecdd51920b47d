"""Turn YAML nodes into the settings tree.

The line of each field is kept, and all problems are collected instead of stopping at the first.
"""

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec
import yaml

from slipway.settings.known_names import MAX_WORD
from slipway.settings.tree import PASSWORD, Settings
from slipway.settings.values import Branch, seconds

# fields that should not be literal text in the file
SECRET = re.compile(r"^keys(\[\d+\])?(\.key)?$|\.api_key$|^alerts\.notify\..+\.(secret|password)$")
MAX_VALUES = 100_000  # of the file, with all aliases written out
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


TYPE_WORDS = {
    "`str`": "text",
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "`true` or `false`",
    "`bool | null`": "`true` or `false`",
    "`object`": "a mapping",
    "`null`": "nothing",
    "`str | null`": "text, in quotes if it is a number",
}


class InvalidValue(Exception):
    """Raised after a problem was recorded for a value; the caller continues with the next one."""


def fields_of(kind: type[Branch]) -> dict[str, msgspec.structs.FieldInfo]:
    """Return the fields of a branch by name."""
    return {f.name: f for f in msgspec.structs.fields(kind)}


def bare_type(kind: Any) -> Any:
    """Return the type without its `Annotated` and `| None` wrappers."""
    while (origin := typing.get_origin(kind)) in (typing.Annotated, types.UnionType, typing.Union):
        kind = (
            next(k for k in typing.get_args(kind) if k is not types.NoneType)
            if origin is not typing.Annotated
            else typing.get_args(kind)[0]
        )
    return kind


def is_duration(kind: Any) -> bool:
    """Return whether a type is a duration, also an optional one."""
    if any(
        isinstance(m, msgspec.Meta) and (m.extra or {}).get("duration")
        for m in getattr(kind, "__metadata__", ())
    ):
        return True
    return typing.get_origin(kind) in (typing.Annotated, types.UnionType, typing.Union) and any(
        map(is_duration, typing.get_args(kind))
    )


def plain_message(message: str) -> str:
    """Return a message of msgspec in the words of YAML."""
    message = message.split(" - at ")[0]
    for theirs, ours in TYPE_WORDS.items():
        message = message.replace(theirs, ours)
    return message[:1].lower() + message[1:]


def choices_hint(kind: Any) -> str:
    """Return the allowed values of a Literal, as the end of a sentence."""
    kind = bare_type(kind)
    return (
        f"; one of: {', '.join(typing.get_args(kind))}"
        if typing.get_origin(kind) is Literal
        else ""
    )


def branches(kind: Any = Settings, path: str = "") -> Iterator[tuple[str, type[Branch]]]:
    """Yield (path, branch) of the whole tree; `NAME` is any key of a table, `[]` any list item."""
    kind = bare_type(kind)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Branch):
        yield path, kind
        for name, field in fields_of(kind).items():
            yield from branches(field.type, f"{path}.{name}" if path else name)
    elif origin is dict:
        yield from branches(args[1], f"{path}.NAME")
    elif origin is tuple:
        yield from branches(args[0], f"{path}[]")


def suggest_field(word: str, kind: type[Branch], root: type[Branch] = Settings) -> str:
    """Return a hint for an unknown field: a similar one here or elsewhere, or all known ones."""
    here = list(fields_of(kind))
    if len(word) > MAX_WORD:
        return f"known here: {', '.join(here)}"
    elsewhere = {name: path for path, branch in branches(root) for name in fields_of(branch)}
    nearest = difflib.get_close_matches(word, elsewhere, 1, 0.75)
    if near := difflib.get_close_matches(word, here, 1, 0.6 if not nearest else 0.8):
        return f"did you mean `{near[0]}:`?"
    if near := nearest:
        where = elsewhere[near[0]]
        return f"did you mean `{near[0]}:`" + (
            f", which belongs under `{where}`?" if where else " at the top of the file?"
        )
    return f"known here: {', '.join(here)}"


class Reader:
    """Reads one file. `problems` collects a sentence for each problem, `lines` the line of each
    field by its dotted path.
    """

    root: type[Branch] = Settings  # the tree that the file is read as

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self.file, self.environ = file, environ
        self.problems: list[str] = []
        self.lines: dict[str, int] = {}
        self.literal_secrets: list[str] = []
        self._loader = yaml.SafeLoader("")

    def problem(self, path: str, what: str) -> None:
        """Record a problem of a field, with its line."""
        line = self.lines.get(path)
        place = self.file if line is None else f"{self.file}:{line}"
        self.problems.append(f"{place}: {path}: {what}" if path else f"{place}: {what}")

    def read(self, node: yaml.Node | None) -> Settings:
        """Return the settings of the file's root node; valid only if `problems` stays empty."""
        if node is None:
            return Settings()
        try:
            return typing.cast("Settings", self.value(node, Settings, ""))
        except InvalidValue:
            return Settings()

    def value(self, node: yaml.Node, kind: Any, path: str) -> Any:
        """Return a node's value as the type `kind`. Raise InvalidValue after recording why not."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag == "tag:yaml.org,2002:null" and self.optional(kind):
            return None
        plain = bare_type(kind)
        origin, args = typing.get_origin(plain), typing.get_args(plain)
        if isinstance(plain, type) and issubclass(plain, Branch):
            return self.branch(node, plain, path)
        if origin is dict and args[1] is not Any:
            return dict(self.table(node, args[1], path))
        if origin is tuple:
            return tuple(self.items(node, args[0], path))
        return self.leaf(node, kind, path)

    @staticmethod
    def optional(kind: Any) -> bool:
        """Return whether a type allows None."""
        while typing.get_origin(kind) is typing.Annotated:
            kind = typing.get_args(kind)[0]
        return types.NoneType in typing.get_args(kind)

    def pairs(self, node: yaml.Node, path: str, what: str) -> Iterator[tuple[str, yaml.Node, str]]:
        """Yield (key, value, path) of a mapping; a duplicate key is a problem."""
        if not isinstance(node, yaml.MappingNode):
            self.problem(path, f"expected {what}, found {self.described(node)}")
            raise InvalidValue
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            at = f"{path}.{key}" if path else key
            if key in seen:
                self.lines[at] = line
                self.problem(
                    at, f"this name is used twice, first on line {seen[key]}; rename or remove one"
                )
                continue
            seen[key] = self.lines[at] = line
            yield key, value_node, at

    def branch(self, node: yaml.Node, kind: type[Branch], path: str) -> Branch:
        """Return a branch of the tree."""
        fields, given = fields_of(kind), {}
        if kind.shorthand and isinstance(node, yaml.ScalarNode):
            given[kind.shorthand] = self.leaf(node, fields[kind.shorthand].type, path)
            return kind(**given)
        failed = False
        for key, value_node, at in self.pairs(node, path, f"fields ({', '.join(fields)})"):
            if key not in fields:
                self.problem(at, f"there is no such field; {suggest_field(key, kind, self.root)}")
                continue
            try:
                given[key] = self.value(value_node, fields[key].type, at)
            except InvalidValue:
                failed = True
        missing = [f.name for f in fields.values() if f.required and f.name not in given]
        if missing and not failed:
            self.problem(path, f"`{missing[0]}` is missing; add `{missing[0]}: …`")
        if missing or failed:
            raise InvalidValue
        return kind(**given)

    def table(self, node: yaml.Node, kind: Any, path: str) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of a table; invalid ones are skipped."""
        for key, value_node, at in self.pairs(node, path, "names with their values"):
            try:
                yield key, self.value(value_node, kind, at)
            except InvalidValue:
                continue

    def items(self, node: yaml.Node, kind: Any, path: str) -> Iterator[Any]:
        """Yield the items of a list; a single value counts as a list of one."""
        if not isinstance(node, yaml.SequenceNode):
            yield self.value(node, kind, path)
            return
        for i, item in enumerate(node.value):
            try:
                yield self.value(item, kind, f"{path}[{i}]")
            except InvalidValue:
                continue

    def leaf(self, node: yaml.Node, kind: Any, path: str) -> Any:
        """Return a single value with variables filled in."""
        value = self.with_variables(self.yaml_value(node, path), path)
        try:
            return msgspec.convert(seconds(value) if is_duration(kind) else value, kind)
        except msgspec.ValidationError as error:
            given = "this value" if SECRET.search(path) else self.described(node)
            why = f"{plain_message(str(error))}{choices_hint(kind)}"
            if bare_type(kind) is Decimal:
                why = "write a number with a point, such as `0.28`"
            self.problem(path, f"{given} is not valid; {why}")
        except ValueError as error:
            self.problem(path, str(error))
        raise InvalidValue

    def yaml_value(self, node: yaml.Node, path: str) -> Any:
        """Return the value as YAML understands it.

        Invalid dates, unknown tags and lists that contain themselves are problems.
        """
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            why = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
            self.problem(
                path, f"this cannot be read ({why}); put it in quotes if it is meant as text"
            )
            raise InvalidValue from None

    def with_variables(self, value: Any, path: str) -> Any:
        """Return the value with `${NAME}` and `${NAME:-default}` replaced in all of its strings."""
        if isinstance(value, dict):
            return {k: self.with_variables(v, path) for k, v in value.items()}
        if isinstance(value, list):
            return [self.with_variables(v, path) for v in value]
        if not isinstance(value, str):
            return value
        if SECRET.search(path) and value and "${" not in value and not value.startswith("sha256:"):
            self.literal_secrets.append(path)
        if path == "store" and "${" not in value and PASSWORD.search(value):
            self.literal_secrets.append(path)
        return VARIABLE.sub(lambda found: self.variable(found, path), value)

    def variable(self, found: re.Match[str], path: str) -> str:
        """Return the text for one variable. Raise InvalidValue if it is not set."""
        name, default = found[1], found[2]
        if name in self.environ:
            return self.environ[name]
        if default is None:
            self.problem(
                path,
                f"the environment variable {name} is not set; `export {name}=…` before starting",
            )
            raise InvalidValue
        return default

    @staticmethod
    def described(node: yaml.Node) -> str:
        """Return a node as a sentence names it."""
        if isinstance(node, yaml.ScalarNode):
            return f"`{node.value}`" if node.value else "an empty value"
        return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def parse(text: str, file: str, reader: Reader) -> yaml.Node | None:
    """Return the file's YAML tree; a syntax error becomes a problem with its line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None or expanded_size(root) <= MAX_VALUES:
            return root
        reader.problems.append(
            f"{file}: with its aliases (`*name`) the file has more than {MAX_VALUES:,} values; "
            "use fewer aliases"
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        reader.problems.append(
            f"{file}{line}: this is not valid YAML: {error.problem}; "
            "check indentation, quotes and colons there"
        )
    except yaml.YAMLError as error:
        reader.problems.append(f"{file}: this is not valid YAML: {error}")
    except RecursionError:
        reader.problems.append(f"{file}: the YAML is nested too deeply; check the brackets")
    return None


def expanded_size(root: yaml.Node) -> int:
    """Return how many values the file has if every alias is written out, or at least
    MAX_VALUES + 1.

    Each node is visited once, so that aliases of aliases cannot hold up the start.
    """
    sizes: dict[int, int] = {}
    pending: list[tuple[yaml.Node, bool]] = [(root, False)]
    while pending:
        node, done = pending.pop()
        inside = children(node)
        if done:
            inner = sum(sizes.get(id(child), MAX_VALUES) for child in inside)  # a cycle is too big
            sizes[id(node)] = min(1 + inner, MAX_VALUES + 1)
        elif id(node) not in sizes:
            sizes[id(node)] = MAX_VALUES + 1  # until its children are counted
            pending.append((node, True))
            pending += [(child, False) for child in inside if id(child) not in sizes]
    return sizes[id(root)]


def children(node: yaml.Node) -> list[yaml.Node]:
    """Return the keys and values of a mapping, or the items of a list."""
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def fill_extends(root: yaml.Node | None, reader: Reader) -> None:
    """Copy the other model's fields (except `name`) into each model with `extends`, in place."""
    models = child(root, "models")
    if not isinstance(models, yaml.MappingNode):
        return
    by_name = {str(k.value): v for k, v in models.value if isinstance(v, yaml.MappingNode)}
    for name in by_name:
        _extend(name, by_name, reader, ())


def _extend(
    name: str, by_name: dict[str, yaml.MappingNode], reader: Reader, chain: tuple[str, ...]
) -> None:
    node = by_name[name]
    parent = child(node, "extends")
    if parent is None or getattr(node, "extended", False):
        return
    path, base = f"models.{name}.extends", str(parent.value)
    reader.lines[path] = parent.start_mark.line + 1
    if base not in by_name:
        reader.problem(path, f"there is no model `{base}`; known: {', '.join(by_name)}")
    elif base in (*chain, name):
        reader.problem(path, f"`{base}` extends itself through other models; remove one `extends`")
    else:
        _extend(base, by_name, reader, (*chain, name))
        own = {str(k.value) for k, _ in node.value}
        node.value = node.value + [
            (k, v) for k, v in by_name[base].value if str(k.value) not in own | {"name", "extends"}
        ]
        node.extended = True  # type: ignore[attr-defined]  # marks the node as done


def child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """Return the value of a key of a mapping, or None."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((v for k, v in node.value if k.value == key), None)
