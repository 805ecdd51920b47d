"""Write an error as a client gets it: in OpenAI's form, or as one of our events."""

from typing import Any

from slipway.catalogue import reader_sentences
from slipway.errors import SlipwayError
from slipway.types import Failed, Language, ReaderText


def envelope(error: SlipwayError, ref: str, language: Language) -> dict[str, Any]:
    """Return an error in OpenAI's form, with our fields under `slipway`.

    `language` is the language of the person who asked.
    """
    return {
        "error": {
            "message": f"{error.what} {error.next}".strip(),
            "type": error.type,
            "param": error.param,
            "code": error.code,
            "slipway": {
                "what": error.what,
                "next": error.next,
                "retryable": error.retryable,
                "retry_after_s": error.retry_after_s,
                "ref": ref,
                "reader": reader_text(error, language),
            },
        }
    }


def reader_text(error: SlipwayError, language: Language) -> ReaderText:
    """Return the error message for the person who asked."""
    what, then = reader_sentences(error, language)
    return ReaderText(what=what, next=then, language=language)


def failed_event(
    error: SlipwayError, ref: str, language: Language, section: int | None = None
) -> Failed:
    return Failed(
        code=error.code,
        what=error.what,
        next=error.next,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        ref=ref,
        section=section,
        reader=reader_text(error, language),
    )
