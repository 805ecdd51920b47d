"""Every error that a person can meet.

    SlipwayError
    ├── SettingsError             the start stops: file, line, field and fix            exit 2
    ├── WeightsError              a small model's files could not be downloaded         exit 1
    ├── BadRequest                the request cannot be understood                      400
    │   └── UnsupportedMedia      the body is not JSON                                  415
    ├── Unauthorized              no key, or an unknown one                             401
    │   └── SignInRefused         somebody could not be signed in                       401
    ├── Forbidden                 the key, host or origin may not do this               403
    ├── NotFound                  no such route, answer or passage                      404
    │   ├── ModelNotFound         no such model, route or app                           404
    │   ├── NotCached             only a kept answer was wanted, and there is none      404
    │   └── MethodNotAllowed      the path is there, but does not take this method      405
    ├── Conflict                  not possible in the current state                     409
    ├── Gone                      it has expired                                        410
    ├── TooLarge                  over a size limit                                     413
    │   └── HeadTooLarge          the request's headers are too large                   431
    ├── Overloaded                too many requests at once                             503  retry
    ├── Stopping                  the server stopped before this answer was complete    503  retry
    ├── SignInUnavailable         the sign-in provider cannot be reached                503  retry
    ├── KeysUnavailable           the store cannot say whether a key is known           503  retry
    ├── NotKept                   the store could not save it                           503  retry
    │   └── StorageFull           the disk of the store is full                         507  retry
    ├── Cancelled                 stopped on request                                    499
    ├── InternalError             a bug in Slipway                                      500  retry
    └── ProviderError             the model's provider
        ├── ProviderRefused       it rejected the request as invalid                    its own 4xx
        │   └── ProviderDeclined  its content policy forbids an answer                  its own 4xx
        ├── ProviderTooLong       the question does not fit into the model's context    400
        ├── ProviderKey           it rejected our key                                   502
        ├── ProviderLimit         it limits our requests                                429  retry
        ├── ModelBusy             our own limit of calls to this model is reached       503  retry
        ├── LimitReached          a limit of the key, tenant or app is reached
        │   ├── RateLimited       too many requests or tokens in a minute, or at once   429  retry
        │   ├── BudgetSpent       the money for the day or month is spent               402
        │   ├── BudgetUnknown     the store cannot say what was spent                   503  retry
        │   └── NotPriced         there is a budget, and the model's price is unknown   402
        ├── ProviderDown          no connection, or a 5xx                               502  retry
        ├── ProviderSlow          no answer in time                                     504  retry
        ├── ProviderCut           the answer broke off                                  502  retry
        └── ProviderNonsense      the answer could not be read                          502  retry

Each class knows its HTTP status, whether a retry helps, and what the reader can do next. `what` is
written by the code that raises it.
"""

import errno


class SlipwayError(Exception):
    """The base class. `what` says what happened and `next` what to do, both as whole sentences;
    `param` names the invalid field, if there is one.
    """

    status = 500
    code = "internal_error"
    type = "server_error"
    retryable = False
    next_step = "Try again. If it happens again, tell the operator the reference."

    def __init__(
        self,
        what: str,
        next: str | None = None,  # noqa: A002
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.next = next if next is not None else self.next_step
        self.param = param
        self.retry_after_s = retry_after_s


class SettingsError(SlipwayError):
    code = "settings"
    next_step = ""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class WeightsError(SlipwayError):
    code = "weights"
    next_step = (
        "Try again with a better network. Only the features that need these weights are missing."
    )


class BadRequest(SlipwayError):
    status, code, type = 400, "bad_request", "invalid_request_error"
    next_step = "Correct the request and send it again."


class UnsupportedMedia(BadRequest):
    status, code = 415, "unsupported_media_type"


class Unauthorized(SlipwayError):
    status, code, type = 401, "invalid_api_key", "authentication_error"
    next_step = "Send a key that this server knows as `Authorization: Bearer KEY`."


class SignInRefused(Unauthorized):
    code = "sign_in_refused"
    next_step = "Sign in again; if that does not help, tell the operator."


class SignInUnavailable(SlipwayError):
    status, code, retryable = 503, "sign_in_unavailable", True
    next_step = "Try again in a moment; if that does not help, tell the operator."


class KeysUnavailable(SlipwayError):
    status, code, retryable = 503, "keys_unavailable", True
    next_step = "Try again in a moment; if that does not help, tell the operator."


class Forbidden(SlipwayError):
    status, code, type = 403, "forbidden", "permission_error"
    next_step = "Ask the operator for access."


class NotFound(SlipwayError):
    status, code, type = 404, "not_found", "invalid_request_error"
    next_step = "Check the name."


class ModelNotFound(NotFound):
    code = "model_not_found"


class NotCached(NotFound):
    code = "not_cached"
    next_step = "Send the request without `x-slipway-cache: only`."


class MethodNotAllowed(NotFound):
    status, code = 405, "method_not_allowed"
    next_step = "Use a method that this path supports."

    def __init__(self, what: str, next: str, *, allow: tuple[str, ...]) -> None:  # noqa: A002
        """`allow` lists the methods that the path supports, for the Allow header."""
        super().__init__(what, next)
        self.allow = allow


class Conflict(SlipwayError):
    status, code, type = 409, "conflict", "invalid_request_error"
    next_step = "Check its state first."


class Gone(SlipwayError):
    status, code, type = 410, "gone", "invalid_request_error"
    next_step = "Ask again."


class TooLarge(SlipwayError):
    status, code, type = 413, "too_large", "invalid_request_error"
    next_step = "Send less, or ask the operator to raise the limit."


class HeadTooLarge(TooLarge):
    status, code = 431, "head_too_large"


class Overloaded(SlipwayError):
    status, code, retryable = 503, "overloaded", True
    next_step = "Try again in a moment."


class Stopping(Overloaded):
    code = "stopping"


class NotKept(SlipwayError):
    status, code, retryable = 503, "not_kept", True
    next_step = "Try again in a moment. If it happens again, tell the operator the reference."


class StorageFull(NotKept):
    status, code = 507, "storage_full"
    next_step = "Tell the operator to free some disk space, then try again."

    @staticmethod
    def explains(error: BaseException | None) -> bool:
        """Return whether an exception, or one that caused it, means that a disk is full."""
        while error is not None:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                return True
            if type(error).__module__ == "sqlite3" and "disk is full" in str(error):
                return True
            error = error.__cause__
        return False


class Cancelled(SlipwayError):
    status, code = 499, "cancelled"
    retryable = True
    next_step = "Try again when you want the rest."


class InternalError(SlipwayError):
    retryable = True

    @classmethod
    def of(cls, error: Exception) -> "InternalError":
        """Wrap an unexpected exception; its own text stays out, since it may hold user data."""
        return cls(f"Slipway has a bug and could not finish the request ({type(error).__name__}).")


class ProviderError(SlipwayError):
    """The model's provider failed.

    `model` is our name of the called model; `upstream_status` is the provider's HTTP status, if it
    answered. `ours` is `what` without the provider's own words: those may quote the question, so
    only the person who asked may read them.

    `another_may_help` tells a route whether its next model may succeed. If the refusal
    `is_about_content`, no other model is asked.
    """

    status, code, type, retryable = 502, "provider_error", "provider_error", True
    another_may_help = True
    is_about_content = False
    before_sending = False  # no connection came about, so the request is not to blame
    next_step = "Try again in a moment."

    def __init__(
        self,
        what: str,
        next: str | None = None,  # noqa: A002
        *,
        ours: str | None = None,
        model: str = "",
        upstream_status: int | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(what, next, param=param, retry_after_s=retry_after_s)
        self.ours = what if ours is None else ours
        self.model = model
        self.upstream_status = upstream_status


def log_text(error: SlipwayError) -> str:
    """Return what a log may say of an error: what happened and its code, in our own words.

    A provider's message may quote the question, and its code could be anything.
    """
    what = error.ours if isinstance(error, ProviderError) else error.what
    return f"{what} ({type(error).code})"


class ProviderRefused(ProviderError):
    """The provider rejected the request as invalid. Its status, message and code are passed on."""

    status, code, type, retryable = 400, "provider_refused", "invalid_request_error", False
    another_may_help = False
    next_step = "Correct the request and send it again."


class ProviderDeclined(ProviderRefused):
    """The provider's content policy forbids an answer."""

    code = "content_policy"
    is_about_content = True
    next_step = "Ask in other words."


class ProviderTooLong(ProviderError):
    """The question is too long for the model; another model of the route may have more context."""

    status, code, type, retryable = 400, "context_length_exceeded", "invalid_request_error", False
    next_step = (
        "Ask a shorter question, or start a new conversation. "
        "The operator can raise the model's `context`."
    )


class ProviderKey(ProviderError):
    code, retryable = "provider_key", False
    next_step = "Tell the operator that the provider rejects the key of this model."


class ProviderLimit(ProviderError):
    status, code, type = 429, "provider_limit", "rate_limit_error"


class ModelBusy(ProviderError):
    status, code, type = 503, "model_busy", "rate_limit_error"


class LimitReached(ProviderError):
    """A limit of the key, tenant or app is reached, so that a question or a call is refused.

    `headers` say to the client how much is left. If it `may_quote`, an app quotes its documents.
    """

    may_quote = False
    headers: "tuple[tuple[bytes, bytes], ...]" = ()


class RateLimited(LimitReached):
    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"
    next_step = "Try again after the time in `Retry-After`, or ask the operator to raise the limit."


class BudgetSpent(LimitReached):
    status, code, type, retryable = 402, "budget_spent", "insufficient_quota", False
    next_step = "Wait until the budget starts again, or ask the operator to raise it."


class BudgetUnknown(LimitReached):
    status, code, type = 503, "budget_unknown", "server_error"
    next_step = "Try again in a moment; if that does not help, tell the operator."


class NotPriced(LimitReached):
    status, code, type, retryable = 402, "price_unknown", "insufficient_quota", False
    next_step = "Tell the operator to set the model's `price`, or to remove the budget."


class ProviderDown(ProviderError):
    code = "provider_down"


class ProviderSlow(ProviderError):
    status, code, type = 504, "provider_slow", "timeout_error"


class ProviderCut(ProviderError):
    code = "provider_cut"


class ProviderNonsense(ProviderError):
    code = "provider_nonsense"


def all_errors(base: type[SlipwayError] = SlipwayError) -> tuple[type[SlipwayError], ...]:
    """Return a class and all classes below it."""
    return (base, *(each for below in base.__subclasses__() for each in all_errors(below)))
