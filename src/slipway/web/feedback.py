"""The routes of feedback: vote on an answer, report a problem, and withdraw a vote."""

import time
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway.errors import BadRequest, Conflict, Gone, NotFound, NotKept, StorageFull
from slipway.feedback import LONGEST_COMMENT, REASONS, Feedback, Opinion
from slipway.types import MAX_SECTIONS, Answered, Asker, Question
from slipway.web.descriptions import TEXT, WHOLE, Operation, fields
from slipway.web.guard import Guard
from slipway.web.request_json import parse_json
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute
from slipway.web.runs import Run, Runs
from slipway.web.whole_answers import whole_answer

MAX_QUESTION = 8_000  # characters of a question that feedback keeps
MAX_KB = 64.0  # of a vote or report
_SOURCE = ("n", "id", "path", "heading", "page", "version")


class FeedbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    answer: str
    kind: Literal["vote", "report"] = "vote"
    helpful: bool | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""
    section: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None


decode = msgspec.json.Decoder(FeedbackRequest).decode


class FeedbackRoutes:
    """The handlers. `guard` reads request bodies."""

    def __init__(self, feedback: Feedback, runs: Runs, guard: Callable[[], Guard]) -> None:
        self.feedback, self.runs, self.guard = feedback, runs, guard

    async def give(self, request: Request) -> Response:
        """Store a vote or report."""
        body = await self.guard().body(request.scope, request.receive, MAX_KB)
        opinion = checked(parse_json(body, decode))
        asker: Asker = request.scope["slipway.asker"]
        self.check_ended(opinion.answer, asker)
        return reply(await self.feedback.give(opinion, asker))

    async def withdraw(self, request: Request) -> Response:
        """Delete the asker's votes on an answer."""
        answer_id = request.path_params["answer"]
        count = await self.feedback.withdraw(answer_id, request.scope["slipway.asker"])
        return reply({"answer": answer_id, "withdrawn": count})

    def check_ended(self, answer_id: str, asker: Asker) -> None:
        """Raise Conflict if the answer is still being written."""
        run = self.runs.runs.get(answer_id)
        if run is not None and run.state == "running" and run.question.asker.owner == asker.owner:
            raise Conflict(
                "This answer is still being written.",
                "Send feedback after its end.",
                param="answer",
            )

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/feedback",
                self.give,
                methods=["POST"],
                does=Operation(
                    about="keeps what somebody says of an answer",
                    body=FeedbackRequest,
                    errors=(NotFound, Conflict, NotKept, StorageFull),
                ),
            ),
            ApiRoute(
                "/v1/feedback/{answer}",
                self.withdraw,
                methods=["DELETE"],
                does=Operation(
                    about="takes a vote back",
                    returns=fields(answer=TEXT, withdrawn=WHOLE),
                    errors=(NotFound, NotKept, StorageFull),
                ),
            ),
        ]


def checked(request: FeedbackRequest) -> Opinion:
    """Return the vote or report. Raise BadRequest that names the invalid field and the fix."""
    for i, reason in enumerate(request.reasons):
        if reason not in REASONS:
            raise BadRequest(
                f"`reasons[{i}]`: `{reason[:50]}` is not a known reason.",
                f"Known: {', '.join(REASONS)}.",
                param=f"reasons[{i}]",
            )
    if len(request.comment) > LONGEST_COMMENT:
        raise BadRequest(
            f"`comment` has {len(request.comment)} characters; the limit is {LONGEST_COMMENT}.",
            "Send a shorter comment.",
            param="comment",
        )
    if request.kind == "vote" and request.helpful is None:
        raise BadRequest(
            "`helpful` is missing.",
            'Send `true` or `false`, or `"kind": "report"` to report a problem.',
            param="helpful",
        )
    if request.kind == "report" and request.helpful is not None:
        raise BadRequest(
            "`helpful` belongs to a vote, not to a report.",
            "Leave it out, or leave `kind` out.",
            param="helpful",
        )
    if request.kind == "report" and not request.reasons and not request.comment.strip():
        raise BadRequest(
            "`comment` is empty.",
            "Describe the problem in `comment`, or list `reasons`.",
            param="comment",
        )
    return Opinion(
        answer=request.answer,
        kind=request.kind,
        helpful=request.helpful,
        reasons=tuple(dict.fromkeys(request.reasons)),
        comment=request.comment.strip(),
        section=request.section,
    )


def answered_record(run: Run, *, alone: bool) -> Answered:
    """Return the record of a finished answer; without its text if a part has expired. `alone` says
    whether the question was asked without anything that its text does not show.
    """
    question = run.question
    try:
        whole = whole_answer(question.id, run.events)
    except Gone:
        whole = {
            "sections": (),
            "text": None,
            "sources": [],
            "model": None,
            "served_by": None,
            "prompt": None,
            "abstained": True,
        }
    sources = tuple(
        {name: getattr(s, name) for name in _SOURCE} for s in whole["sources"] if s.cited
    )
    return Answered(
        id=question.id,
        at=time.time(),
        tenant=question.asker.tenant,
        owner=question.asker.owner,
        app=question.app,
        model=whole["model"],
        served_by=whole["served_by"],
        prompt=whole["prompt"],
        question=question.text[:MAX_QUESTION],
        sections=max(1, len(whole["sections"])) if whole["text"] is not None else MAX_SECTIONS,
        text=whole["text"],
        sources=sources,
        groups=tuple(sorted(question.asker.groups)),
        # it is called with the last event, just before the state is `done`
        is_whole=run.state in ("running", "done") and not whole["abstained"] and alone,
    )


def is_alone(question: Question) -> bool:
    """Return whether a question was asked without anything that its text does not show."""
    return len(question.messages) == 1 and not question.attached and question.within is None
