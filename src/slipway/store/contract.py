"""What the store can do, in the words of those who use it. No SQL outside this package.

Documents and their index keep their own tables in the same file (knowledge/document_store.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from slipway.ledger import LedgerRow
from slipway.settings import Allowance
from slipway.types import Answered, Record, RuleUsed


class StoreError(Exception):
    """The store could not do what was asked; the message says why."""


class RowError(StoreError):
    """The store refuses the values of a row; it would do so again."""


class FeedbackRow(Record, frozen=True, kw_only=True):
    """What somebody said of an answer, with what is known of that answer.

    `section` is None for feedback on the whole answer; `helpful` is None for a report. A row that is
    older than what is saved changes nothing.
    """

    kind: Literal["vote", "report"]
    section: int | None
    helpful: bool | None
    reasons: tuple[str, ...]
    comment: str
    about: Answered
    id: str = ""  # if it was acknowledged before it was saved
    at: float = 0.0  # when it was given; now, if that is 0


class Withdrawal(Record, frozen=True, kw_only=True):
    """The votes on an answer were taken back at this time."""

    answer: str
    at: float


class SavedFeedback(Record, frozen=True, kw_only=True):
    """The id of the saved row, and whether it replaced what the same asker had said before."""

    id: str
    replaced: bool


class SectionTiming(Record, frozen=True, kw_only=True):
    """How long a model took for one section.

    It read `size` characters, sent its first words after `first_s` seconds, and wrote `chars`
    characters in `write_s` seconds more.
    """

    size: int
    first_s: float
    chars: int
    write_s: float


class Records(Protocol):
    """The rows that answers leave behind. Every method blocks, and raises StoreError."""

    def note_answers(self, answers: Sequence[Answered], *, days: int, at_most: int) -> None:
        """Record that these answers were given, without texts; drop those that are too old or
        exceed `at_most`.
        """

    def find_answer(self, answer_id: str) -> Answered | None:
        """Return what was noted of an answer; its texts are not among it."""

    def save_feedback(self, row: FeedbackRow) -> SavedFeedback:
        """Save a vote or report, replacing the same asker's earlier one on the same section.

        The row is on the disk when this returns. If `about` has no texts any more, those that an
        earlier vote saved are kept.
        """

    def withdraw_votes(self, answer_id: str, at: float) -> int:
        """Delete the votes on an answer that were given before `at`, not the reports; return how
        many there were.
        """

    def save_timings(
        self,
        timings: Sequence[tuple[str, float, SectionTiming]],
        misses: Sequence[tuple[str, float]],
        *,
        keep: int,
    ) -> None:
        """Add (model, time, timing) rows, keep the latest `keep` of each model, and save each
        model's share of missed estimates.
        """

    def load_timings(self) -> tuple[list[tuple[str, SectionTiming]], list[tuple[str, float]]]:
        """Return (model, timing) rows, oldest first, and (model, share of missed estimates)."""

    def list_feedback(self, which: "FeedbackFilter") -> "FeedbackListing":
        """Return saved feedback as JSON values, latest first."""


class RuleHits(Record, frozen=True, kw_only=True):
    """How often a rule answered, and would have answered in shadow. `unhelpful` counts those of its
    answers that somebody voted down; `last_at` is in seconds since the epoch.
    """

    app: str
    rule: str
    served: int
    shadow: int
    last_at: float
    unhelpful: int


class CollectedAnswer(Record, frozen=True, kw_only=True):
    """A first question of a conversation with its answer, kept to find rules. `groups` are the
    asker's; `unhelpful` says that somebody voted it down or reported it.
    """

    answer: str
    at: float
    app: str
    tenant: str
    question: str
    text: str
    groups: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    unhelpful: bool = False


class RuleRows(Protocol):
    """What rules leave behind. Every method blocks, and raises StoreError."""

    def count_hits(self, hits: Sequence[RuleUsed], *, days: int, at_most: int) -> None:
        """Record that these rules recognised questions; drop what is too old or too many."""

    def hits(self, since: float) -> list[RuleHits]:
        """Return how often each rule was used since then."""

    def collect(self, answers: Sequence[CollectedAnswer], *, days: int, at_most: int) -> None:
        """Keep these answers; drop what is too old or too many."""

    def collected(self, app: str) -> list[CollectedAnswer]:
        """Return what was collected of an app, the oldest first."""


class SavedConversation(Record, frozen=True, kw_only=True):
    """A conversation as the page keeps it; `turns` is JSON, and empty in a list. `named` says that
    the reader chose the title; `at` is in milliseconds since the epoch.
    """

    id: str
    title: str
    at: float
    pinned: bool = False
    named: bool = False
    turns: str = ""


class Shared(Record, frozen=True, kw_only=True):
    """A conversation that `owner` of `tenant` shared by its id; `turns` is JSON."""

    id: str
    tenant: str
    owner: str
    turns: str


class Conversations(Protocol):
    """The page's conversations, each of one owner. Every method blocks, and raises StoreError."""

    def save(self, owner: str, row: SavedConversation, *, at_most: int) -> None:
        """Save a conversation, and drop the owner's oldest ones that are not pinned."""

    def find(self, owner: str, words: Sequence[str] = ()) -> list[SavedConversation]:
        """List the owner's conversations that contain every word, without their turns."""

    def load(self, owner: str, conversation_id: str) -> SavedConversation | None:
        """Return one with its turns; None if there is none of this owner."""

    def delete(self, owner: str, conversation_id: str) -> bool:
        """Delete one; False if there was none."""

    def save_share(self, share: Shared, *, days: int, at_most: int) -> None:
        """Save what is shared, and drop what is older than `days`; of each owner the latest
        `at_most` are kept.
        """

    def load_share(self, share_id: str, *, days: int) -> Shared | None:
        """Return what is shared under this id; None if there is nothing, or it has expired."""

    def delete_share(self, share_id: str, owner: str) -> bool:
        """Take a link back; False if there is none of this owner."""


class SavedKey(Record, frozen=True, kw_only=True):
    """A key made at run time; the key itself is not saved.

    `apps` and `models` list what it may call; if both are None, that is everything. `hint` is how
    the key begins. Times are in seconds since the epoch.
    """

    id: str
    name: str
    tenant: str
    hint: str
    created_at: float
    groups: tuple[str, ...] = ()
    apps: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    documents: bool = False
    admin: bool = False
    limits: Allowance | None = None
    expires_at: float | None = None
    revoked_at: float | None = None


class KeyHash(Record, frozen=True, kw_only=True):
    """The SHA-256 hash of a key. It is accepted until `ends_at`: another one has replaced it."""

    hash: str
    key_id: str
    ends_at: float | None = None


class Keys(Protocol):
    """The keys made at run time. Every method blocks, and raises StoreError."""

    def version(self) -> int:
        """Return a number that every change of the keys increases."""

    def load(self) -> tuple[int, list[SavedKey], list[KeyHash]]:
        """Return the version, all keys, oldest first, and all hashes, as of one moment."""

    def add(self, key: SavedKey, digest: str) -> None:
        """Save a key with its hash."""

    def replace_hash(
        self, key_id: str, digest: str, hint: str, *, at: float, old_ends_at: float
    ) -> bool:
        """Accept another hash for the key, and the ones before until `old_ends_at` at the latest.
        Return False if there is no such key, or it was revoked.
        """

    def set_limits(self, key_id: str, limits: Allowance | None) -> bool:
        """Replace the limits of a key. Return False if there is no such key, or it was revoked."""

    def revoke(self, key_id: str, at: float) -> bool:
        """Revoke a key; a key that was revoked before keeps its time. False if there is none."""


Grouping = Literal["key", "tenant", "app", "model", "day"]  # a `key` is an `Asker.owner`


class LedgerFilter(Record, frozen=True, kw_only=True):
    """Which rows of the ledger: `since` (included) and `until` (excluded) are in seconds since the
    epoch, the other fields must be equal. None and 0.0 match everything.
    """

    since: float = 0.0
    until: float | None = None
    owner: str | None = None
    tenant: str | None = None
    app: str | None = None
    model: str | None = None
    answer: str | None = None


class LedgerSum(Record, frozen=True, kw_only=True):
    """The rows of one group, added up. `cost` is in picodollars; it lacks the rows of unknown cost,
    which `unknown` counts. `estimated` counts the rows whose usage is an estimate.
    """

    group: str
    calls: int
    failed: int  # calls with an error
    unknown: int
    estimated: int
    cost: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int


class Ledger(Protocol):
    """The rows of the ledger. Every method blocks, and raises StoreError."""

    def book(self, rows: Sequence[LedgerRow]) -> None:
        """Save rows; they are on the disk when this returns. A row whose id is there already is
        skipped, so that a batch may be booked again after a failure or a crash.
        """

    def spent(
        self, by: Literal["key", "tenant", "app"], since: float, until: float | None = None
    ) -> dict[str, int]:
        """Return what each key, tenant or app has spent since then, and before `until`, in
        picodollars. Rows of unknown cost add nothing.
        """

    def sums(self, by: Grouping, which: LedgerFilter) -> list[LedgerSum]:
        """Return the sums of each group, ordered by the group's name. Days are those of UTC,
        written 2026-01-31.
        """

    def sums_by(
        self, groupings: Sequence[Grouping], which: LedgerFilter
    ) -> dict[Grouping, list[LedgerSum]]:
        """Return what `sums` does for each of these, in one look through the rows."""

    def rows(self, which: LedgerFilter, *, limit: int, after: str = "") -> list[LedgerRow]:
        """Return rows, oldest first; `after` is the id of the last row of the page before."""

    def drop_rows(self, before: float) -> int:
        """Delete the rows that are older than this; return how many there were."""


class HistoryRow(Record, frozen=True, kw_only=True):
    """What all metrics counted in the `step_s` seconds before `at`, in `telemetry/history.py`'s own
    compressed form.
    """

    step_s: int
    at: float
    counts: bytes


class HistoryRows(Protocol):
    """What metrics counted over time, and the state of alerts, of each server (`source`). Every
    method blocks, and raises StoreError.
    """

    def save(
        self, source: str, rows: Sequence[HistoryRow], *, drop_before: Mapping[int, float]
    ) -> None:
        """Save rows, and drop those of each `step_s`, of any server, that are older than that."""

    def load(self, source: str, since: float) -> list[HistoryRow]:
        """Return the rows of a server since then, oldest first."""

    def save_alerts(self, source: str, states: Mapping[str, bytes]) -> None:
        """Replace the states of a server's alerts by these."""

    def load_alerts(self, source: str) -> dict[str, bytes]:
        """Return the states of a server's alerts, by their ids."""


class FeedbackFilter(Record, frozen=True, kw_only=True):
    """Which feedback to list: `since` is in seconds since the epoch."""

    app: str | None = None
    helpful: bool | None = None
    since: float = 0.0
    limit: int = 50


FeedbackListing = list[dict[str, Any]]
