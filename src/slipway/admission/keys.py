"""Check keys: those of the settings and those made at run time, known by their hashes."""

import hashlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from slipway.errors import Forbidden, KeysUnavailable, Unauthorized
from slipway.keys import KeyTable, key_hash
from slipway.settings import KeySettings
from slipway.types import Asker

OPERATOR = Asker(owner="operator", documents=True, everything=True)
ANYBODY = Asker(owner="local", documents=True)  # on loopback without keys; in no group


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


class KnownKeys:
    """The keys of one version of the settings, and those made at run time. Without any, everybody
    may enter.
    """

    def __init__(
        self,
        keys: Iterable[KeySettings],
        operator: str | None = None,
        *,
        login: bool = False,
        table: KeyTable | None = None,
        key_required: bool = False,
    ) -> None:
        """Prepare the look-up tables.

        `operator` is a key for commands on this machine. `table` holds the keys made at run time;
        once there are some, and if people sign in (`login`), or with `key_required`, nobody enters
        without a key.
        """
        self._of_settings = {h: asker_from(h, k) for k in keys for h in [stored_hash(k.key)]}
        self._closed = bool(self._of_settings) or login or key_required
        if operator is not None:
            self._of_settings[key_hash(operator)] = OPERATOR
        self.table = table or KeyTable()
        self._merge()

    def asker(self, authorization: bytes | None) -> Asker:
        """Return the asker for an Authorization header (`Bearer KEY`). Raise Unauthorized."""
        scheme, _, key = (authorization or b"").partition(b" ")
        sent = scheme.lower() == b"bearer" and key.strip()
        if self.table.revision != self._merged:
            self._merge()
        found = (
            self.by_hash.get(hashlib.sha256(sent).hexdigest()) if sent and self.by_hash else None
        )
        if found is not None:
            if found.ends_at is not None and found.ends_at <= time.time():
                raise Unauthorized(*ended(found))
            return found
        if self.table.is_unknown:
            raise KeysUnavailable("The keys in the store cannot be read now.")
        if self.open:
            return ANYBODY
        raise Unauthorized(
            "This key is not known here."
            if sent
            else "This server requires a key, and the request has none."
        )

    def _merge(self) -> None:
        """Take over the keys made at run time; those of the settings come first."""
        self._merged = self.table.revision
        self.by_hash = {**self.table.askers, **self._of_settings}
        self.open = not self._closed and not self.table.exists


def ended(asker: Asker) -> tuple[str, str]:
    """Return what happened to a key that has ended, and what to do."""
    at = datetime.fromtimestamp(asker.ends_at or 0, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if asker.ended == "replaced":
        return f"This key was replaced by another one on {at}.", "Send the key that replaced it."
    how = "expired" if asker.ended == "expired" else "was revoked"
    return f"This key {how} on {at}.", "Ask the operator for another one."


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
