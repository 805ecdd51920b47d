"""The routes of signing in and out. The browser gets a session in an HttpOnly cookie."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from slipway.answer import Current
from slipway.errors import NotFound, SignInRefused, SignInUnavailable
from slipway.login import SESSION, Session, check_same_site, cookie
from slipway.login.oidc import OidcClient, SignInAttempt
from slipway.login.sessions import Sealer
from slipway.providers import encode_json
from slipway.settings import Login, Oidc
from slipway.store import RecordStore, StoreError
from slipway.web.descriptions import TEXT, Operation, Parameter, fields
from slipway.web.routes import ApiRoute

log = logging.getLogger("slipway")
ATTEMPT = "slipway_sign_in"
CALLBACK = "login/callback"


class LoginRoutes:
    def __init__(
        self, current: Current, sealer: Callable[[], Sealer], records: Callable[[], RecordStore]
    ) -> None:
        self.current, self.sealer, self.records = current, sealer, records
        self._client: tuple[Oidc, OidcClient] | None = None

    async def begin(self, request: Request) -> Response:
        """Send the browser to the provider."""
        login, oidc = self.settings()
        try:
            address = f"{base_url(login, request)}/{CALLBACK}"
            url, attempt = await self.client(oidc).begin(address, next_of(request))
        except SignInUnavailable as error:
            return self.back("unavailable", error)
        reply = redirect(url)
        set_cookie(reply, request, login, ATTEMPT, self.sealer().seal(attempt), lax=True)
        return reply

    async def callback(self, request: Request) -> Response:
        """Take the person who comes back from the provider, and begin a session."""
        login, oidc = self.settings()
        headers = request.scope["slipway.headers"]
        sealer = self.sealer()
        attempt = sealer.open(cookie(headers, ATTEMPT), SignInAttempt)
        if attempt is None:
            what = "No sign-in was begun in this browser, or it took too long."
            return self.back("refused", SignInRefused(what))
        sealer.end(attempt)  # each counts once
        try:
            address = f"{base_url(login, request)}/{CALLBACK}"
            query = dict(request.query_params)
            person = await self.client(oidc).finish(address, query, attempt)
        except SignInRefused as error:
            return self.back("refused", error)
        except SignInUnavailable as error:
            return self.back("unavailable", error)
        until = time.time() + oidc.session
        session = Session(person=person, until=until, id=secrets.token_urlsafe(12))
        reply = redirect(f"../{attempt.next}")
        sealed = sealer.seal(session)
        set_cookie(reply, request, login, SESSION, sealed, lax=False, age=int(oidc.session))
        reply.delete_cookie(ATTEMPT, path="/")
        return reply

    async def logout(self, request: Request) -> Response:
        headers = request.scope["slipway.headers"]
        check_same_site(request.scope, headers)
        session = self.sealer().open(cookie(headers, SESSION), Session)
        if session is not None:
            self.sealer().end(session)
            await asyncio.to_thread(self.remember, session)
        reply = Response(encode_json({"next": "./"}), media_type="application/json")
        reply.delete_cookie(SESSION, path="/")
        return reply

    def remember(self, session: Session) -> None:
        """Note in the store that a session has ended: it must not count again after a restart."""
        try:
            self.records().end_session(session.id, session.until)
        except StoreError as error:
            log.warning("that somebody signed out could not be saved: %s", error)

    def back(self, why: str, error: SignInRefused | SignInUnavailable) -> Response:
        """Return to the page, which says what happened; the log says why."""
        log.warning("a sign-in failed: %s", error.what)
        reply = redirect(f"/?signin={why}")
        reply.delete_cookie(ATTEMPT, path="/")
        return reply

    def settings(self) -> tuple[Login, Oidc]:
        login = self.current.settings.login
        if login is None or login.oidc is None:
            raise NotFound("Signing in is not set up here.", "Set `login.oidc`, or use a key.")
        return login, login.oidc

    def client(self, oidc: Oidc) -> OidcClient:
        """Return the client of these settings; it remembers what the provider said of itself."""
        if self._client is None or self._client[0] != oidc:
            self._client = (oidc, OidcClient(oidc))
        return self._client[1]

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/login",
                self.begin,
                methods=["GET"],
                does=Operation(
                    about="sends the browser to the OpenID Connect provider",
                    query=(
                        Parameter(name="next", about="where to go afterwards: a query of the page"),
                    ),
                    status=303,
                    sends=(),
                    errors=(NotFound,),
                ),
            ),
            ApiRoute(
                "/login/callback",
                self.callback,
                methods=["GET"],
                does=Operation(
                    about="where the provider sends it back to",
                    query=(
                        Parameter(name="code", about="the provider's code"),
                        Parameter(name="state", about="what the sign-in began with"),
                    ),
                    status=303,
                    sends=(),
                    errors=(NotFound,),
                ),
            ),
            ApiRoute(
                "/logout",
                self.logout,
                methods=["POST"],
                does=Operation(
                    about="ends the session", returns=fields(next=TEXT), errors=(NotFound,)
                ),
            ),
        ]


def redirect(url: str) -> RedirectResponse:
    headers = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
    return RedirectResponse(url, 303, headers=headers)


def base_url(login: Login, request: Request) -> str:
    """Return this server's address as the browser knows it. The guard has checked the Host."""
    if login.url:
        return login.url.rstrip("/")
    return f"{request.url.scheme}://{request.headers['host']}"


def set_cookie(
    reply: Response,
    request: Request,
    login: Login,
    name: str,
    value: str,
    *,
    lax: bool,
    age: int = 600,
) -> None:
    secure = base_url(login, request).startswith("https:")
    site: Any = "lax" if lax else "strict"
    reply.set_cookie(
        name, value, max_age=age, path="/", httponly=True, samesite=site, secure=secure
    )


def next_of(request: Request) -> str:
    """Return where to go after signing in: a query of the page itself, and nothing else."""
    wanted = urlsplit(request.query_params.get("next", ""))
    if wanted.scheme or wanted.netloc or wanted.path or not wanted.query:
        return ""
    shared: Mapping[str, list[str]] = parse_qs(wanted.query)
    found = shared.get("share", [""])[0]
    return f"?share={found}" if found.isascii() and found.replace("-", "").isalnum() else ""
