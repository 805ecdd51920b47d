"""Keys: known by their hashes, and what each one may do."""

import hashlib
from collections.abc import Iterable

from slipway.errors import Forbidden, Unauthorized
from slipway.settings import KeySettings
from slipway.types import Asker

OPERATOR = Asker(owner="operator", documents=True, everything=True)
ANYBODY = Asker(owner="local", documents=True)  # on loopback without keys; in no group


def key_hash(key: str) -> str:
    """Return the SHA-256 hash by which keys are looked up: its timing reveals nothing of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def stored_hash(key: str) -> str:
    """Return the hash of a key in the settings, which may already be written as a hash."""
    return key.removeprefix("sha256:") if key.startswith("sha256:") else key_hash(key)


def owner_of(key: str) -> str:
    """Return what identifies a key of the settings without revealing it."""
    return stored_hash(key)[:16]


def asker_from(digest: str, key: KeySettings) -> Asker:
    """Return the asker of a key with this hash."""
    apps = None if key.apps is None else frozenset(key.apps)
    return Asker(
        owner=digest[:16],
        tenant=key.tenant,
        groups=frozenset(key.groups),
        apps=apps,
        documents=key.documents,
        admin=key.admin,
    )


class Keys:
    """The keys of one version of the settings. Without any, everybody may ask."""

    def __init__(
        self, keys: Iterable[KeySettings], operator: str | None = None, *, login: bool = False
    ) -> None:
        """`operator` is a key for commands on this machine; with `login`, people sign in."""
        self.by_hash = {h: asker_from(h, k) for k in keys for h in [stored_hash(k.key)]}
        self.open = not self.by_hash and not login
        if operator is not None:
            self.by_hash[key_hash(operator)] = OPERATOR

    def asker(self, authorization: bytes | None) -> Asker:
        """Return the asker for an Authorization header (`Bearer KEY`). Raise Unauthorized."""
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
            else "This server requires a key, and the request has none."
        )


def may_call(asker: Asker, name: str) -> bool:
    """Return whether the asker may call this app, route or model."""
    return asker.apps is None or name in asker.apps


def check_call(asker: Asker, name: str) -> None:
    """Raise Forbidden if the key may not call this name."""
    if not may_call(asker, name):
        yours = ", ".join(f"`{a}`" for a in sorted(asker.apps or ())) or "nothing"
        raise Forbidden(
            f"This key may not call `{name}`.",
            f"It may call {yours}; ask the operator for more.",
            param="model",
        )
