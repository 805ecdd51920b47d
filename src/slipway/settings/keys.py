"""The settings of keys, tenants and sign-in: who may enter, and how much each may use."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from slipway.settings.values import Branch, Duration

AtLimit = Literal["refuse", "cheaper", "quote"]


class Allowance(Branch, frozen=True, kw_only=True):
    """How much one key, tenant or app may use; what is not set is not limited."""

    rpm: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)] | None,
        Meta(description="answers in any 60 seconds"),
    ] = None
    tpm: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000_000)] | None,
        Meta(description="tokens of models' calls in any 60 seconds, input and output together"),
    ] = None
    answers: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="answers in progress at a time"),
    ] = None
    usd_per_day: Annotated[
        Decimal | None, Meta(description="USD for models' calls in a day (UTC)")
    ] = None
    usd_per_month: Annotated[
        Decimal | None, Meta(description="USD for models' calls in a calendar month (UTC)")
    ] = None
    at_limit: Annotated[
        AtLimit,
        Meta(
            description="what happens if a call does not fit into the budget or `tpm`: `refuse` the "
            "question, ask a `cheaper` model of the route, or `quote` the documents"
        ),
    ] = "refuse"

    @property
    def has_money(self) -> bool:
        return (self.usd_per_day, self.usd_per_month) != (None, None)


class TenantSettings(Branch, frozen=True, kw_only=True):
    limits: Annotated[
        Allowance | None, Meta(description="limits of all the tenant's keys together")
    ] = None


class KeySettings(Branch, frozen=True, kw_only=True):
    shorthand: ClassVar[str | None] = "key"
    key: Annotated[
        str,
        Meta(
            min_length=8,
            description="the key, best as `${NAME}`; or `sha256:` and its hash, "
            "as `slipway keys create --line` prints it",
        ),
    ]
    tenant: Annotated[str, Meta(description="the tenant that owns the key")] = "default"
    groups: Annotated[tuple[str, ...], Meta(description="groups of the key, for access rules")] = ()
    apps: Annotated[
        tuple[str, ...] | None,
        Meta(description="apps, routes and models that it may call; default: all"),
    ] = None
    documents: Annotated[bool, Meta(description="whether the key may add and remove documents")] = (
        False
    )
    admin: Annotated[
        bool,
        Meta(
            description="whether the key may manage keys (`/v1/keys`) and see what all keys have "
            "spent (`/v1/ledger`)"
        ),
    ] = False
    limits: Annotated[Allowance | None, Meta(description="limits of this key")] = None


class Oidc(Branch, frozen=True, kw_only=True):
    issuer: Annotated[
        str, Meta(min_length=1, description="the provider's address, exactly as it calls itself")
    ]
    client_id: Annotated[str, Meta(min_length=1, description="our name at the provider")]
    client_secret: Annotated[
        str | None, Meta(description="our secret at the provider, best as `${NAME}`")
    ] = None
    scopes: Annotated[
        tuple[str, ...], Meta(description="what is asked of the provider; `openid` is needed")
    ] = ("openid", "profile", "email")
    name_claim: Annotated[str, Meta(description="the claim with the name that is shown")] = "name"
    groups_claim: Annotated[
        str, Meta(description="the claim with the groups: a list, or words in one text")
    ] = "groups"
    session: Annotated[Duration, Meta(description="how long somebody stays signed in")] = 43_200.0


class Login(Branch, frozen=True, kw_only=True):
    header: Annotated[
        str | None,
        Meta(description="header in which a trusted proxy sends who signed in: `X-Forwarded-User`"),
    ] = None
    groups_header: Annotated[
        str, Meta(description="header with that person's groups, separated by commas")
    ] = "X-Forwarded-Groups"
    proxies: Annotated[
        tuple[str, ...],
        Meta(description="addresses or networks of proxies whose headers are believed"),
    ] = ()
    oidc: Annotated[Oidc | None, Meta(description="an OpenID Connect provider")] = None
    url: Annotated[
        str,
        Meta(description="this server's address as browsers know it; from the request if left out"),
    ] = ""
    tenant: Annotated[str, Meta(description="tenant of those who sign in")] = "default"
    apps: Annotated[
        tuple[str, ...] | None, Meta(description="names they may call; all if left out")
    ] = None
    documents: Annotated[
        tuple[str, ...], Meta(description="groups whose members may add and remove documents")
    ] = ()
