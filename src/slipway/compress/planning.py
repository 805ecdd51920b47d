"""What to do to meet the targets: 8 bits first, then 4, then fewer layers if there is text to
distil on.

Sizes are computed exactly before anything is written, so that a size that no plan reaches is
refused at once, with the nearest that one does.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from slipway.compress.checkpoint import Checkpoint, Tensor
from slipway.compress.gate import Targets
from slipway.compress.pruning import Cut, cut_from
from slipway.compress.quantising import ROUNDED, size_of
from slipway.compress.refusals import refused
from slipway.compress.results import Planned

_ORDER = ("q8_0", "q4_k_m", "q4_0_m", "q4_0")
_DEEPEST = 3  # a third of the layers at most: beyond that, a short distillation does not bring back
_WINDOW = 256
LOGITS_AT_ONCE = 128  # tokens whose logits are in memory at a time in a lesson

Meets = Callable[[str], str]  # (form) -> why it misses a target that must be measured, or ""


def plan(
    model: Checkpoint, head: int, targets: Targets, *, quant: str | None, prune: str | None,
    distils: bool, meets: Meets,
) -> Planned:  # fmt: skip
    """`head` is what the file has beside tensors. Raises SettingsError if no plan meets the size."""
    cut = cut_from(prune, model) if prune else None
    forms = (quant,) if quant else _ORDER
    sizes = {form: head + size_of(_like(model, cut), form) for form in forms}

    def planned(form: str, why: str, cut: Cut | None = cut) -> Planned:
        teaches = distils and (cut is not None or form in ROUNDED)
        words = str(cut) if cut else None
        return Planned(form=form, cut=words, distils=teaches, why=why, sizes=sizes)

    small = [form for form in forms if targets.size is None or sizes[form] <= targets.size]
    if quant and small:
        return planned(quant, "as --quant says")
    missed = dict[str, str]()
    for form in small:
        missed[form] = "" if distils and form in ROUNDED else meets(form)
        if not missed[form]:
            return planned(form, _why(form, missed))
    if not small and cut is None and distils:
        return _deeper(model, head, targets, forms[-1], planned)
    if not small:
        raise refused(_nearest(model, head, targets, sizes, distils=distils, cut=cut))
    best = small[-1]
    return planned(best, f"the nearest to the targets ({missed[best]})")


def _why(form: str, missed: dict[str, str]) -> str:
    before = "; ".join(f"{each}: {why}" for each, why in missed.items() if why)
    first = "8 bits come first, since they cost almost nothing" if form == "q8_0" else ""
    return f"{form} is the first that meets the targets ({before or first or 'by its size'})"


def _deeper(
    model: Checkpoint, head: int, targets: Targets, form: str, planned: Callable[[str, str, Cut], Planned]
) -> Planned:  # fmt: skip
    for number in range(1, model.layers // _DEEPEST + 1):
        cut = Cut(kind="depth", number=number)
        size = head + size_of(_like(model, cut), form)
        if targets.size is not None and size <= targets.size:
            return planned(form, f"{form} alone is too large; without {number} layers it fits", cut)
    raise refused(_nearest(model, head, targets, {}, distils=True, cut=None))


def _nearest(
    model: Checkpoint, head: int, targets: Targets, sizes: dict[str, int], *, distils: bool,
    cut: Cut | None,
) -> str:  # fmt: skip
    wanted = f"--target: size={(targets.size or 0) / 1e6:.1f}MB cannot be met"
    deepest = Cut(kind="depth", number=max(1, model.layers // _DEEPEST))
    least = (head + size_of(_like(model, deepest), "q4_0")) / 1e6
    if distils and cut is None:
        return f"{wanted}; the nearest is --prune {deepest} --quant q4_0 with {least:.1f} MB"
    form = min(sizes, key=lambda each: sizes[each])
    near = f"{wanted}; the nearest is {form} with {sizes[form] / 1e6:.1f} MB"
    return near if cut else f"{near}, or with --distil TEXT, {deepest} and q4_0 with {least:.1f} MB"


def _like(model: Checkpoint, cut: Cut | None) -> Checkpoint:
    """A model of the shapes that the cut leaves; which layers or neurons go makes no difference."""
    if cut is None:
        return model
    tensors = dict[str, Tensor]()
    for name, tensor in model.tensors.items():
        if cut.kind == "depth":
            if not name.startswith("blk.") or int(name.split(".")[1]) < model.layers - cut.number:
                tensors[name] = tensor
            continue
        inner = int(model.number("feed_forward_length"))
        shape = tuple(cut.number if "ffn_" in name and n == inner else n for n in tensor.shape)
        tensors[name] = Tensor(shape=shape, kind=tensor.kind, load=tensor.load)
    numbers = {"block_count": model.layers - cut.number} if cut.kind == "depth" else {}
    fields = model.with_numbers(**numbers)
    return Checkpoint(architecture=model.architecture, fields=fields, tensors=tensors)


# What it takes


def check_room(model: Checkpoint, out: Path, *, prunes: bool, distils: bool) -> None:
    """Raise SettingsError before anything is written if memory or disk is too small."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(
            f"--out: {out} cannot be made: {error.strerror}; name another folder"
        ) from None
    need, free = disk_needed(model, prunes=prunes, distils=distils), shutil.disk_usage(out).free
    if need > free:
        raise refused(
            f"--out: about {need / 1e9:.1f} GB are needed on the disk of {out}, and "
            f"{free / 1e9:.1f} GB are free; free some space, or name a folder on another disk"
        )
    need, free = memory_needed(model, distils=distils), memory_free()
    if need > free:
        fix = "leave out --distil" if distils else "use a machine with more memory"
        raise refused(
            f"MODEL: about {need / 1e9:.1f} GB of memory are needed, and {free / 1e9:.1f} GB are "
            f"free; close other programs, or {fix}"
        )


def disk_needed(model: Checkpoint, *, prunes: bool, distils: bool) -> int:
    """Each stage leaves a file in float16; a lesson keeps float32 for the case that it is stopped."""
    return 2 * model.parameters * (2 + prunes + 3 * distils)


def memory_needed(model: Checkpoint, *, distils: bool) -> int:
    """An estimate from above: torch, what it keeps for each weight, and logits; or two
    mapped files."""
    vocabulary = model.tensors["token_embd.weight"].shape[0]
    if distils:
        logits = 6 * 4 * LOGITS_AT_ONCE * vocabulary
        return 23 * model.parameters + logits + (3 << 28)
    return 4 * model.parameters + 2 * 8 * _WINDOW * vocabulary + (1 << 29)


def memory_free() -> int:
    """Bytes that may still be taken, by the machine and by the control group (a container's)."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(int(each.split()[1]) << 10 for each in lines if each.startswith("MemAvail"))
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError, StopIteration):
        return found
    return found if most == "max" else min(found, int(most) - used)
