"""Keys made at run time: what a key may do, checked before it is saved, and the table of keys that
requests are checked against.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from slipway.errors import BadRequest, Conflict, NotFound
from slipway.key_limits import changed_limits
from slipway.settings import Allowance, Settings
from slipway.settings.values import duration
from slipway.store import KeyHash, Keys, SavedKey
from slipway.types import Asker, Record

LONGEST_S = 100 * 365 * 86400.0  # the latest end of a key: what ends later never ends
LONGEST_NAME = 200
GRACE = "24h"  # how long a replaced key is still accepted
MOST_GRACE_S = 90 * 86400.0
SHOWN_S = 30 * 86400.0  # for how long a request with an ended key learns why it is refused
HINT = 7  # characters of a key that lists show
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def key_hash(key: str) -> str:
    """Return the SHA-256 hash by which keys are looked up: its timing reveals nothing of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_secret() -> str:
    """Return a key that nobody can guess."""
    return f"sw-{secrets.token_urlsafe(32)}"


class NewKey(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is asked for when a key is made. `expires` is a duration (`90d`) or the last day of the
    key (`2027-01-31`, in UTC). `new_tenant` allows a tenant that no key has had so far. `limits` has
    the fields of the settings.
    """

    name: str = ""
    tenant: str = "default"
    new_tenant: bool = False
    groups: tuple[str, ...] = ()
    apps: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    documents: bool = False
    admin: bool = False
    expires: str | None = None
    limits: dict[str, Any] | None = None


class MadeKey(Record, frozen=True, kw_only=True):
    """A key that was made or replaced just now; `secret` is shown once and saved nowhere."""

    key: SavedKey
    secret: str
    old_ends_at: float | None = None


class KeyTable:
    """The keys made at run time, by hash, as requests are checked against them.

    `revision` changes with the table, except with `is_unknown`. `exists` is true if a key was ever made, even if all are
    revoked. `read_at` is None until the keys are known. `limits` are those of keys by their ids.
    """

    def __init__(self) -> None:
        self.askers: Mapping[str, Asker] = {}
        self.limits: Mapping[str, Allowance] = {}
        self.revision = 0
        self.exists = False
        self.version = -1  # of the store's keys
        self.read_at: float | None = None
        self.is_unknown = False  # the store cannot be read, and nobody knows what it holds

    def replace(
        self,
        version: int,
        keys: Iterable[SavedKey],
        hashes: Iterable[KeyHash],
        *,
        is_copy: bool = False,
    ) -> None:
        """Take over what the store holds, in one step; any thread may call it.

        The store may have another version than that of a copy (`is_copy`).
        """
        by_id = {key.id: key for key in keys}
        now = time.time()
        askers = {
            each.hash: asker_of(by_id[each.key_id], each) for each in hashes if each.key_id in by_id
        }
        self.askers = {
            digest: asker
            for digest, asker in askers.items()
            if asker.ends_at is None or asker.ends_at > now - SHOWN_S
        }
        self.limits = limits_in(by_id.values())
        self.exists = bool(by_id) or version > 0  # keys that have ended may be deleted later
        self.version, self.read_at = -1 if is_copy else version, now
        self.is_unknown = False
        self.revision += 1


def limits_in(keys: Iterable[SavedKey]) -> dict[str, Allowance]:
    """Return the limits of the keys that may still be used."""
    return {key.id: key.limits for key in keys if key.limits is not None and key.revoked_at is None}


def asker_of(key: SavedKey, hashed: KeyHash) -> Asker:
    """Return the asker of a key: all its hashes are the same owner."""
    ends = [
        (at, why)
        for at, why in (
            (key.revoked_at, "revoked"),
            (key.expires_at, "expired"),
            (hashed.ends_at, "replaced"),
        )
        if at is not None
    ]
    at, why = min(ends, default=(None, ""))
    names = None
    if key.apps is not None or key.models is not None:
        names = frozenset((*(key.apps or ()), *(key.models or ())))
    return Asker(
        owner=key.id,
        tenant=key.tenant,
        groups=frozenset(key.groups),
        apps=names,
        documents=key.documents,
        admin=key.admin,
        ends_at=at,
        ended=why,
    )


class KeyDesk:
    """Make, list, replace and revoke keys. Every method blocks.

    Raises BadRequest that names the field, NotFound, Conflict, and the store's StoreError.
    """

    def __init__(self, store: Callable[[], Keys], settings: Callable[[], Settings]) -> None:
        self._store, self._settings = store, settings

    def create(self, new: NewKey) -> MadeKey:
        settings, now = self._settings(), time.time()
        name, tenant = checked_text("name", new.name), checked_text("tenant", new.tenant)
        if not tenant:
            raise BadRequest("`tenant` is empty.", "Name one.", param="tenant")
        self._check_tenant(settings, tenant, is_new=new.new_tenant)
        everything = {*settings.apps, *settings.routes, *settings.models}
        check_names("apps", new.apps, everything, "app, route or model")
        check_names("models", new.models, {*settings.routes, *settings.models}, "model or route")
        secret = new_secret()
        key = SavedKey(
            id=f"key-{secrets.token_hex(6)}",
            name=name,
            tenant=tenant,
            hint=secret[:HINT],
            created_at=now,
            groups=checked_list("groups", new.groups),
            apps=new.apps,
            models=new.models,
            documents=new.documents,
            admin=new.admin,
            limits=changed_limits(None, new.limits),
            expires_at=None if new.expires is None else end_of(new.expires, now),
        )
        self._store().add(key, key_hash(secret))
        return MadeKey(key=key, secret=secret)

    def list_keys(self) -> list[SavedKey]:
        """Return all keys, oldest first."""
        return self._store().load()[1]

    def find(self, key_id: str) -> SavedKey:
        found = [key for key in self.list_keys() if key.id == key_id]
        if not found:
            raise NotFound(
                f"There is no key `{key_id[:100]}`.",
                "`slipway keys list --all` shows the ids of those there are; a key of the settings "
                "file is changed there.",
                param="id",
            )
        return found[0]

    def rotate(self, key_id: str, grace: str = GRACE) -> MadeKey:
        """Replace a key by another secret with the same rights; the old one ends after `grace`."""
        try:
            grace_s = duration(grace)
        except ValueError as error:
            raise BadRequest(f"`grace`: {error}.", param="grace") from None
        if grace_s > MOST_GRACE_S:
            raise BadRequest(
                f"`grace`: `{grace}` is longer than 90 days.", "Write a shorter one.", param="grace"
            )
        key, now = self.find(key_id), time.time()
        if (ended := end_state(key, now)) is not None:
            raise Conflict(f"The key `{key.id}` has {ended}.", "Make another one.", param="id")
        secret = new_secret()
        changed = self._store().replace_hash(
            key.id, key_hash(secret), secret[:HINT], at=now, old_ends_at=now + grace_s
        )
        if not changed:
            raise Conflict(f"The key `{key.id}` has been revoked.", "Make another one.", param="id")
        key = msgspec.structs.replace(key, hint=secret[:HINT])
        return MadeKey(key=key, secret=secret, old_ends_at=now + grace_s)

    def limit(self, key_id: str, asked: Mapping[str, Any] | None) -> SavedKey:
        """Change the limits that are named; None removes all of them."""
        key = self.find(key_id)
        if (ended := end_state(key, time.time())) is not None:
            raise Conflict(f"The key `{key.id}` has {ended}.", "Make another one.", param="id")
        self._store().set_limits(key.id, changed_limits(key.limits, asked))
        return self.find(key_id)

    def revoke(self, key_id: str) -> SavedKey:
        """Revoke a key for good, with every secret that it ever had."""
        key = self.find(key_id)
        self._store().revoke(key.id, time.time())
        return self.find(key_id)

    def _check_tenant(self, settings: Settings, tenant: str, *, is_new: bool) -> None:
        """Raise BadRequest for a tenant that the settings do not list, if they list any; else for
        one that no key has, unless the asker says that it is new.
        """
        known = {"default", *settings.tenants, *(key.tenant for key in settings.keys)}
        if tenant in known or (is_new and not settings.tenants):
            return
        if settings.tenants:
            raise BadRequest(
                f"`tenant`: the settings list no tenant `{tenant[:100]}`; known: {listed(known)}.",
                "Correct the name, or add it to `tenants` in the settings.",
                param="tenant",
            )
        known |= {key.tenant for key in self.list_keys()}
        if tenant not in known:
            raise BadRequest(
                f"`tenant`: no key has the tenant `{tenant[:100]}` so far; known: {listed(known)}.",
                "Correct the name, or say that it is a new one: `--new-tenant`, or "
                '`"new_tenant": true`.',
                param="tenant",
            )


def end_state(key: SavedKey, now: float) -> str | None:
    """Return how a key has ended, in the words that follow "has"; None if it has not."""
    if key.revoked_at is not None and key.revoked_at <= now:
        return "been revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return None


def end_of(text: str, now: float) -> float:
    """Return the time at which a key ends: after a duration, or at the end of a day in UTC.

    Raises BadRequest.
    """
    fix = "Write a duration such as `90d`, or the last day as `2027-01-31`."
    plain = text.strip()
    try:
        if _DATE.fullmatch(plain):
            day = datetime.combine(date.fromisoformat(plain), datetime.min.time(), UTC)
            end = (day + timedelta(days=1)).timestamp()
        elif plain.startswith("-"):
            end = now - 1
        else:
            end = now + duration(plain)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"`expires`: `{text[:50]}` is neither a duration nor a day.", fix, param="expires"
        ) from None
    if end <= now:
        raise BadRequest(f"`expires`: `{text[:50]}` is in the past.", fix, param="expires")
    if end > now + LONGEST_S:
        raise BadRequest(
            f"`expires`: `{text[:50]}` is more than 100 years ahead.",
            "Leave it out for a key that does not expire.",
            param="expires",
        )
    return end


def checked_text(field: str, text: str) -> str:
    """Return a name without spaces around it. Raises BadRequest."""
    plain = text.strip()
    if len(plain) > LONGEST_NAME or not plain.isprintable():
        raise BadRequest(
            f"`{field}` must be at most {LONGEST_NAME} printable characters.", param=field
        )
    return plain


def checked_list(field: str, names: Collection[str]) -> tuple[str, ...]:
    """Return the names, each once. Raises BadRequest."""
    plain = [checked_text(f"{field}[{i}]", name) for i, name in enumerate(names)]
    for i, name in enumerate(plain):
        if not name:
            raise BadRequest(f"`{field}[{i}]` is empty.", "Name one.", param=f"{field}[{i}]")
    return tuple(dict.fromkeys(plain))


def check_names(
    field: str, names: Collection[str] | None, known: Collection[str], kind: str
) -> None:
    """Raise BadRequest for a name that the settings do not have."""
    for i, name in enumerate(names or ()):
        if name not in known:
            raise BadRequest(
                f"`{field}[{i}]`: there is no {kind} `{name[:100]}`.",
                f"There are: {listed(known)}." if known else "The settings name none.",
                param=f"{field}[{i}]",
            )


def listed(names: Collection[str]) -> str:
    shown = sorted(names)[:20]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(f"`{name}`" for name in shown) + more
