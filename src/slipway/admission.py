"""Stage 1, admission: check the key and what it may call, and limit the answers in progress."""

import hashlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from slipway.errors import Forbidden, Overloaded, Unauthorized
from slipway.keys import KeyTable, key_hash
from slipway.settings import KeySettings
from slipway.types import Asker

OPERATOR = Asker(owner="operator", documents=True, everything=True)
ANYBODY = Asker(owner="local", documents=True)  # on loopback without keys; in no group


def stored_hash(key: str) -> str:
    """Return the hash of a key in the settings, which may already be written as a hash."""
    return key.removeprefix("sha256:") if key.startswith("sha256:") else key_hash(key)


class InFlight:
    """The number of answers in progress, shared by all versions of the settings."""

    def __init__(self) -> None:
        self.count = 0


class Admission:
    """The keys and limits of one version of the settings. Without keys, everybody may enter."""

    def __init__(
        self,
        keys: Iterable[KeySettings],
        limit: int,
        operator: str | None = None,
        in_flight_total: InFlight | None = None,
        *,
        login: bool = False,
        table: KeyTable | None = None,
        key_required: bool = False,
    ) -> None:
        """Prepare the look-up tables.

        `limit` is the largest number of answers in progress. `operator` is a key for commands on
        this machine. Pass `in_flight_total` of the previous settings to keep counting. `table`
        holds the keys made at run time; once there are some, and if people sign in (`login`), or
        with `key_required`, nobody enters without a key.
        """
        self._of_settings = {h: asker_from(h, k) for k in keys for h in [stored_hash(k.key)]}
        self._closed = bool(self._of_settings) or login or key_required
        if operator is not None:
            self._of_settings[key_hash(operator)] = OPERATOR
        self.table = table or KeyTable()
        self._merge()
        self.limit = limit
        self.in_flight_total = in_flight_total or InFlight()
        self.in_flight = 0  # answers in progress that began with these settings

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

    @staticmethod
    def may_call(asker: Asker, name: str) -> bool:
        """Return whether the asker may call this app, route or model."""
        return asker.apps is None or name in asker.apps

    def check_call(self, asker: Asker, name: str) -> None:
        """Raise Forbidden if the key may not call this name."""
        if not self.may_call(asker, name):
            yours = ", ".join(f"`{a}`" for a in sorted(asker.apps or ())) or "nothing"
            raise Forbidden(
                f"This key may not call `{name}`.",
                f"It may call {yours}; ask the operator for more.",
                param="model",
            )

    def enter(self) -> None:
        """Count an answer in progress until `leave`. Raise Overloaded if the limit is reached."""
        if self.in_flight_total.count >= self.limit:
            raise Overloaded(
                f"The limit of {self.limit} answers at a time is reached.", retry_after_s=1.0
            )
        self.in_flight_total.count += 1
        self.in_flight += 1

    def leave(self) -> None:
        """Count an answer that has ended."""
        self.in_flight -= 1
        self.in_flight_total.count -= 1


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


def ended(asker: Asker) -> tuple[str, str]:
    """Return what happened to a key that has ended, and what to do."""
    at = datetime.fromtimestamp(asker.ends_at or 0, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if asker.ended == "replaced":
        return f"This key was replaced by another one on {at}.", "Send the key that replaced it."
    how = "expired" if asker.ended == "expired" else "was revoked"
    return f"This key {how} on {at}.", "Ask the operator for another one."
