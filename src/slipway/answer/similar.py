"""Answers of similar questions: look them up, and learn from the answers that models write."""

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from slipway.answer.same_answer import is_same
from slipway.answer.settlement import Tally
from slipway.cache import KeptAnswer, digest
from slipway.cache.keys import plain
from slipway.cache.semantic import LookUp, NearQuestion, SemanticIndex
from slipway.cache.semantic_bound import BoundState
from slipway.cache.semantic_cache import LONGEST, SemanticPolicy
from slipway.routing import ask_briefly
from slipway.types import Question, Record, SemanticLooked

if TYPE_CHECKING:
    from slipway.answer.kept_answers import KeptAsk

NOT_SET = "The app has no `cache: {semantic: …}`, or has `stakes: high`."
NO_VECTOR = (
    "The question cannot be compared: the embedding does not know its script, or could not be "
    "opened; the server's log says which."
)
_TRIES = 4  # kept questions whose answers are no longer true, before nothing is found
_COMPARED = 3  # answers that a fresh one is compared with
_JUDGE_S = 20.0
_JUDGE_TOKENS = 400


class SimilarAnswer(Record, frozen=True, kw_only=True):
    """What was decided about a question. `entry` is the kept answer of the nearest question."""

    policy: SemanticPolicy
    index: SemanticIndex
    found: LookUp
    entry: KeptAnswer | None

    @property
    def is_served(self) -> bool:
        return self.found.verdict == "serve" and self.entry is not None


def why_not(question: Question) -> str | None:
    """Return why a question is not compared with others; None if it is.

    Only a question that is complete in itself is: the first one of a conversation.
    """
    if any(message.role not in ("system", "developer") for message in question.messages[:-1]):
        return "it is part of a conversation"
    if not question.messages or not isinstance(question.messages[-1].content, str):
        return "it is more than text"
    return f"it is longer than {LONGEST} characters" if len(question.text) > LONGEST else None


async def look(asked: "KeptAsk") -> SimilarAnswer | None:
    """Find the answer of a similar question, and decide whether it is served; None if this app or
    question has none.
    """
    similar = await search(asked)
    if similar is None:
        return None
    found = similar.index.decide(similar.found)
    asked.pipeline.emit(
        SemanticLooked(
            app=asked.app.name,
            outcome=found.verdict if found.best is not None else "none",
            refused=tuple(near.refused for near in found.near if near.refused),
        )
    )
    return msgspec.structs.replace(similar, found=found)


async def search(asked: "KeptAsk") -> SimilarAnswer | None:
    """Find the nearest question whose answer is still true, without deciding anything."""
    policy, question = asked.policy.semantic, asked.question
    if policy is None or why_not(question) is not None:
        return None
    vector = await asyncio.to_thread(policy.embed, question.text)
    if vector is None:
        return None
    index = asked.cache.semantic.index(question.asker.tenant, asked.app.name, policy)
    partition = partition_of(asked)
    for _ in range(_TRIES):
        found = await asyncio.to_thread(index.find, question.text, vector, partition)
        if found.best is None:
            return SimilarAnswer(policy=policy, index=index, found=found, entry=None)
        entry = await asked.kept_under(str(found.best.key))
        if entry is not None:
            return SimilarAnswer(policy=policy, index=index, found=found, entry=entry)
        index.remove(found.best.key)
    nothing = LookUp(text=question.text, partition=partition, vector=vector)
    return SimilarAnswer(policy=policy, index=index, found=nothing, entry=None)


def partition_of(asked: "KeptAsk") -> str:
    """Return what two questions must have in common besides their meaning: tenant, app with its
    prompt and models, readable groups, filters, parameters, and the messages before.
    """
    question = asked.question
    return digest(
        "semantic",
        asked.policy.identity,
        question.asker.tenant,
        asked.scope,
        question.messages[:-1],
        plain(question.options),
        question.within,
    )


async def learn(asked: "KeptAsk", similar: SimilarAnswer, fresh: KeptAnswer | None) -> None:
    """Compare a fresh answer with those that were near, and keep its question."""
    index, found, policy = similar.index, similar.found, similar.policy
    if fresh is None:
        index.undecided(found.verdict)
        return
    said, same = asked.said(fresh, asked.question.text), list[bool | None]()
    for near in found.groups[:_COMPARED]:
        is_best = found.best is not None and near.key == found.best.key
        kept = similar.entry if is_best else await asked.cache.get(str(near.key))
        same.append(
            None
            if kept is None
            else await is_same(
                policy.compare,
                asked.said(kept, near.text),
                said,
                lambda prompt: ask_judge(asked, policy, prompt),
            )
        )
        if same[-1] or policy.compare == "judge":
            break
    index.learn(found, same, fresh.key)
    asked.cache.semantic.note(asked.question.id, index, fresh.key, found)
    if found.best is not None:
        outcome = {True: "same", False: "different", None: "unknown"}[same[0]]
        asked.pipeline.emit(SemanticLooked(app=asked.app.name, outcome=outcome))


async def ask_judge(asked: "KeptAsk", policy: SemanticPolicy, prompt: str) -> str | None:
    """Return what the judge says; None if it could not be asked."""
    pipeline = asked.pipeline
    route = pipeline.routes.get(policy.judge or "")
    if route is None:
        return None
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    question = asked.question
    tally = Tally(question.id, "judge", asked.app.name, question.asker, False, pipeline.books)
    tally.grant = pipeline.admission.for_calls(question.asker, asked.app.name)
    context = tally.context(
        pipeline.emit,
        until=0.0,
        retry_until=0.0,
        charge=lambda took: tally.charge(took, "side"),
    )
    return await ask_briefly(
        route, messages, context, max_tokens=_JUDGE_TOKENS, deadline_s=_JUDGE_S
    )


class SimilarityExplained(Record, frozen=True, kw_only=True):
    """Why a question would be answered from a similar one, or why not.

    `outcome` is `served`, `shadow` (there is a candidate, but it has not earned it yet, or its
    score is too low), `none` (no candidate) or `off`; `why` says more.
    """

    app: str
    question: str
    outcome: str
    why: str
    score: float | None = None
    near: tuple[NearQuestion, ...] = ()
    bound: BoundState | None = None
    questions: int = 0


async def explain(asked: "KeptAsk") -> SimilarityExplained:
    """Say what would happen to a question, without counting or asking anything."""
    question, policy = asked.question, asked.policy.semantic
    explained = SimilarityExplained(
        app=asked.app.name, question=question.text, outcome="off", why=NOT_SET
    )
    if policy is None:
        return explained
    if (why := why_not(question)) is not None:
        return msgspec.structs.replace(explained, why=f"The question is not compared: {why}.")
    await asked.look()
    similar = await search(asked)
    if similar is None:
        return msgspec.structs.replace(explained, why=NO_VECTOR)
    found, state = similar.found, similar.index.bound.state()
    outcome, why = "none", "No kept question is near, or guards refuse those that are."
    if found.best is not None:
        is_served = state.serving and found.score >= state.threshold
        outcome = "served" if is_served else "shadow"
        why = reason_for(found.score, state)
    return msgspec.structs.replace(
        explained,
        outcome=outcome,
        why=why,
        score=found.score if found.best is not None else None,
        near=found.near,
        bound=state,
        questions=len(similar.index),
    )


def reason_for(score: float, state: BoundState) -> str:
    """Say what decides about a candidate."""
    if not state.serving:
        return (
            f"Nothing is served yet: {state.wrong_above} of {state.above} checks above the score "
            f"{state.threshold:g} were wrong, so the error may be up to {state.per_hit:.1%}; "
            f"{state.max_error:.1%} is allowed per {state.per}."
        )
    if score < state.threshold:
        return f"Its score {score:.3f} is below {state.threshold:g}."
    return (
        f"Its score {score:.3f} is at least {state.threshold:g}; {state.share:.0%} of such "
        "questions are checked all the same."
    )
