"""Every error a person can meet.

    SlipwayError
    ├── SettingsError             the start stops: file, line, field and fix            exit 2
    ├── WeightsError              a small model's files could not be fetched            exit 1
    ├── BadRequest                the request cannot be understood                      400
    │   └── UnsupportedMedia      the body is not JSON                                  415
    ├── Unauthorized              no key, or one that is not known                      401
    ├── Forbidden                 the key, host or origin may not do this               403
    ├── NotFound                  no such route, answer or passage                      404
    │   ├── ModelNotFound         no such model, route or app                           404
    │   └── MethodNotAllowed      the path is there, but does not take this method      405
    ├── Conflict                  not in this state                                     409
    ├── Gone                      it was here, and is kept no longer                    410
    ├── TooLarge                  over a limit                                          413
    │   └── HeadTooLarge          the request's head is                                 431
    ├── Overloaded                too much at once                                      503  retry
    ├── Stopping                  the server stops, and this answer did not end in time   503  retry
    ├── NotKept                   the store cannot keep what was sent                   503  retry
    ├── Cancelled                 stopped on request                                    499
    ├── InternalError             our own fault                                         500  retry
    └── ProviderError             the model's provider
        ├── ProviderRefused       it says the request is wrong                          its own 4xx
        │   └── ProviderDeclined  it will not answer what is asked                      its own 4xx
        ├── ProviderTooLong       the question does not fit into the model's context    400
        ├── ProviderKey           it does not take our key                              502
        ├── ProviderLimit         it is limiting us                                     429  retry
        ├── ModelBusy             it has as many calls as we let it have                503  retry
        ├── ProviderDown          no connection, or a 5xx                               502  retry
        ├── ProviderSlow          no answer in time                                     504  retry
        ├── ProviderCut           the answer ended before its end                       502  retry
        └── ProviderNonsense      the answer is not what was agreed                     502  retry

Each class knows its HTTP status, whether trying again helps, and what the reader can do next. `what`
is written where it is raised.
"""


class SlipwayError(Exception):
    """`what` happened, as a sentence a person reads; `next` says what to do; `param` names the
    field at fault, if one is.
    """

    status = 500
    code = "internal_error"
    type = "server_error"
    retryable = False
    next_step = "Try again; if it happens again, tell the operator the reference."

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
    next_step = "Try again where the network is better; everything but what needs these weights works without them."


class BadRequest(SlipwayError):
    status, code, type = 400, "bad_request", "invalid_request_error"
    next_step = "Correct the request and send it again."


class UnsupportedMedia(BadRequest):
    status, code = 415, "unsupported_media_type"


class Unauthorized(SlipwayError):
    status, code, type = 401, "invalid_api_key", "authentication_error"
    next_step = "Send a key that this server knows as `Authorization: Bearer KEY`."


class Forbidden(SlipwayError):
    status, code, type = 403, "forbidden", "permission_error"
    next_step = "Ask the operator for access."


class NotFound(SlipwayError):
    status, code, type = 404, "not_found", "invalid_request_error"
    next_step = "Check the name."


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(NotFound):
    status, code = 405, "method_not_allowed"
    next_step = "Use a method that this path takes."


class Conflict(SlipwayError):
    status, code, type = 409, "conflict", "invalid_request_error"
    next_step = "Look at its state first."


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
    next_step = "Try again in a moment; if it happens again, tell the operator the reference."


class Cancelled(SlipwayError):
    status, code = 499, "cancelled"
    retryable = True
    next_step = "Try again when you want the rest."


class InternalError(SlipwayError):
    retryable = True

    @classmethod
    def of(cls, error: Exception) -> "InternalError":
        return cls(f"Slipway failed in a way that it should not ({type(error).__name__}).")


class ProviderError(SlipwayError):
    """`model` is our name of the model that was called; `upstream_status` the provider's HTTP
    status, if it answered. `ours` is `what` without the provider's own words, which may hold what
    was asked: only who asked may read those.

    `another_may_help` tells a route whether its next model may do better; never where the refusal
    `is_about_content`, which is not shopped around.
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


class ProviderRefused(ProviderError):
    """The provider says that the request itself is wrong: its own status, words and code are passed
    on.
    """

    status, code, type, retryable = 400, "provider_refused", "invalid_request_error", False
    another_may_help = False
    next_step = "Correct the request and send it again."


class ProviderDeclined(ProviderRefused):
    """Its content policy forbids an answer."""

    code = "content_policy"
    is_about_content = True
    next_step = "Ask in other words."


class ProviderTooLong(ProviderError):
    """Another model of the route may hold more."""

    status, code, type, retryable = 400, "context_length_exceeded", "invalid_request_error", False
    next_step = "Ask a shorter question, or begin a new conversation; the operator can raise the model's `context`."


class ProviderKey(ProviderError):
    code, retryable = "provider_key", False
    next_step = "Tell the operator: the key of this model needs attention."


class ProviderLimit(ProviderError):
    status, code, type = 429, "provider_limit", "rate_limit_error"


class ModelBusy(ProviderError):
    status, code, type = 503, "model_busy", "rate_limit_error"


class ProviderDown(ProviderError):
    code = "provider_down"


class ProviderSlow(ProviderError):
    status, code, type = 504, "provider_slow", "timeout_error"


class ProviderCut(ProviderError):
    code = "provider_cut"


class ProviderNonsense(ProviderError):
    code = "provider_nonsense"
