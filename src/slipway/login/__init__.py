"""Who signed in: a name that a trusted proxy sends, or a session after OpenID Connect.

A person is an asker like the holder of a key. A key that is sent counts before a person.
"""

import hashlib
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from slipway.errors import Forbidden
from slipway.login.sessions import Sealer
from slipway.settings import Login, Settings
from slipway.types import Asker, Record

SESSION = "slipway_session"
HOW_TO = "Reload the page and try again."


class Person(Record, frozen=True, kw_only=True):
    """Somebody who signed in; `id` is unique at the issuer or proxy, `name` is shown."""

    id: str
    name: str
    groups: tuple[str, ...] = ()
    issuer: str = ""

    @property
    def owner(self) -> str:
        """Return the owner of this person's answers and conversations."""
        return hashlib.sha256(f"person\n{self.issuer}\n{self.id}".encode()).hexdigest()[:16]


class Session(Record, frozen=True, kw_only=True):
    """The signed content of the session cookie; it ends at `until` (seconds since the epoch)."""

    person: Person
    until: float
    id: str


class SignIn:
    """Say who sent a request, from its headers and the address that it came from."""

    def __init__(self, settings: Login, sealer: Callable[[], Sealer]) -> None:
        self.settings, self.sealer = settings, sealer
        self.proxies = [ipaddress.ip_network(proxy) for proxy in settings.proxies]

    def person(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Person | None:
        """Return who signed in, or None. Raises Forbidden for a change that another site sent."""
        return self.from_proxy(scope, headers) or self.from_session(scope, headers)

    def from_proxy(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Person | None:
        """Trust the header only if the request came from one of the listed addresses."""
        name = self.settings.header
        if name is None or not self.is_proxy(scope):
            return None
        value = text(headers.get(name.lower().encode(), b""))
        if not value:
            return None
        sent = text(headers.get(self.settings.groups_header.lower().encode(), b""))
        groups = tuple(group.strip() for group in sent.split(",") if group.strip())
        return Person(id=value, name=value, groups=groups, issuer="proxy")

    def is_proxy(self, scope: Mapping[str, Any]) -> bool:
        client = scope.get("client")
        try:
            address = ipaddress.ip_address(client[0] if client else "")
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.proxies)

    def from_session(
        self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]
    ) -> Person | None:
        if self.settings.oidc is None:
            return None
        session = self.sealer().open(cookie(headers, SESSION), Session)
        if session is None or session.person.issuer != self.settings.oidc.issuer:
            return None
        check_same_site(scope, headers)
        return session.person

    def asker(self, person: Person) -> Asker:
        groups, apps = frozenset(person.groups), self.settings.apps
        return Asker(
            owner=person.owner,
            tenant=self.settings.tenant,
            groups=groups,
            apps=None if apps is None else frozenset(apps),
            documents=not groups.isdisjoint(self.settings.documents),
        )


def sign_in_of(settings: Settings, sealer: Callable[[], Sealer]) -> SignIn | None:
    return SignIn(settings.login, sealer) if settings.login is not None else None


def check_same_site(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> None:
    """Raise Forbidden if a request that changes something does not say that our page sent it."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return
    origin = headers.get(b"origin", b"").partition(b"://")[2].lower()
    ours = origin == headers.get(b"host", b"").lower() if origin else False
    if not ours and headers.get(b"sec-fetch-site") != b"same-origin":
        raise Forbidden("This request did not come from the server's own page.", HOW_TO)


def cookie(headers: Mapping[bytes, bytes], name: str) -> str:
    """Return the value of a cookie; empty if it was not sent."""
    for part in text(headers.get(b"cookie", b"")).split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip()
