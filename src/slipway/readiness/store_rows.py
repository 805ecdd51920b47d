"""What outlives the process: the store, its backups, and the cache that servers share."""

import time
from collections.abc import Iterable

from slipway.app.stores import LazyRecords
from slipway.readiness.deployment import DeploymentToCheck, in_thread
from slipway.readiness.rows import Check, CheckRow
from slipway.settings import Settings
from slipway.settings.tree import without_password
from slipway.store import StoreError, is_local, redis
from slipway.types import Record

LIMIT_S = 20.0
DAY_S = 86_400
OLD_BACKUP_DAYS, ANCIENT_BACKUP_DAYS = 2, 14
SLOW_STORE_S, SLOW_REDIS_S = 0.2, 0.01


def checks(deployment: DeploymentToCheck) -> dict[str, tuple[Check, float]]:
    """Return the checks of the store, each with its time limit."""
    return {
        "store": (lambda: store(deployment), LIMIT_S),
        "shared cache": (lambda: shared(deployment), LIMIT_S),
    }


class StoreFacts(Record, frozen=True, kw_only=True):
    """What a look into the store found."""

    kind: str
    took_s: float
    schema: int
    backup_at: float | None


def look(settings: Settings) -> StoreFacts:
    """Open the records and read a little. Raises StoreError."""
    records = LazyRecords(settings)
    try:
        opened = records()
        began_at = time.monotonic()
        backup_at = opened.last_backup()
        took_s = time.monotonic() - began_at
        return StoreFacts(
            kind="SQLite" if is_local(settings) else "PostgreSQL",
            took_s=took_s,
            schema=opened.schema(),
            backup_at=backup_at,
        )
    finally:
        records.close()


async def store(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Open the store and look at its schema and its last backup."""
    settings = deployment.settings
    where = without_password(settings.store)
    if not LazyRecords(settings).is_there:
        says = "It does not exist yet: the first server makes it."
        return [CheckRow(name="store", looked_at=where, state="skipped", says=says)]
    try:
        found = await in_thread(lambda: look(settings))
    except StoreError as error:
        return [
            CheckRow(
                name="store",
                looked_at=where,
                state="red",
                says=f"The store cannot be used now: {error}.",
                do=("Start it, or correct `store`. Servers answer meanwhile, and keep rows.",),
            )
        ]
    slow = found.took_s > SLOW_STORE_S
    return [
        CheckRow(
            name="store",
            looked_at=where,
            state="amber" if slow else "green",
            says=f"{found.kind} answers in {1000 * found.took_s:.0f} ms; its schema is up to date "
            f"({found.schema}).",
            do=("Look at its load, and at the network on the way to it.",) if slow else (),
            facts={"took_ms": round(1000 * found.took_s, 1), "schema": found.schema},
        ),
        backup(found, where),
    ]


def backup(found: StoreFacts, where: str) -> CheckRow:
    """Return how old the last backup is; `slipway store backup` notes its time in the store."""
    do = ("Run it each night: slipway store backup /backups/slipway-$(date +%F).gz",)
    looked_at = f"the last `slipway store backup` of {where}"
    if found.backup_at is None:
        return CheckRow(
            name="backup",
            looked_at=looked_at,
            state="amber",
            says="No backup was made so far: keys, the ledger and feedback are in one place only.",
            do=do,
        )
    days = (time.time() - found.backup_at) / DAY_S
    says = f"The last backup is {days:.1f} days old."
    facts = {"age_days": round(days, 2)}
    if days <= OLD_BACKUP_DAYS:
        return CheckRow(name="backup", looked_at=looked_at, state="green", says=says, facts=facts)
    return CheckRow(
        name="backup",
        looked_at=looked_at,
        state="red" if days > ANCIENT_BACKUP_DAYS else "amber",
        says=says,
        do=do,
        facts=facts,
    )


async def shared(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Reach Redis, and measure how long it takes to answer."""
    url = deployment.settings.shared
    if url is None:
        return []
    name = redis.SharedRedis(url).name
    if deployment.offline:
        says = "Not looked at: --offline."
        return [CheckRow(name="shared cache", looked_at=name, state="skipped", says=says)]
    problem, took_s = await redis.measured(url)
    if problem is not None:
        return [
            CheckRow(
                name="shared cache",
                looked_at=name,
                state="amber",
                says=f"{problem}; servers answer without it.",
                do=("Start it, or correct `shared`.",),
            )
        ]
    slow = took_s > SLOW_REDIS_S
    return [
        CheckRow(
            name="shared cache",
            looked_at=name,
            state="amber" if slow else "green",
            says=f"Redis answers in {1000 * took_s:.1f} ms.",
            do=("Place Redis nearer: answers do not wait longer than 50 ms for it.",)
            if slow
            else (),
            facts={"took_ms": round(1000 * took_s, 2)},
        )
    ]
