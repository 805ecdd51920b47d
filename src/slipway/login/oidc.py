"""OpenID Connect: the code flow with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636).

Authlib speaks OAuth, joserfc checks the signature; both come with `slipway[login]`.
"""

import asyncio
import hmac
import logging
import secrets
import time
from typing import Any

import msgspec

from slipway.errors import SignInRefused, SignInUnavailable
from slipway.login import Person
from slipway.settings import Oidc
from slipway.types import Record

log = logging.getLogger("slipway")
ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
ATTEMPT_S = 600.0  # how long somebody may take at the provider
CLOCK_S = 60  # how far its clock may be from ours
FRESH_S = 3600.0  # how long the provider's description is used
CALL_S = 10.0
_AGAIN = "Sign in again; if that does not help, tell the operator."


class SignInAttempt(Record, frozen=True, kw_only=True):
    """What a sign-in that was begun is recognised by; the browser keeps it, signed."""

    state: str
    nonce: str
    verifier: str
    next: str
    until: float
    id: str


class OidcProvider(msgspec.Struct):
    """What the provider says of itself, of what is used here."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None


class OidcClient:
    def __init__(self, settings: Oidc) -> None:
        self.settings = settings
        self._known: tuple[float, OidcProvider, dict[str, Any]] | None = None
        self._asking = asyncio.Lock()

    async def begin(self, redirect_uri: str, after: str) -> tuple[str, SignInAttempt]:
        """Return where to send the browser, and what to recognise it by when it comes back."""
        provider, _ = await self.provider()
        attempt = SignInAttempt(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            next=after,
            until=time.time() + ATTEMPT_S,
            id=secrets.token_urlsafe(12),
        )
        async with self.client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                provider.authorization_endpoint,
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.verifier,
            )
        return url, attempt

    async def finish(
        self, redirect_uri: str, query: dict[str, str], attempt: SignInAttempt
    ) -> Person:
        """Exchange the code and check the identity. Raises SignInRefused, saying why."""
        if not hmac.compare_digest(query.get("state", "").encode(), attempt.state.encode()):
            raise SignInRefused("This sign-in was not begun in this browser.", _AGAIN)
        if "error" in query:
            raise SignInRefused(f"The provider refused: {query['error'][:200]}.", _AGAIN)
        if query.get("iss", self.settings.issuer) != self.settings.issuer:
            raise SignInRefused("The reply is from another provider.", _AGAIN)
        provider, _ = await self.provider()
        token = await self.exchange(provider, redirect_uri, query.get("code", ""), attempt)
        claims = await self.checked(str(token.get("id_token", "")), attempt.nonce)
        wanted = {self.settings.name_claim, self.settings.groups_claim}
        if provider.userinfo_endpoint and not wanted <= claims.keys():
            said = await self.userinfo(provider.userinfo_endpoint, str(token.get("access_token")))
            if said.get("sub") == claims["sub"]:  # OpenID Connect Core 5.3.2
                claims = {**said, **claims}
        return self.person(claims)

    async def userinfo(self, url: str, token: str) -> dict[str, Any]:
        """Return what the provider says of the person beside the token; nothing if it fails."""
        import httpx  # loaded by the first sign-in: a gateway needs none of it

        try:
            async with httpx.AsyncClient(timeout=CALL_S) as client:
                reply = await client.get(url, headers={"authorization": f"Bearer {token}"})
                reply.raise_for_status()
                return msgspec.json.decode(reply.content, type=dict[str, Any])
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            log.warning("the sign-in provider did not say more of a person: %s", error)
            return {}

    async def exchange(
        self, provider: OidcProvider, redirect_uri: str, code: str, attempt: SignInAttempt
    ) -> dict[str, Any]:
        import httpx
        from authlib.common.errors import AuthlibBaseError

        if not code:
            raise SignInRefused("The provider sent no code.", _AGAIN)
        try:
            async with self.client(redirect_uri) as client:
                token: dict[str, Any] = await client.fetch_token(
                    provider.token_endpoint, code=code, code_verifier=attempt.verifier
                )
                return token
        except (AuthlibBaseError, httpx.HTTPError, ValueError) as error:
            raise SignInRefused(f"The provider gave no token: {error}.", _AGAIN) from None

    async def checked(self, id_token: str, nonce: str) -> dict[str, Any]:
        """Return the claims of a token that this provider signed for us, now, for this attempt."""
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        import_keys: Any = KeySet.import_key_set
        for is_second in (False, True):
            _, keys = await self.provider(afresh=is_second)
            try:
                token = jwt.decode(id_token, import_keys(keys), algorithms=ALGORITHMS)
                break
            except (JoseError, ValueError) as error:  # its keys may have been renewed
                if is_second:
                    raise SignInRefused(f"The token is not the provider's: {error}.") from None
        registry = jwt.JWTClaimsRegistry(
            leeway=CLOCK_S,
            iss={"essential": True, "value": self.settings.issuer},
            aud={"essential": True, "value": self.settings.client_id},
            exp={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            registry.validate(token.claims)
        except JoseError as error:
            raise SignInRefused(f"The token does not fit: {error}.", _AGAIN) from None
        return dict(token.claims)

    def person(self, claims: dict[str, Any]) -> Person:
        groups = claims.get(self.settings.groups_claim) or ()
        if isinstance(groups, str):
            groups = groups.split()
        name = claims.get(self.settings.name_claim) or claims.get("email") or claims["sub"]
        return Person(
            id=str(claims["sub"]),
            name=str(name)[:200],
            groups=tuple(str(group) for group in groups if isinstance(group, str)),
            issuer=self.settings.issuer,
        )

    def client(self, redirect_uri: str) -> Any:
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        return AsyncOAuth2Client(
            self.settings.client_id,
            self.settings.client_secret,
            scope=" ".join(self.settings.scopes),
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=CALL_S,
        )

    async def provider(self, *, afresh: bool = False) -> tuple[OidcProvider, dict[str, Any]]:
        """Return the provider's description and keys. Raises SignInUnavailable."""
        async with self._asking:
            known = self._known
            if known is None or afresh or time.monotonic() > known[0] + FRESH_S:
                known = self._known = await self._ask()
            return known[1], known[2]

    async def _ask(self) -> tuple[float, OidcProvider, dict[str, Any]]:
        import httpx

        issuer = self.settings.issuer
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            async with httpx.AsyncClient(timeout=CALL_S) as client:
                reply = await client.get(url)
                reply.raise_for_status()
                found = msgspec.json.decode(reply.content, type=OidcProvider)
                keys = await client.get(found.jwks_uri)
                keys.raise_for_status()
                described = msgspec.json.decode(keys.content, type=dict[str, Any])
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise SignInUnavailable(f"The sign-in provider cannot be reached ({error}).") from None
        if found.issuer != issuer:
            what = f"`login.oidc.issuer` is {issuer}, but the provider calls itself {found.issuer}."
            raise SignInUnavailable(what, "Write the issuer exactly as the provider does.")
        return time.monotonic(), found, described
