"""The routes of feedback: a vote on an answer, a report of a problem, and taking a vote back."""

import time
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway.errors import BadRequest, Conflict, Gone
from slipway.feedback import LONGEST_COMMENT, REASONS, Feedback, Opinion
from slipway.providers import encode_json
from slipway.types import Answered, Asker
from slipway.web.guard import JSON, Guard, Receive, Scope, Send, respond
from slipway.web.routes import ApiRoute, AsgiHandler
from slipway.web.runs import Run, Runs
from slipway.web.wire import fold, parse_json

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
    """The handlers, over one room of feedback. `guard` reads bodies."""

    def __init__(self, feedback: Feedback, runs: Runs, guard: Callable[[], Guard]) -> None:
        self.feedback, self.runs, self.guard = feedback, runs, guard

    async def give(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = checked(parse_json(await self.guard().body(scope, receive), decode))
        asker: Asker = scope["slipway.asker"]
        self.check_ended(said.answer, asker)
        receipt = await self.feedback.give(said, asker)
        await respond(send, 200, JSON, encode_json(receipt))

    async def withdraw(self, request: Request) -> Response:
        answer_id = request.path_params["answer"]
        count = await self.feedback.withdraw(answer_id, request.scope["slipway.asker"])
        return Response(
            encode_json({"answer": answer_id, "withdrawn": count}), media_type="application/json"
        )

    def check_ended(self, answer_id: str, asker: Asker) -> None:
        """Raises Conflict for an answer that may still change."""
        run = self.runs.runs.get(answer_id)
        if run is not None and run.state == "running" and run.question.asker.owner == asker.owner:
            raise Conflict(
                "This answer is still being written.",
                "Send feedback once it has ended.",
                param="answer",
            )

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute("/v1/feedback", AsgiHandler(self.give), methods=["POST"]),
            ApiRoute("/v1/feedback/{answer}", self.withdraw, methods=["DELETE"]),
        ]


def checked(request: FeedbackRequest) -> Opinion:
    """Raises BadRequest, naming the field and the fix."""
    for i, reason in enumerate(request.reasons):
        if reason not in REASONS:
            raise BadRequest(
                f"`reasons[{i}]`: there is no reason `{reason[:50]}`.",
                f"Known: {', '.join(REASONS)}.",
                param=f"reasons[{i}]",
            )
    if len(request.comment) > LONGEST_COMMENT:
        raise BadRequest(
            f"`comment` has {len(request.comment)} characters; {LONGEST_COMMENT} is the limit.",
            "Send a shorter one.",
            param="comment",
        )
    if request.kind == "vote" and request.helpful is None:
        raise BadRequest(
            "`helpful` is missing.",
            'Send `true` or `false`; or `"kind": "report"` to report a problem.',
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
            "Say in `comment` what the problem is, or name `reasons`.",
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


def note_of(run: Run) -> Answered:
    """An answer that has ended, as feedback keeps it; its text only where all of it is still there."""
    question = run.question
    try:
        whole = fold(question.id, run.events)
    except Gone:
        whole = {"text": None, "sources": [], "model": None, "served_by": None, "prompt": None}
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
        question=question.text,
        text=whole["text"],
        sources=sources,
    )
