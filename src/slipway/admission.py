"""Stage 1, admission: check the key and what it may call, and limit the answers in progress."""

import hashlib
from collections.abc import Iterable

from slipway.errors import Forbidden, Overloaded, Unauthorized
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
    ) -> None:
        """Prepare the look-up tables.

        `limit` is the largest number of answers in progress. `operator` is a key for commands on
        this machine. Pass `in_flight_total` of the previous settings to keep counting.
        """
        self.by_hash = {h: asker_from(h, k) for k in keys for h in [stored_hash(k.key)]}
        self.open = not self.by_hash and not login  # `login`: people sign in
        if operator is not None:
            self.by_hash[key_hash(operator)] = OPERATOR
        self.limit = limit
        self.in_flight_total = in_flight_total or InFlight()
        self.in_flight = 0  # answers in progress that began with these settings

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
    )
