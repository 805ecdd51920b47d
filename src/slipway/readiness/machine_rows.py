"""What the machine gives: disk, memory, open files, cores, clock, Python."""

import shutil
import sys
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

from slipway.readiness.deployment import DeploymentToCheck, in_thread
from slipway.readiness.rows import Check, CheckRow
from slipway.settings.environment import core_count
from slipway.store import file_of
from slipway.weights import folder, found, known

LIMIT_S = 10.0
GIB = 1024**3
MIB = 1024**2
SERVER_MIB = 70  # a first worker with documents; bench/start.py measures it
WORKER_MIB = 25
FILES_BESIDES = 200  # descriptors beside connections: the store, the index, logs, libraries
# the end of security fixes, from PEP 664, 693, 719, 745
PYTHON_ENDS = {
    (3, 11): date(2027, 10, 31),
    (3, 12): date(2028, 10, 31),
    (3, 13): date(2029, 10, 31),
    (3, 14): date(2030, 10, 31),
}


def checks(deployment: DeploymentToCheck) -> dict[str, tuple[Check, float]]:
    """Return the checks of the machine, each with its time limit."""
    return {
        "disk": (lambda: disk(deployment), LIMIT_S),
        "open files": (lambda: open_files(deployment), LIMIT_S),
        "memory": (lambda: memory(deployment), LIMIT_S),
        "cores": (lambda: cores(deployment), LIMIT_S),
        "python": (python, LIMIT_S),
        "monotonic": (monotonic, LIMIT_S),
        "weights": (lambda: weights_here(deployment), 60.0),
    }


async def disk(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Look at the free space where the store is."""
    folder = file_of(deployment.settings).absolute().parent
    there = next(each for each in (folder, *folder.parents) if each.exists())
    usage = await in_thread(lambda: shutil.disk_usage(there))
    share, free = usage.free / usage.total, usage.free / GIB
    facts = {"free_gib": round(free, 2), "free_share": round(share, 3)}
    says = f"{free:.1f} GiB are free where the store is ({100 * share:.0f} %)."
    if free > 2 and share > 0.05:
        return [CheckRow(name="disk", looked_at=str(folder), state="green", says=says, facts=facts)]
    return [
        CheckRow(
            name="disk",
            looked_at=str(folder),
            state="red" if free < 0.5 else "amber",
            says=says,
            do=("Free some space, or delete old rows: slipway store prune --dry-run",),
            facts=facts,
        )
    ]


async def open_files(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Compare the limit of open files with the connections that the settings allow."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings = deployment.settings
    needed = 2 * settings.limits.connections + FILES_BESIDES  # each answer may call a model
    fewer = max(1, (soft - FILES_BESIDES) // 2)
    advice = f"Write `LimitNOFILE={needed}` into the systemd unit, or set "
    advice += f"`limits.connections: {fewer}`."
    looked_at = "ulimit -n"
    if soft == resource.RLIM_INFINITY or soft >= needed:
        says = f"{soft} files may be open; {needed} may be needed."
        return [CheckRow(name="open files", looked_at=looked_at, state="green", says=says)]
    return [
        CheckRow(
            name="open files",
            looked_at=looked_at,
            state="amber" if soft >= needed / 2 else "red",
            says=f"Only {soft} files may be open, but {settings.limits.connections} connections "
            f"with as many calls to models need {needed}.",
            do=(advice,),
            facts={"soft": soft, "hard": hard, "needed": needed},
        )
    ]


async def memory(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Compare the free memory with what the settings allow to be used."""
    free = await in_thread(available_mib)
    if free is None:
        says = "How much memory is free cannot be read on this system."
        return [CheckRow(name="memory", looked_at="memory", state="skipped", says=says)]
    settings = deployment.settings
    needed = SERVER_MIB + WORKER_MIB * (settings.listen.workers - 1) + settings.cache.memory_mb
    needed += sum(weights_mib(model.weights) for model in settings.models.values())
    if settings.embedding != "none" and any(app.knowledge for app in settings.apps.values()):
        needed += 100
    says = f"{free:,.0f} MiB of memory are free; about {needed:,.0f} may be needed."
    enough = deployment.is_served or free > needed * 1.2
    return [
        CheckRow(
            name="memory",
            looked_at="/proc/meminfo and the container's limit",
            state="green" if enough else "red" if free < needed else "amber",
            says=says,
            do=() if enough else ("Lower `cache.memory_mb`, or use smaller weights or machine.",),
            facts={"free_mib": round(free), "needed_mib": round(needed)},
        )
    ]


def available_mib() -> float | None:
    """Return the memory that is available, within the container's limit; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    free = float(fields["MemAvailable"].split()[0]) / 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = float((group / "memory.current").read_text())
    except OSError:
        return free
    return free if limit == "max" else min(free, (float(limit) - used) / MIB)


def weights_mib(name: str) -> float:
    """Return the size of the weights that a model runs from; 0 for a model that runs elsewhere."""
    if not name:
        return 0.0
    file = Path(name).expanduser()
    if file.suffix == ".gguf":
        return file.stat().st_size / MIB if file.exists() else 0.0
    return known(name).size / MIB


async def cores(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Compare the number of workers with the cores of this machine."""
    workers, there = deployment.settings.listen.workers, core_count()
    looked_at = "listen.workers"
    if workers > there:
        return [
            CheckRow(
                name="cores",
                looked_at=looked_at,
                state="amber",
                says=f"{workers} workers share {there} cores: more workers make nothing faster.",
                do=(f"Set `listen: {{workers: {there}}}`.",),
            )
        ]
    says = f"{workers} worker{'s' if workers > 1 else ''} on {there} core{'s' if there > 1 else ''}"
    says += "; `listen.workers` can be raised." if workers < there else "."
    return [CheckRow(name="cores", looked_at=looked_at, state="green", says=says)]


async def python() -> Iterable[CheckRow]:
    """Say whether this Python still gets security fixes."""
    version = sys.version_info[:2]
    text = f"Python {version[0]}.{version[1]}"
    ends = PYTHON_ENDS.get((version[0], version[1]))
    if ends is None or ends > datetime.now(UTC).date():
        until = f", with security fixes until {ends:%Y-%m}" if ends else ""
        return [CheckRow(name="python", looked_at=text, state="green", says=f"{text}{until}.")]
    return [
        CheckRow(
            name="python",
            looked_at=text,
            state="amber",
            says=f"{text} gets no security fixes since {ends:%Y-%m}.",
            do=("Install a newer Python.",),
        )
    ]


async def monotonic() -> Iterable[CheckRow]:
    """Say whether time can be measured finely, and without jumps."""
    clock = time.get_clock_info("monotonic")
    fine = clock.monotonic and not clock.adjustable and clock.resolution < 0.001
    says = f"The clock for durations has steps of {1e9 * clock.resolution:.0f} ns and never jumps."
    if fine:
        return [
            CheckRow(name="monotonic", looked_at=clock.implementation, state="green", says=says)
        ]
    return [
        CheckRow(
            name="monotonic",
            looked_at=clock.implementation,
            state="amber",
            says=f"The clock for durations is coarse ({clock.resolution} s) or may jump.",
            do=("Timeouts may be late or early here; use another machine for production.",),
        )
    ]


async def weights_here(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Compare the files of the weights that are named with their hashes."""
    settings = deployment.settings
    named = {model.weights for model in settings.models.values() if model.weights}
    if any(app.knowledge or app.rules for app in settings.apps.values()):
        named.add(settings.embedding)
    rows = list[CheckRow]()
    for name in sorted(named - {"none"}):
        if "/" in name or name.endswith(".gguf"):
            continue  # a file or folder of the user's own, which was found when the settings were read
        intact = await in_thread(lambda name=name: found(name) is not None)  # type: ignore[misc]
        where = str(folder(known(name)))
        if intact:
            says = f"The weights `{name}` are here, and their hash is right."
            rows.append(CheckRow(name="weights", looked_at=where, state="green", says=says))
            continue
        effect = (
            "search and rules know words only, no meaning"
            if name == settings.embedding
            else "its model cannot answer"
        )
        rows.append(
            CheckRow(
                name="weights",
                looked_at=where,
                state="amber" if name == settings.embedding else "red",
                says=f"The weights `{name}` are missing or damaged: {effect}.",
                do=(f"slipway weights pull {name}",),
            )
        )
    return rows
