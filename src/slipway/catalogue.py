"""The error messages for people who ask questions: what happened and what to do, in English and
Chinese.

An error's own `what` and `next` are for developers and operators: they name models, fields and
settings. The sentences here name none, blame nobody, and are the same for all errors of a code;
only the time to wait is filled in.
"""

import math
import re
from collections.abc import Callable
from typing import cast, get_args

from slipway.errors import SlipwayError
from slipway.types import Language

LANGUAGES: tuple[Language, ...] = get_args(Language)
RETRY = "{again}"  # the place of the sentence that says when to try again
# The error's code -> what happened, what to do
CATALOGUE: dict[str, dict[Language, tuple[str, str]]] = {
    "bad_request": {
        "en": (
            "What you sent could not be understood.",
            "Write it in another way and send it again.",
        ),
        "zh": ("无法理解发送的内容。", "请换一种写法后重新发送。"),
    },
    "unsupported_media_type": {
        "en": (
            "What you sent has a form that cannot be read here.",
            "Reload the page and send it again.",
        ),
        "zh": ("不支持发送的格式。", "请刷新页面后重新发送。"),
    },
    "invalid_api_key": {
        "en": (
            "The key is missing or unknown.",
            "Check it, or ask the operator for a new one.",
        ),
        "zh": ("缺少密钥，或密钥不正确。", "请检查密钥，或向管理员索取新的密钥。"),
    },
    "sign_in_refused": {
        "en": ("You could not be signed in.", "Sign in again, or tell the operator."),
        "zh": ("登录失败。", "请重新登录，或联系管理员。"),
    },
    "sign_in_unavailable": {
        "en": ("The sign-in service cannot be reached.", "Try again in a moment."),
        "zh": ("无法连接登录服务。", "请稍后重试。"),
    },
    "keys_unavailable": {
        "en": ("Your key cannot be checked now.", "Try again in a moment."),
        "zh": ("目前无法验证您的密钥。", "请稍后重试。"),
    },
    "forbidden": {
        "en": ("You do not have permission to do this.", "Ask the operator for access."),
        "zh": ("您没有权限执行此操作。", "请向管理员申请权限。"),
    },
    "not_found": {
        "en": ("This does not exist, or not any more.", "Ask the question again."),
        "zh": ("该内容不存在或已被删除。", "请重新提问。"),
    },
    "model_not_found": {
        "en": ("There is no model or app with this name.", "Choose another one and ask again."),
        "zh": ("没有这个名称的模型或应用。", "请选择其他模型或应用后重新提问。"),
    },
    "not_cached": {
        "en": ("Nobody has asked this before.", "Ask the question again in the usual way."),
        "zh": ("此前没有人问过这个问题。", "请以通常方式重新提问。"),
    },
    "method_not_allowed": {
        "en": ("This action is not supported here.", "Reload the page and try again."),
        "zh": ("此处不支持该操作。", "请刷新页面后再试一次。"),
    },
    "conflict": {
        "en": (
            "This is not possible right now.",
            "Reload the page to see the current state.",
        ),
        "zh": ("目前无法执行此操作。", "请刷新页面查看最新情况。"),
    },
    "gone": {
        "en": ("This answer has expired.", "Ask the question again."),
        "zh": ("此回答已过期。", "请重新提问。"),
    },
    "too_large": {
        "en": (
            "What you sent is too large.",
            "Make it shorter or smaller and send it again.",
        ),
        "zh": ("发送的内容太大。", "请缩短或缩小后重新发送。"),
    },
    "head_too_large": {
        "en": (
            "The browser sent too much data with the question.",
            "Open the page in a private window, or tell the operator.",
        ),
        "zh": ("浏览器随问题发送的附加数据太多。", "请在无痕窗口中打开页面，或告诉管理员。"),
    },
    "overloaded": {
        "en": ("The service is busy with other questions.", RETRY),
        "zh": ("服务正忙于回答其他问题。", RETRY),
    },
    "stopping": {
        "en": ("The service was stopped before this answer was complete.", RETRY),
        "zh": ("服务在回答完成前停止了。", RETRY),
    },
    "not_kept": {
        "en": (
            "This could not be saved.",
            f"{RETRY} If it happens again, tell the operator.",
        ),
        "zh": ("内容未能保存。", f"{RETRY}若再次发生，请告诉管理员。"),
    },
    "storage_full": {
        "en": (
            "This could not be saved: the storage is full.",
            f"{RETRY} Please tell the operator.",
        ),
        "zh": ("存储空间已满，内容未能保存。", f"{RETRY}请告诉管理员。"),
    },
    "cancelled": {
        "en": ("The answer was stopped.", "Try again if you want the rest."),
        "zh": ("回答已停止。", "如需其余内容，请重试。"),
    },
    "internal_error": {
        "en": (
            "Something went wrong in this service.",
            f"{RETRY} If it happens again, tell the operator the reference.",
        ),
        "zh": ("服务出现内部错误。", f"{RETRY}若再次发生，请把编号告诉管理员。"),
    },
    "provider_error": {
        "en": ("The model could not answer.", RETRY),
        "zh": ("模型未能回答。", RETRY),
    },
    "provider_refused": {
        "en": ("The model rejected this question.", "Ask it in another way."),
        "zh": ("模型拒绝了这个问题。", "请换一种问法。"),
    },
    "content_policy": {
        "en": ("The model does not answer this question.", "Ask it in other words."),
        "zh": ("模型不回答这个问题。", "请换一种说法。"),
    },
    "context_length_exceeded": {
        "en": (
            "The question and its conversation are too long for the model.",
            "Shorten the question, or start a new conversation.",
        ),
        "zh": ("问题和对话内容太长，超出了模型的限制。", "请缩短问题，或开始新的对话。"),
    },
    "provider_key": {
        "en": (
            "The model is not set up correctly.",
            "Trying again does not help. Please tell the operator.",
        ),
        "zh": ("模型的配置有误。", "重试没有帮助，请告诉管理员。"),
    },
    "provider_limit": {
        "en": ("The model gets too many questions right now.", RETRY),
        "zh": ("模型当前收到的问题太多。", RETRY),
    },
    "model_busy": {
        "en": ("The model is busy with other questions.", RETRY),
        "zh": ("模型正忙于回答其他问题。", RETRY),
    },
    "rate_limit_exceeded": {
        "en": ("You have asked a lot in a short time.", RETRY),
        "zh": ("短时间内提问过多。", RETRY),
    },
    "budget_spent": {
        "en": (
            "The money for questions is used up for now.",
            "Ask the operator, or come back when the budget starts again.",
        ),
        "zh": ("当前的提问额度已用完。", "请联系管理员，或等额度恢复后再来。"),
    },
    "budget_unknown": {
        "en": ("The service cannot check the money for questions right now.", RETRY),
        "zh": ("暂时无法核对提问额度。", RETRY),
    },
    "price_unknown": {
        "en": ("This model is not ready for use.", "Choose another one, or tell the operator."),
        "zh": ("该模型尚未配置完成。", "请选择其他模型，或告诉管理员。"),
    },
    "provider_down": {
        "en": ("The model cannot be reached right now.", RETRY),
        "zh": ("暂时联系不上模型。", RETRY),
    },
    "provider_slow": {
        "en": ("The model took too long to answer.", RETRY),
        "zh": ("模型太久没有回答。", RETRY),
    },
    "provider_cut": {
        "en": ("The answer broke off before it was complete.", RETRY),
        "zh": ("回答在完成前中断了。", RETRY),
    },
    "provider_nonsense": {
        "en": ("The answer of the model could not be read.", RETRY),
        "zh": ("模型的回答无法读取。", RETRY),
    },
}
SOON_S = 5.0  # up to this wait, the message says "in a moment"
SOON: dict[Language, str] = {"en": "Try again in a moment.", "zh": "请稍后重试。"}
LATER: dict[Language, Callable[[str], str]] = {
    "en": "Try again in about {}.".format,
    "zh": "请约 {}后重试。".format,
}
UNITS: dict[Language, tuple[str, str, str]] = {
    "en": ("seconds", "minutes", "hours"),
    "zh": ("秒", "分钟", "小时"),
}
_PREFERRED = re.compile(r"\s*([a-z]+)(?:-[a-z0-9-]*)?\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?")


def reader_sentences(error: SlipwayError, language: Language) -> tuple[str, str]:
    """Return what happened and what to do, in the reader's language.

    If the catalogue has no row for the error's code, such as a provider's own code, the row of its
    class or nearest parent class is used.
    """
    code = next(
        code for each in type(error).__mro__ if (code := getattr(each, "code", "")) in CATALOGUE
    )
    what, then = CATALOGUE[code][language]
    return what, then.replace(RETRY, retry_sentence(error.retry_after_s, language))


def retry_sentence(wait_s: float | None, language: Language) -> str:
    """Return the sentence that says when to try again."""
    if wait_s is None or wait_s <= SOON_S:
        return SOON[language]
    return LATER[language](wait_in_words(wait_s, language))


def wait_in_words(wait_s: float, language: Language) -> str:
    """Return a duration in words, rounded up to whole five seconds, minutes or hours."""
    seconds, minutes, hours = UNITS[language]
    if wait_s <= 90:
        return f"{5 * math.ceil(wait_s / 5)} {seconds}"
    if wait_s <= 90 * 60:
        return f"{math.ceil(wait_s / 60)} {minutes}"
    return f"{math.ceil(wait_s / 3600)} {hours}"


def preferred_language(accept_language: str) -> Language:
    """Return the supported language that an Accept-Language header prefers (RFC 9110, 12.5.4).

    English if it names none of them.
    """
    liked: dict[Language, float] = {}
    for each in accept_language.lower().split(","):
        if (found := _PREFERRED.fullmatch(each)) and found[1] in LANGUAGES:
            liked.setdefault(cast(Language, found[1]), float(found[2] or 1))
    return max((each for each in liked if liked[each] > 0), key=liked.__getitem__, default="en")
