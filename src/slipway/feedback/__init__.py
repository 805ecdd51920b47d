"""What people say of answers: votes and reports, each saved beside the answer that it is about.

A small row of every app answer goes into the store (no text), so that it can be voted on for
KEPT_DAYS. The texts of the latest answers are held in memory, and are saved only with a vote. A
vote is acknowledged once it is on the disk: in the store, or in the journal while the store is
down.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar, TypeVarTuple

import msgspec

from slipway.errors import BadRequest, NotFound, NotKept, StorageFull
from slipway.store import (
    ANSWERS_KEPT_DAYS,
    FeedbackRow,
    Records,
    RecordStore,
    RowError,
    RowWriter,
    SavedFeedback,
    StoreError,
    Withdrawal,
)
from slipway.types import Answered, Asker, FeedbackGiven, Record, new_id

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
KEPT_DAYS = ANSWERS_KEPT_DAYS
TEXTS = 8 * 1024 * 1024  # characters of questions and answers in memory


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

    Votes are saved in a thread of their own, one after the other.
    """

    def __init__(
        self,
        store: Callable[[], RecordStore],
        writer: RowWriter,
        emit: Callable[[FeedbackGiven], None],
        called_wrong: Callable[[str], None] = lambda answer_id: None,
    ) -> None:
        """`called_wrong` is called with the id of an answer that somebody votes down or reports."""
        self._store, self._writer, self._emit = store, writer, emit
        self._called_wrong = called_wrong
        self._thread = ThreadPoolExecutor(1, "feedback")
        self._texts: OrderedDict[str, Answered] = OrderedDict()
        self._held = 0  # characters in _texts

    # answers that may be voted on

    def note(self, answered: Answered) -> None:
        """Remember an answer that has ended, however it ended."""
        if before := self._texts.pop(answered.id, None):
            self._held -= before.size
        self._texts[answered.id] = answered
        self._held += answered.size
        while self._held > TEXTS:
            self._held -= self._texts.popitem(last=False)[1].size
        self._writer.add(msgspec.structs.replace(answered, question=None, text=None, sources=()))

    def _call(self, verb: Callable[[Records], Result]) -> Result:
        """Call a verb of the records. Raises NotKept if that fails."""
        try:
            return verb(self._store().records)
        except StoreError as error:
            raise NotKept(
                f"Feedback cannot be saved: the store cannot be read ({error})."
            ) from None

    # what is said of them

    async def give(self, opinion: Opinion, asker: Asker) -> Receipt:
        """Save an opinion in place of what the same asker said before.

        Raises NotFound if the answer is unknown or another key's, and NotKept.
        """
        app, saved = await self._in_thread(self._save, opinion, asker)
        if opinion.kind == "report" or opinion.helpful is False:
            self._called_wrong(opinion.answer)
        if not saved.replaced:
            self._emit(
                FeedbackGiven(
                    app=app, kind=opinion.kind, helpful=opinion.helpful, answer=opinion.answer
                )
            )
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
            id=new_id("fb"),
            at=time.time(),
        )
        return about.app, self._saved_or_kept(
            row,
            lambda records: records.save_feedback(row),
            SavedFeedback(id=row.id, replaced=False),
        )

    def _withdraw(self, answer_id: str, asker: Asker) -> int:
        self._answered(answer_id, asker.owner)
        row = Withdrawal(answer=answer_id, at=time.time())
        return self._saved_or_kept(
            row, lambda records: records.withdraw_votes(answer_id, row.at), 1
        )

    def _saved_or_kept(
        self, row: FeedbackRow | Withdrawal, save: Callable[[Records], Result], otherwise: Result
    ) -> Result:
        """Save a row, or keep it in the journal while the store is down, and return `otherwise`.

        Raises NotKept if neither is possible.
        """
        if self._writer.trouble is None:
            try:
                return save(self._store().records)
            except RowError as error:
                raise NotKept(f"Feedback cannot be saved ({error}).") from None
            except StoreError as error:
                log.info("a vote waits in the journal: %s", error)
        if not self._writer.add(row, sync=True):
            raise StorageFull(
                "Feedback cannot be saved: neither the store nor the journal can be written."
            )
        return otherwise

    async def close(self) -> None:
        """End the thread."""
        await asyncio.to_thread(self._thread.shutdown)
