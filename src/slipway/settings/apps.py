"""The settings of apps."""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from slipway.settings.caching import CacheSettings
from slipway.settings.keys import Allowance
from slipway.settings.values import Branch
from slipway.types import MAX_SECTIONS


class AccessRule(Branch, frozen=True, kw_only=True):
    path: Annotated[
        str,
        Meta(min_length=1, description="which documents: `hr/**`, `*.pdf`, `handbook/salaries.md`"),
    ]
    groups: Annotated[
        tuple[str, ...],
        Meta(description="groups that may read them; `*` means everybody, an empty list nobody"),
    ]


class RulesSettings(Branch, frozen=True, kw_only=True):
    shorthand: ClassVar[str | None] = "file"
    file: Annotated[
        str, Meta(min_length=1, description="file of rules, relative to the settings file")
    ]
    precision: Annotated[
        str,
        Meta(
            description="how often an intent must be right on questions held out of its examples; "
            "below that it does not answer"
        ),
    ] = "98%"
    collect: Annotated[
        bool,
        Meta(
            description="keep the texts of questions and answers in the store, for "
            "`slipway rules suggest`"
        ),
    ] = False


class AppSettings(Branch, frozen=True, kw_only=True):
    limits: Annotated[
        Allowance | None, Meta(description="limits of the app, for all who ask it together")
    ] = None
    about: Annotated[
        str, Meta(max_length=500, description="what it is for, as the page shows it")
    ] = ""
    examples: Annotated[
        tuple[str, ...],
        Meta(
            max_length=8,
            description="questions that the page offers; questions from the documents if left out",
        ),
    ] = ()
    knowledge: Annotated[
        tuple[str, ...],
        Meta(description="folders or files to answer from, relative to the settings file"),
    ] = ()
    rules: Annotated[
        RulesSettings | None, Meta(description="rules that answer before anything else is tried")
    ] = None
    route: Annotated[
        str | None,
        Meta(description="route or model that writes answers; default: none, documents are quoted"),
    ] = None
    small: Annotated[
        str | None,
        Meta(
            description="a small model that rewrites follow-ups and plans sections; "
            "default: none, only rules"
        ),
    ] = None
    prompt: Annotated[
        str | None,
        Meta(
            description="file that replaces the built-in instructions, "
            "relative to the settings file"
        ),
    ] = None
    instructions: Annotated[str, Meta(description="more instructions for the model")] = ""
    defaults: Annotated[
        dict[str, Any],
        Meta(description="model parameters, such as `temperature`, if a request sets none"),
    ] = {}
    stakes: Annotated[
        Literal["normal", "high"],
        Meta(
            description="`high` if a wrong answer may do harm: answers of similar questions are "
            "never served"
        ),
    ] = "normal"
    access: Annotated[
        tuple[AccessRule, ...],
        Meta(description="who may read which documents; the first matching rule applies"),
    ] = ()
    rerank: Annotated[
        str | None,
        Meta(
            description="`module:function` that scores texts for a question: "
            "(question, texts) -> numbers"
        ),
    ] = None
    cite: Annotated[
        Literal["model", "match"] | None,
        Meta(
            description="who adds the citations: the `model`, or Slipway by `match`ing words. "
            "Default: `match` if all models of the route are local"
        ),
    ] = None
    passages: Annotated[
        Annotated[int, Meta(ge=1, le=50)] | None,
        Meta(
            description="passages for an answer, or for each of its sections; "
            "default: 5, or 3 if all models of the route are local",
        ),
    ] = None
    sections: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_SECTIONS,
            description="most sections of an answer, each a call; 1 turns sections off",
        ),
    ] = 4
    cache: Annotated[
        CacheSettings | None,
        Meta(description="keep answers for the same question; default: every question is answered"),
    ] = None
