"""Room 5, what the model reads: standing instructions, the passages as data, the conversation, and
the question.

The standing instructions are a file: `prompt/documents.md`, `prompt/matched.md` for small models,
or an app's own.
"""

import os
import re
from collections.abc import Sequence
from hashlib import blake2b
from importlib.resources import files
from typing import Any

from slipway.types import Message, Question, Source

WITH_PASSAGES = (files("slipway") / "prompt" / "documents.md").read_text(encoding="utf-8").strip()
MATCHED = (
    (files("slipway") / "prompt" / "matched.md").read_text(encoding="utf-8").strip()
)  # for models whose sources are matched
ONE_PART = (
    "\n\nAnswer only this part of it, without a heading; the other parts are answered apart: {part}"
)
HISTORY_CHARS = 24_000  # earlier turns are left out, oldest first, past this
_SECRET = os.urandom(16)
_TAG = re.compile(r"<\s*(/?\s*passages?)", re.IGNORECASE)
_NUMBERED = re.compile(r"^([^\S\n]*)\[(?=\s*\d+\s*\])", re.MULTILINE)


class Prompt:
    """What never changes of what an app's model reads: the standing instructions, which hold where
    there are passages, and further ones.
    """

    def __init__(self, standing: str = WITH_PASSAGES, instructions: str = "") -> None:
        self.standing, self.instructions = standing.strip(), instructions

    def system(self, *, passages: bool) -> str:
        return "\n\n".join(
            part for part in (self.standing if passages else "", self.instructions) if part
        )

    def version(self, *, passages: bool) -> str | None:
        """Another one for each other text; None where the model is told nothing."""
        system = self.system(passages=passages)
        return blake2b(system.encode(), digest_size=6).hexdigest() if system else None


OURS = Prompt()


def build(
    question: Question, sources: Sequence[Source], prompt: Prompt = OURS, part: str = ""
) -> list[dict[str, Any]]:
    """OpenAI messages. What never changes stands first, so that a provider's prefix cache holds it;
    passages are in the last user turn.

    Without passages, the conversation is passed on as it is, images and all. `part` is what alone
    is to be answered of a broad question.
    """
    system = prompt.system(passages=bool(sources))
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    if not sources:
        return messages + [
            {"role": m.role, "content": m.content} for m in trimmed(question.messages)
        ]
    messages += [{"role": m.role, "content": m.content} for m in trimmed(question.messages[:-1])]
    asked = f"Question: {question.text}" + (
        ONE_PART.format(part=harmless(" ".join(part.split()))) if part else ""
    )
    return [*messages, {"role": "user", "content": f"{as_data(sources, question.text)}\n\n{asked}"}]


def as_data(sources: Sequence[Source], question: str) -> str:
    """The passages as numbered blocks that no document can close or imitate: nobody who writes one
    knows the key.

    The key is the same for the same question and passages while this process lives, so that a
    model's caches hold.
    """
    named = [" ".join(f"[{s.n}] {s.path} - {s.heading}".split()) for s in sources]
    texts = [harmless(s.text) for s in sources]
    key = blake2b(
        "\0".join([question, *named, *texts]).encode("utf-8", "replace"), digest_size=4, key=_SECRET
    ).hexdigest()
    blocks = [
        f"<passage {key}>\n{harmless(name, header=True)}\n{text}\n</passage {key}>"
        for name, text in zip(named, texts, strict=True)
    ]
    return "\n".join([f"<passages {key}>", *blocks, f"</passages {key}>"])


def harmless(text: str, *, header: bool = False) -> str:
    """What looks like our own marks is broken up, also for a model that does not heed the key:
    tags, and `[2] …` at the start of a line.
    """
    text = _TAG.sub(r"< \1", text)
    return text if header else _NUMBERED.sub(r"\1\\[", text)


def trimmed(history: Sequence[Message]) -> list[Message]:
    """The latest turns that fit in HISTORY_CHARS; system turns are always kept."""
    kept: list[Message] = []
    left = HISTORY_CHARS
    for message in reversed(history):
        size = len(message.content) if isinstance(message.content, str) else 1_000
        if message.role not in ("system", "developer"):
            left -= size
            if left < 0:
                continue
        kept.append(message)
    return kept[::-1]
