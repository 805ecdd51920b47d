"""Build what the model reads: standing instructions, the passages as data, the conversation, and
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

DEFAULT_INSTRUCTIONS = (
    (files("slipway") / "prompt" / "documents.md").read_text(encoding="utf-8").strip()
)
# For models that cannot cite: Slipway attributes their sentences to sources itself
SMALL_MODEL_INSTRUCTIONS = (
    (files("slipway") / "prompt" / "matched.md").read_text(encoding="utf-8").strip()
)
ONE_PART_ONLY = (
    "\n\nAnswer only this part of it, without a heading; the other parts are answered apart: {part}"
)
HISTORY_CHARS = 24_000  # beyond this, the oldest turns are left out
_SECRET = os.urandom(16)
_TAG = re.compile(r"<\s*(/?\s*passages?)", re.IGNORECASE)
_NUMBERED = re.compile(r"^([^\S\n]*)\[(?=\s*\d+\s*\])", re.MULTILINE)


class Prompt:
    """Hold the fixed part of an app's prompt: `standing` instructions, used if there are passages,
    and the app's own `instructions`.
    """

    def __init__(self, standing: str = DEFAULT_INSTRUCTIONS, instructions: str = "") -> None:
        self.standing, self.instructions = standing.strip(), instructions

    def system(self, *, passages: bool) -> str:
        """Return the system message."""
        return "\n\n".join(
            part for part in (self.standing if passages else "", self.instructions) if part
        )

    def version(self, *, passages: bool) -> str | None:
        """Return a short hash of the system message; None if it is empty."""
        system = self.system(passages=passages)
        return blake2b(system.encode(), digest_size=6).hexdigest() if system else None


DEFAULT_PROMPT = Prompt()


def build(
    question: Question, sources: Sequence[Source], prompt: Prompt = DEFAULT_PROMPT, part: str = ""
) -> list[dict[str, Any]]:
    """Return OpenAI messages. The fixed part comes first, so that a provider's prefix cache can
    hold it; passages are in the last user turn.

    Without passages, the conversation is passed on unchanged, images included. `part` is the part
    of a broad question to answer.
    """
    system = prompt.system(passages=bool(sources))
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    if not sources:
        return messages + [
            {"role": m.role, "content": m.content} for m in trim_history(question.messages)
        ]
    messages += [
        {"role": m.role, "content": m.content} for m in trim_history(question.messages[:-1])
    ]
    asked = f"Question: {question.text}" + (
        ONE_PART_ONLY.format(part=neutralize(" ".join(part.split()))) if part else ""
    )
    return [
        *messages,
        {"role": "user", "content": f"{passages_as_data(sources, question.text)}\n\n{asked}"},
    ]


def passages_as_data(sources: Sequence[Source], question: str) -> str:
    """Return the passages as numbered blocks that no document can close or imitate, since their key
    is secret.

    The key is the same for the same question and passages while this process lives, so that
    provider caches hit.
    """
    named = [" ".join(f"[{s.n}] {s.path} - {s.heading}".split()) for s in sources]
    texts = [neutralize(s.text) for s in sources]
    key = blake2b(
        "\0".join([question, *named, *texts]).encode("utf-8", "replace"), digest_size=4, key=_SECRET
    ).hexdigest()
    blocks = [
        f"<passage {key}>\n{neutralize(name, header=True)}\n{text}\n</passage {key}>"
        for name, text in zip(named, texts, strict=True)
    ]
    return "\n".join([f"<passages {key}>", *blocks, f"</passages {key}>"])


def neutralize(text: str, *, header: bool = False) -> str:
    """Break up text that looks like our own marks, for models that ignore the key: tags, and `[2]
    …` at the start of a line.
    """
    text = _TAG.sub(r"< \1", text)
    return text if header else _NUMBERED.sub(r"\1\\[", text)


def trim_history(history: Sequence[Message]) -> list[Message]:
    """Return the latest turns that fit in HISTORY_CHARS; keep all system turns."""
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
