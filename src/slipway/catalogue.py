"""What a person who asked a question is told of each error: what happened, and what to do, in
English and Chinese.

The error's own `what` and `next` are for those who build on the API or run the server: they name
models, fields and settings. The sentences here name none, blame nobody, and are the same for every
error of a code; only the time to wait is filled in.
"""

import math
import re
from collections.abc import Callable
from typing import cast, get_args

from slipway.errors import SlipwayError
from slipway.types import Language

LANGUAGES: tuple[Language, ...] = get_args(Language)
AGAIN = "{again}"  # stands for the sentence that says when trying again helps
CATALOGUE: dict[
    str, dict[Language, tuple[str, str]]
] = {  # an error's code -> what happened, what to do
    "bad_request": {
        "en": (
            "Something that was sent could not be understood.",
            "Write it another way, and send it again.",
        ),
        "zh": ("发送的内容中有无法理解的地方。", "请换一种写法后再发送。"),
    },
    "unsupported_media_type": {
        "en": (
            "It was sent in a form that cannot be read here.",
            "Reload the page, and send it again.",
        ),
        "zh": ("发送的格式在这里无法读取。", "请刷新页面后再发送。"),
    },
    "invalid_api_key": {
        "en": (
            "The key is missing, or not known here.",
            "Check it, or ask the operator for another.",
        ),
        "zh": ("没有密钥，或此密钥未登记。", "请检查，或向管理员索取新的密钥。"),
    },
    "sign_in_refused": {
        "en": ("You could not be signed in.", "Sign in again, or tell the operator."),
        "zh": ("登录失败。", "请重新登录，或联系管理员。"),
    },
    "sign_in_unavailable": {
        "en": ("The sign-in service cannot be reached.", "Try again in a moment."),
        "zh": ("无法连接登录服务。", "请稍后重试。"),
    },
    "forbidden": {
        "en": ("That is not allowed here.", "Ask the operator for access."),
        "zh": ("这里不允许这样做。", "请向管理员申请权限。"),
    },
    "not_found": {
        "en": ("That is not here, or not here any more.", "Ask the question again."),
        "zh": ("已找不到该内容。", "请重新提问。"),
    },
    "model_not_found": {
        "en": ("There is no model or app of that name here.", "Choose another, and ask again."),
        "zh": ("这里没有这个名称的模型或应用。", "请换一个后重新提问。"),
    },
    "method_not_allowed": {
        "en": ("That cannot be done here.", "Reload the page, and try once more."),
        "zh": ("这里无法进行该操作。", "请刷新页面后再试一次。"),
    },
    "conflict": {
        "en": (
            "That is not possible as things stand now.",
            "Reload the page to see how they stand.",
        ),
        "zh": ("目前还不能这样做。", "请刷新页面查看最新情况。"),
    },
    "gone": {
        "en": ("This answer is kept no longer.", "Ask the question again."),
        "zh": ("此回答已不再保留。", "请重新提问。"),
    },
    "too_large": {
        "en": (
            "That is more than can be taken at once.",
            "Make it shorter or smaller, and send it again.",
        ),
        "zh": ("内容超过了一次所能接收的大小。", "请缩短或缩小后再发送。"),
    },
    "head_too_large": {
        "en": (
            "More came along with the question than can be taken.",
            "Open the page in a private window, or tell the operator.",
        ),
        "zh": ("随问题附带的信息太多。", "请在无痕窗口中打开页面，或告诉管理员。"),
    },
    "overloaded": {
        "en": ("Many questions are being answered right now.", AGAIN),
        "zh": ("当前正在回答的问题很多。", AGAIN),
    },
    "stopping": {
        "en": ("The service was stopped before this answer was complete.", AGAIN),
        "zh": ("服务已停止，此回答未能完成。", AGAIN),
    },
    "not_kept": {
        "en": (
            "What was sent could not be kept.",
            f"{AGAIN} If it happens again, tell the operator.",
        ),
        "zh": ("发送的内容未能保存。", f"{AGAIN}若再次发生，请告诉管理员。"),
    },
    "cancelled": {
        "en": ("The answer was stopped.", "Try again when you want the rest."),
        "zh": ("回答已停止。", "需要其余内容时请重试。"),
    },
    "internal_error": {
        "en": (
            "Something happened here that should not.",
            f"{AGAIN} If it happens again, tell the operator the reference.",
        ),
        "zh": ("这里出现了不应有的错误。", f"{AGAIN}若再次发生，请把编号告诉管理员。"),
    },
    "provider_error": {
        "en": ("The model could not answer.", AGAIN),
        "zh": ("模型未能回答。", AGAIN),
    },
    "provider_refused": {
        "en": ("The model did not take this question.", "Ask it another way."),
        "zh": ("模型没有接受这个问题。", "请换一种问法。"),
    },
    "content_policy": {
        "en": ("The model does not answer this question.", "Ask it in other words."),
        "zh": ("模型不回答这个问题。", "请换一种说法。"),
    },
    "context_length_exceeded": {
        "en": (
            "The question, with all that belongs to it, is too long for the model.",
            "Shorten it, or begin a new conversation.",
        ),
        "zh": ("问题连同相关内容太长，模型读不下。", "请缩短问题，或开始新的对话。"),
    },
    "provider_key": {
        "en": (
            "The model is not set up as it should be.",
            "Trying again does not help: please tell the operator.",
        ),
        "zh": ("模型的设置有问题。", "重试没有帮助，请告诉管理员。"),
    },
    "provider_limit": {
        "en": ("The model is asked more than it can answer right now.", AGAIN),
        "zh": ("当前向模型提的问题太多。", AGAIN),
    },
    "model_busy": {
        "en": ("The model is busy with other questions right now.", AGAIN),
        "zh": ("模型正忙于回答其他问题。", AGAIN),
    },
    "provider_down": {
        "en": ("The model cannot be reached right now.", AGAIN),
        "zh": ("暂时联系不上模型。", AGAIN),
    },
    "provider_slow": {
        "en": ("The model took too long to answer.", AGAIN),
        "zh": ("模型太久没有回答。", AGAIN),
    },
    "provider_cut": {
        "en": ("The answer broke off before its end.", AGAIN),
        "zh": ("回答在完成前中断了。", AGAIN),
    },
    "provider_nonsense": {
        "en": ("What the model answered could not be read.", AGAIN),
        "zh": ("模型的回答无法读取。", AGAIN),
    },
}
SOON_S = 5.0  # a shorter wait is a moment
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


def sentences(error: SlipwayError, language: Language) -> tuple[str, str]:
    """What happened, and what to do, with when to try again where that helps. A provider's own
    code, or one without a row, is told as its class, or the nearest above it that has a row.
    """
    code = next(
        code for each in type(error).__mro__ if (code := getattr(each, "code", "")) in CATALOGUE
    )
    what, then = CATALOGUE[code][language]
    return what, then.replace(AGAIN, again(error.retry_after_s, language))


def again(wait_s: float | None, language: Language) -> str:
    if wait_s is None or wait_s <= SOON_S:
        return SOON[language]
    return LATER[language](about(wait_s, language))


def about(wait_s: float, language: Language) -> str:
    """A time as a person says it, never shorter than it is: whole five seconds, minutes or hours."""
    seconds, minutes, hours = UNITS[language]
    if wait_s <= 90:
        return f"{5 * math.ceil(wait_s / 5)} {seconds}"
    if wait_s <= 90 * 60:
        return f"{math.ceil(wait_s / 60)} {minutes}"
    return f"{math.ceil(wait_s / 3600)} {hours}"


def preferred(accept_language: str) -> Language:
    """The language that an Accept-Language header (RFC 9110, 12.5.4) likes best of those there are;
    English where it names none of them.
    """
    liked: dict[Language, float] = {}
    for each in accept_language.lower().split(","):
        if (found := _PREFERRED.fullmatch(each)) and found[1] in LANGUAGES:
            liked.setdefault(cast(Language, found[1]), float(found[2] or 1))
    return max((each for each in liked if liked[each] > 0), key=liked.__getitem__, default="en")
