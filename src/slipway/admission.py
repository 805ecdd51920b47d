"""Room 1, who may enter: the key, what it may call, and how many answers are written at once."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from slipway.errors import Forbidden, Overloaded, Unauthorized
from slipway.settings import Key
from slipway.types import Asker

OPERATOR = Asker(owner="operator", documents=True, everything=True)
ANYBODY = Asker(owner="local", documents=True)  # on loopback, without keys; of no group


def key_hash(key: str) -> str:
    """Keys are compared as SHA-256 hashes: a look-up tells nothing about a key by its timing."""
    return hashlib.sha256(key.encode()).hexdigest()


def stored_hash(key: str) -> str:
    """The hash of a key of the settings, which may be written there as its hash."""
    return key.removeprefix("sha256:") if key.startswith("sha256:") else key_hash(key)


class Places:
    """How many answers are under way, whatever the settings were that each began with."""

    def __init__(self) -> None:
        self.taken = 0


class Admission:
    """Prepared at load time. Without keys, everybody who reaches the server may enter."""

    def __init__(
        self,
        keys: Iterable[Key],
        most: int,
        operator: str | None = None,
        places: Places | None = None,
        *,
        login: bool = False,
    ) -> None:
        """`operator` is a key for commands at the machine itself; `places` are those of the
        settings before.
        """
        self.by_hash = {h: asker_of(h, k) for k in keys for h in [stored_hash(k.key)]}
        self.open = not self.by_hash and not login  # `login`: people sign in
        if operator is not None:
            self.by_hash[key_hash(operator)] = OPERATOR
        self.most = most
        self.places = places or Places()
        self.in_flight = 0  # answers that entered here, and not under other settings

    def asker(self, authorization: bytes | None) -> Asker:
        """Who asks, by the value of the Authorization header (`Bearer KEY`). Raises Unauthorized."""
        scheme, _, key = (authorization or b"").partition(b" ")
        sent = scheme.lower() == b"bearer" and key.strip()
        found = (
            self.by_hash.get(hashlib.sha256(sent).hexdigest()) if sent and self.by_hash else None
        )
        if found is not None:
            return found
        if self.open:
            return ANYBODY
        raise Unauthorized(
            "This key is not known here."
            if sent
            else "This server asks for a key, and none was sent."
        )

    @staticmethod
    def may_call(asker: Asker, name: str) -> bool:
        return asker.apps is None or name in asker.apps

    def check_call(self, asker: Asker, name: str) -> None:
        """Raises Forbidden for a key of other apps."""
        if not self.may_call(asker, name):
            yours = ", ".join(f"`{a}`" for a in sorted(asker.apps or ())) or "nothing"
            raise Forbidden(
                f"This key may not call `{name}`.",
                f"It may call {yours}; ask the operator for more.",
                param="model",
            )

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Holds a place among the answers under way. Raises Overloaded where there is none."""
        if self.places.taken >= self.most:
            raise Overloaded(f"{self.most} answers are being written already.", retry_after_s=1.0)
        self.places.taken += 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self.places.taken -= 1


def asker_of(digest: str, key: Key) -> Asker:
    apps = None if key.apps is None else frozenset(key.apps)
    return Asker(
        owner=digest[:16],
        tenant=key.tenant,
        groups=frozenset(key.groups),
        apps=apps,
        documents=key.documents,
    )
