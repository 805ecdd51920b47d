"""What people say of answers: votes and reports, each saved beside the answer that it is about.

A small row of every app answer goes into the store (no text), so that it can be voted on for
KEPT_DAYS. The texts of the latest answers are held in memory, and are saved only with a vote. One
thread writes: a vote is acknowledged once it is on the disk.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar, TypeVarTuple

from slipway.errors import BadRequest, NotFound, NotKept, SettingsError, StorageFull
from slipway.store import FeedbackRow, Records, SavedFeedback, Store, StoreError
from slipway.types import Answered, Asker, FeedbackGiven, Record

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")
log = logging.getLogger("slipway")
REASONS = {
    "wrong": "something in it is not true",
    "incomplete": "something that matters is missing",
    "outdated": "it was true once",
    "wrong_source": "a source does not say what it is cited for",
    "unclear": "it is hard to understand",
    "too_long": "it says more than was asked",
    "slow": "it took too long",
    "harmful": "it could do harm, or should not have been shown",
    "other": "anything else, best with a comment",
}
LONGEST_COMMENT = 4000  # characters
KEPT_DAYS = 30
MOST_NOTED = 200_000  # answers that can be voted on; the oldest are dropped first
TEXTS = 8 * 1024 * 1024  # characters of questions and answers in memory
MOST_UNWRITTEN = 10_000  # notes held while the store cannot be written
WRITE_S = 1.0  # how long notes wait for others, to be written together
_NEXT = (
    "Tell the operator: start the server with a `store:` of its own that can be written, or stop "
    "the other process."
)


class Opinion(Record, frozen=True, kw_only=True):
    """A vote or report on an answer, checked; `section` is None for the whole answer."""

    answer: str
    kind: Literal["vote", "report"] = "vote"
    helpful: bool | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""
    section: int | None = None


class Receipt(Record, frozen=True, kw_only=True):
    """What was saved; `replaced` if the same asker had voted on it before."""

    id: str
    answer: str
    kind: str
    replaced: bool


class Feedback:
    """Note answers, and save what people say of them.

    The store is opened by the first answer that is noted, in the thread that writes.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        emit: Callable[[FeedbackGiven], None],
        called_wrong: Callable[[str], None] = lambda answer_id: None,
    ) -> None:
        """`called_wrong` is called with the id of an answer that somebody votes down or reports."""
        self._store, self._emit, self._called_wrong = store, emit, called_wrong
        self._thread = ThreadPoolExecutor(1, "feedback")
        self._records: Records | None = None
        self._texts: OrderedDict[str, Answered] = OrderedDict()
        self._held = 0  # characters in _texts
        self._pending: list[Answered] = []  # touched on the loop only
        self._unwritten: list[Answered] = []  # touched in the thread only
        self._timer: asyncio.TimerHandle | None = None
        self._warned = False

    # answers that may be voted on

    def note(self, answered: Answered) -> None:
        """Remember an answer that has ended, however it ended."""
        if before := self._texts.pop(answered.id, None):
            self._held -= before.size
        self._texts[answered.id] = answered
        self._held += answered.size
        while self._held > TEXTS:
            self._held -= self._texts.popitem(last=False)[1].size
        self._pending.append(answered)
        self._timer = self._timer or asyncio.get_running_loop().call_later(
            WRITE_S, self._write_pending
        )

    def _write_pending(self) -> None:
        self._timer = None
        notes, self._pending = self._pending, []
        self._thread.submit(self._write_notes, notes)

    def _write_notes(self, notes: list[Answered]) -> None:
        self._unwritten += notes
        try:
            self._call(
                lambda records: records.note_answers(
                    self._unwritten, days=KEPT_DAYS, at_most=MOST_NOTED
                )
            )
            self._unwritten, self._warned = [], False
        except NotKept as error:
            del self._unwritten[:-MOST_UNWRITTEN]
            if not self._warned:
                log.warning(
                    "votes cannot be saved, and older answers can no longer be voted on: %s",
                    error.what,
                )
            self._warned = True

    def _call(self, verb: Callable[[Records], Result]) -> Result:
        """Call a verb of the records of a lasting store. Raises NotKept if that fails."""
        try:
            self._records = self._records or self._open()
            return verb(self._records)
        except SettingsError as error:
            raise NotKept(f"Feedback cannot be saved: {error.problems[0]}.", _NEXT) from None
        except StoreError as error:
            if StorageFull.explains(error):
                raise StorageFull("Feedback cannot be saved: the disk is full.") from None
            raise NotKept(
                f"Feedback cannot be saved: the store cannot be written ({error})."
            ) from None

    def _open(self) -> Records:
        store = self._store()
        if not store.lasting:
            raise NotKept(
                "Feedback cannot be saved: the store is in use by another process, or cannot be "
                "written.",
                _NEXT,
            )
        return store.records

    # what is said of them

    async def give(self, opinion: Opinion, asker: Asker) -> Receipt:
        """Save an opinion in place of what the same asker said before.

        Raises NotFound if the answer is unknown or another key's, and NotKept.
        """
        app, saved = await self._in_thread(self._save, opinion, asker)
        if opinion.kind == "report" or opinion.helpful is False:
            self._called_wrong(opinion.answer)
        if not saved.replaced:
            self._emit(FeedbackGiven(app=app, kind=opinion.kind, helpful=opinion.helpful))
        return Receipt(
            id=saved.id, answer=opinion.answer, kind=opinion.kind, replaced=saved.replaced
        )

    async def withdraw(self, answer_id: str, asker: Asker) -> int:
        """Delete the votes on an answer, but not the reports; return how many there were."""
        return await self._in_thread(self._withdraw, answer_id, asker)

    async def _in_thread(
        self, function: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Call the function in the writing thread; it ends even if the client leaves."""
        return await asyncio.shield(
            asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        )

    def _answered(self, answer_id: str, owner: str) -> Answered:
        found = self._texts.get(answer_id)
        if found is None:
            found = self._call(lambda records: records.find_answer(answer_id))
        if found is None or found.owner != owner:
            raise NotFound(
                "There is no answer of that id to vote on.",
                "Check the id: answers belong to the key that asked, and take votes for "
                f"{KEPT_DAYS} days.",
                param="answer",
            )
        return found

    def _save(self, opinion: Opinion, asker: Asker) -> tuple[str, SavedFeedback]:
        about = self._answered(opinion.answer, asker.owner)
        if opinion.section is not None and opinion.section >= about.sections:
            raise BadRequest(
                f"The answer has no section {opinion.section}.",
                "Send the index of one of its sections, from 0; leave it out for the whole answer.",
                param="section",
            )
        row = FeedbackRow(
            kind=opinion.kind,
            section=opinion.section,
            helpful=opinion.helpful,
            reasons=opinion.reasons,
            comment=opinion.comment,
            about=about,
        )
        return about.app, self._call(lambda records: records.save_feedback(row))

    def _withdraw(self, answer_id: str, asker: Asker) -> int:
        self._answered(answer_id, asker.owner)
        return self._call(lambda records: records.withdraw_votes(answer_id))

    async def close(self) -> None:
        """Write the last notes, and end the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._write_pending()
        await asyncio.to_thread(self._thread.shutdown)
