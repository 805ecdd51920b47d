"""Decide who may read which document, and which documents a question is limited to.

Rules match paths, in any of the ways in which a person writes them (`names`); the first rule that
matches applies, and a document that no rule matches is readable by everybody who may call the app.
A document's own front matter can only narrow that. Documents that an asker may not read are removed
before anything is ranked or counted.

A rule that matches no document is probably misspelt, so it closes rather than opens (`_Unmatched`).
An upload is matched by the name that its sender gave it as well, whatever name it is stored under.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from slipway.errors import BadRequest
from slipway.knowledge.keyword_table import DocumentFilter
from slipway.knowledge.patterns import Glob, glob, names_in, tidy
from slipway.settings import AccessRule
from slipway.types import Asker, Record, Within

EVERYBODY = "*"
UPLOADS = "uploads"  # the folder that holds what people sent, as paths show it
_LONGEST_PATTERN = 1_000
_CACHED_FILTERS = 32  # of one generation; each may hold a number for every other document
_SIMILAR = 0.7  # of two names (difflib's ratio): one may be a misspelling of the other
_NAME_LETTERS = 4  # shorter names are similar only if they are equal
_FILE = re.compile(r"\.[^\W_]{1,5}$")  # a name that ends like a file's
_NO_LETTERS = re.compile(r"[\W_]+")
# What `marked` adds to a name; a sender's own name never keeps one
_MARK = re.compile(r"(?<=.)(~[0-9a-f]{8})+(?=\.[^.]*$)")

Groups = frozenset[str]


def marked(name: str) -> str:
    """Return the name with a random mark, under which an upload is stored: `plan~1f3a9c02.md`."""
    stem, dot, kind = name.rpartition(".")
    return f"{stem}~{token_hex(4)}{dot}{kind}"


def as_written(path: str) -> str:
    """Return an upload's path with the name that its sender gave it. Other paths stay."""
    if not path.startswith(f"{UPLOADS}/"):
        return path
    return f"{UPLOADS}/{without_mark(path.rpartition('/')[2])}"


def without_mark(name: str) -> str:
    return _MARK.sub("", name)


class NamedFile(Protocol):
    """A document, or a file that may become one; see `files.FoundFile`."""

    @property
    def path(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def home(self) -> str: ...


class RestrictedDocument(NamedFile, Protocol):
    """A document that was read. `groups` are its own restrictions."""

    @property
    def groups(self) -> tuple[Groups, ...]: ...
    @property
    def tags(self) -> Groups: ...
    @property
    def date(self) -> str: ...


class KnowledgeFolder(Record, frozen=True, kw_only=True):
    """A knowledge folder (or the folder of a single file): its real path, and the ways in which
    people name it: by its own name, relative to the settings file, or in full.
    """

    folder: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, base: str) -> "KnowledgeFolder":
        real = path.resolve()
        single = real.is_file()
        folder = real.parent if single else real
        # Keeps links
        written = Path(os.path.abspath(path.parent if single else path))  # noqa: PTH100
        relative = os.path.relpath(written, base)
        names = [written.name, folder.name, relative, str(written), str(folder)]
        plain = dict.fromkeys(tidy(name) for name in names)
        return cls(
            folder=str(folder),
            names=tuple(name for name in plain if name and not name.startswith(".")),
        )

    def relative(self, file: str) -> str | None:
        """Return the file's path in this folder; None if it is elsewhere."""
        above = self.folder.rstrip(os.sep) + os.sep
        return file[len(above) :].replace(os.sep, "/") if file.startswith(above) else None

    def is_ambiguous(self, name: str) -> bool:
        """Tell whether a pattern that begins with this name may also mean a folder inside."""
        return Path(self.folder, name.partition("/")[0]).exists()


class Folders:
    """The knowledge folders of an app, and the folder to which paths in its settings are relative."""

    def __init__(self, paths: Sequence[Path], base: Path) -> None:
        self._base = os.path.abspath(base)  # noqa: PTH100 - a link stays as it was written
        self.sources = [KnowledgeFolder.of(path, self._base) for path in paths]

    def glob(self, pattern: str) -> Glob:
        """Compile a rule's pattern; one that leads out of the base is taken as a full path."""
        plain = tidy(pattern)
        return glob(os.path.normpath(f"{self._base}/{plain}") if plain[:2] == ".." else pattern)


class Access:
    """Hold the rules of one app over its folders. Thread-safe.

    `rules` is called each time and must return the same object until the rules change; changed
    rules apply from the next question on. `sources` are the app's folders, `base` is the settings
    file's folder, to which paths in the file are relative.
    """

    def __init__(
        self,
        rules: Callable[[], Sequence[AccessRule]] = tuple,
        sources: Sequence[Path] = (),
        base: Path | None = None,
    ) -> None:
        self._source = rules
        self._folders = Folders(sources, base or Path())
        self._verdicts: Verdicts | None = None  # replaced as a whole, since other threads read it

    def may_read(
        self, asker: Asker, doc: RestrictedDocument, documents: Mapping[int, RestrictedDocument]
    ) -> bool:
        """Tell whether this asker may read this document; `documents` are all that there are, since
        a rule that matches none of them closes some.
        """
        return asker.everything or _is_member(asker, self._of(documents).of(doc))

    def document_filter(
        self, asker: Asker, within: Within | None, documents: Mapping[int, Any], generation: object
    ) -> DocumentFilter | None:
        """Return which documents this asker's question may find; None means all. `documents` belong
        to `generation`.
        """
        return self._of(documents, generation).document_filter(asker, within)

    def named_groups(self, documents: Mapping[int, Any], generation: object) -> frozenset[str]:
        """Return all groups that the rules or a document name; no other group matters here."""
        return self._of(documents, generation).named_groups

    def _of(
        self, documents: Mapping[int, RestrictedDocument], generation: object = None
    ) -> "Verdicts":
        rules, known = self._source(), self._verdicts
        same = known is not None and known.rules is rules
        if known is None or not same or known.documents is not documents:
            known = Verdicts(rules, self._folders, documents, known if same else None)
            self._verdicts = known
        return known


class Verdicts:
    """The decisions of some rules on all documents of one moment."""

    def __init__(
        self,
        rules: Sequence[AccessRule],
        folders: "Folders",
        documents: Mapping[int, RestrictedDocument],
        before: "Verdicts | None" = None,
    ) -> None:
        """`before` are decisions of the same rules: what has not changed is not matched again."""
        self.rules, self.documents = rules, documents
        self._matcher = RuleMatcher(rules, folders)
        self._matches: dict[int, RuleMatches] = {}
        known = before._matches if before and before._matcher.means_the_same(self._matcher) else {}
        for number, doc in documents.items():
            self._matches[number] = known.get(number) or self._matcher.matches(doc)
        self._unmatched = (
            self._matcher.unmatched(self._matches.values(), documents.values()) if rules else []
        )
        self._filters: dict[Any, tuple[DocumentFilter | None]] = {}

    def of(self, doc: RestrictedDocument) -> tuple[Groups, ...]:
        """Return sets of groups; a reader must be in at least one group of each set."""
        return (*self._rule_groups(doc), *doc.groups)

    def _rule_groups(self, doc: RestrictedDocument) -> tuple[Groups, ...]:
        if not self.rules:
            return ()
        number = getattr(doc, "id", None)
        found = self._matches.get(number) if number else None  # an upload that waits has no number
        found = found or self._matcher.matches(doc)
        groups = [frozenset(self.rules[n].groups) for n in (*found.perhaps, *found.sure[:1])]
        first = found.sure[0] if found.sure else len(self.rules)
        closed = [each.groups for each in self._unmatched if each.closes(doc, first, found)]
        return tuple(dict.fromkeys([*groups, *closed]))

    @cached_property
    def named_groups(self) -> frozenset[str]:
        of_documents = {groups for doc in self.documents.values() for groups in doc.groups}
        return frozenset().union(*(rule.groups for rule in self.rules), *of_documents)

    def document_filter(self, asker: Asker, within: Within | None) -> DocumentFilter | None:
        key = (asker.everything, asker.groups, within)
        kept = self._filters.get(key)
        if kept is None:
            if len(self._filters) >= _CACHED_FILTERS:
                self._filters.clear()
            kept = self._filters[key] = (self._document_filter(asker, within),)
        return kept[0]

    def _document_filter(self, asker: Asker, within: Within | None) -> DocumentFilter | None:
        wanted = matcher(within)
        out = frozenset(
            number
            for number, doc in self.documents.items()
            if not ((asker.everything or _is_member(asker, self.of(doc))) and wanted(doc))
        )
        if not out:
            return None
        if 2 * len(out) < len(self.documents):
            return DocumentFilter(documents=out, excludes=True)
        return DocumentFilter(documents=frozenset(self.documents) - out)


class RuleMatches(Record, frozen=True, kw_only=True):
    """The rules that match a document, by their numbers.

    `perhaps` holds earlier ones whose pattern may mean this document or one inside a folder of the
    same name: they restrict it, and the rules behind them count as well.
    """

    sure: tuple[int, ...] = ()
    perhaps: tuple[int, ...] = ()


class RuleMatcher:
    """Match documents against the rules of an app, by each name that a person may use."""

    def __init__(self, rules: Sequence[AccessRule], folders: Folders) -> None:
        self.rules, self.sources = rules, folders.sources
        self.globs = [folders.glob(rule.path) for rule in rules]
        self._ambiguous = {
            (each.folder, name): each.is_ambiguous(name)
            for each in self.sources
            for name in each.names
        }

    def means_the_same(self, other: "RuleMatcher") -> bool:
        """Tell whether no folder came or went that changes what a pattern of these rules means."""
        return self._ambiguous == other._ambiguous

    def matches(self, doc: NamedFile) -> RuleMatches:
        sure_names, perhaps_names = self._names(doc)
        sure, perhaps = [], []
        for n, pattern in enumerate(self.globs):
            if any(map(pattern.match_names, sure_names)):
                sure.append(n)
            elif not sure and any(map(pattern.match_names, perhaps_names)):
                perhaps.append(n)
        return RuleMatches(sure=tuple(sure), perhaps=tuple(perhaps))

    def _names(self, doc: NamedFile) -> tuple[list[list[str]], list[list[str]]]:
        """Return the names that surely mean this document, and those that may mean another one.

        With several folders, the path that is shown depends on what the other folders hold; a rule
        must not.
        """
        sure, perhaps = dict.fromkeys([doc.path]), dict[str, None]()
        is_sent = True
        for source in self.sources:
            inside = source.relative(doc.file)
            if inside is None:
                continue
            is_sent = False
            sure[inside] = None
            for name in source.names:
                to = perhaps if self._ambiguous[source.folder, name] else sure
                to[f"{name}/{inside}"] = None
        if is_sent:
            sure[as_written(doc.path)] = None
        if not self.sources and doc.home:
            sure |= dict.fromkeys([doc.home, doc.home.partition("/")[2]])
        return [names_in(name) for name in sure], [names_in(name) for name in perhaps]

    def unmatched(
        self, matches: Iterable[RuleMatches], documents: Iterable[NamedFile]
    ) -> list["_Unmatched"]:
        """Return the rules that match no document, and what each of them closes meanwhile."""
        matched = {n for each in matches for n in (*each.sure, *each.perhaps)}
        found = [
            _Unmatched(n, rule, self)
            for n, rule in enumerate(self.rules)
            if n not in matched and not self._exists(rule)
        ]
        if found:
            docs = list(documents)
            for each in found:
                each.similar = frozenset(doc.path for doc in docs if each.resembles(doc))
        return found

    def _exists(self, rule: AccessRule) -> bool:
        """Tell whether a rule names something that is there but is no document, or an upload that
        may come.
        """
        path = tidy(rule.path)
        if path.startswith(f"{UPLOADS}/") or not glob(path).is_literal:
            return path.startswith(f"{UPLOADS}/")
        for source in self.sources:
            inside = [path] + [
                path[len(name) + 1 :] for name in source.names if path.startswith(f"{name}/")
            ]
            if any(Path(source.folder, each).exists() for each in inside):
                return True
        return False


class _Unmatched:
    """A rule that matches no document. Until it does, its groups also restrict:

    - documents whose names resemble the pattern;
    - if there are none and the pattern names one file, every document that no rule matches, apart
      from patterns of wildcards only. A folder may be empty for now.
    """

    def __init__(self, number: int, rule: AccessRule, matcher: RuleMatcher) -> None:
        self.number, self.path, self.groups = number, rule.path, frozenset(rule.groups)
        self.pattern = matcher.globs[number]
        literals = self.pattern.literals
        self.names_file = self.pattern.is_literal and bool(_FILE.search(literals[-1]))
        self._catch_all = {n for n, each in enumerate(matcher.globs) if not each.literals}
        self.similar = frozenset[str]()

    def closes(self, doc: NamedFile, first: int, found: RuleMatches) -> bool:
        """Tell whether the document is restricted; `first` is the rule that decides on it."""
        if self.similar:
            return doc.path in self.similar and self.number < first
        return self.names_file and not set(found.sure) - self._catch_all

    def resembles(self, doc: NamedFile) -> bool:
        """Compare the pattern's last literal name with the document's file or folder names."""
        if not self.pattern.literals:
            return False
        last = self.pattern.literals[-1]
        *folders, name = as_written(doc.path).split("/")
        names = [name] if self.names_file else [name, *folders]
        return any(_is_similar(last, each) for each in names)

    def sentence(self) -> str:
        """Say what is wrong, what it closes, and what to do."""
        if EVERYBODY in self.groups:
            return f"`{self.path}` matches no document; correct or remove the rule"
        said = f"`{self.path}` matches no document"
        if self.similar:
            example = min(self.similar)
            more = f" and {len(self.similar) - 1} more" if len(self.similar) > 1 else ""
            said += f"; until it does, only its groups may read {example}{more}, named alike"
        elif self.names_file:
            said += "; until it does, only its groups may read documents that no rule matches"
        return f"{said}; correct or remove the rule"


def unmatched_rules(
    rules: Sequence[AccessRule], sources: Sequence[Path], base: Path, files: Iterable[NamedFile]
) -> list[str]:
    """Return a sentence for each rule that matches none of these files."""
    if not rules:
        return []
    matcher, files = (
        RuleMatcher(rules, Folders(sources, base)),
        list(files),
    )
    return [each.sentence() for each in matcher.unmatched(map(matcher.matches, files), files)]


def _is_similar(one: str, other: str) -> bool:
    return is_alike(_letters(one), _letters(other))


@lru_cache(maxsize=16_384)
def is_alike(a: str, b: str) -> bool:
    """Compare the letters of two names, at most 64 of each."""
    if a == b:
        return True
    if min(len(a), len(b)) < _NAME_LETTERS:
        return False
    compared = SequenceMatcher(None, a, b, autojunk=False)
    return compared.real_quick_ratio() >= _SIMILAR and compared.ratio() >= _SIMILAR


def _letters(name: str) -> str:
    """Return a name without its suffix, signs and capitals."""
    stem, dot, suffix = name.rpartition(".")
    plain = unicodedata.normalize("NFKD", stem if dot and len(suffix) <= 5 else name).casefold()
    return (_NO_LETTERS.sub("", plain) or name)[:64]


def _is_member(asker: Asker, groups: Iterable[Groups]) -> bool:
    return all(EVERYBODY in each or not each.isdisjoint(asker.groups) for each in groups)


def matcher(within: Within | None) -> Callable[[RestrictedDocument], bool]:
    """Return a function that tells whether the question's limits include a document. Raise
    BadRequest for limits that cannot be parsed.
    """
    if within is None:
        return lambda doc: True
    if len(within.path) > _LONGEST_PATTERN:
        raise BadRequest(
            f"`within.path` has {len(within.path):,} characters; {_LONGEST_PATTERN:,} is the limit.",
            "Write a shorter pattern.",
            param="within.path",
        )
    pattern = glob(within.path) if within.path else None
    tags = {tag.casefold() for tag in within.tags}
    since, until = _day(within.since, "since"), _day(within.until, "until")

    def wanted(doc: RestrictedDocument) -> bool:
        if pattern is not None and not any(map(pattern.match, {doc.path, as_written(doc.path)})):
            return False
        if tags and not tags <= {tag.casefold() for tag in doc.tags}:
            return False
        return not (since or until) or (
            bool(doc.date) and since <= doc.date[:10] and (not until or doc.date[:10] <= until)
        )

    return wanted


def _day(text: str, field: str) -> str:
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise BadRequest(
            f"`within.{field}` is not a date.", "Write it as 2026-01-31.", param=f"within.{field}"
        ) from None
