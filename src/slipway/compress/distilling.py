"""Teaching a smaller model what the original would say: forward KL on every token.

The text is the operator's own, and beside it answers that the original writes itself. The student
sees its weights as the file will store them (rounded to q4_0, if that is the target), and gradients
pass the rounding as if it were not there (Bengio et al. 2013): what the rounding costs is learnt
away together with what was pruned. The vocabulary's vectors are left as they are.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as fn

from slipway.compress.checkpoint import Checkpoint, Tensor
from slipway.compress.network import Network, as_q4_0, fast_type, weights_of
from slipway.compress.planning import LOGITS_AT_ONCE
from slipway.compress.quantising import types_of
from slipway.settings.environment import thread_count
from slipway.types import Record

Torch = Any
Model = tuple[Network, Mapping[str, Torch]]  # and its weights
_FROZEN = ("token_embd.weight", "output.weight", "rope_freqs.weight")
_WARM_UP = 10  # steps
_SAVE_S = 60.0  # between checkpoints


class Lesson(Record, frozen=True, kw_only=True):
    """How to distil. `cpu_s` of processor time at most, `steps` at most; `form` is the file's."""

    windows: Sequence[Sequence[int]]
    form: str
    cpu_s: float = 1500.0
    steps: int = 400
    batch: int = 2
    rate: float = 2e-4
    seed: int = 0


class DistilProgress(Record, frozen=True, kw_only=True):
    """`share` of the whole that is done, by steps or by processor time, whichever is further."""

    step: int
    loss: float
    cpu_s: float
    share: float


class Student:
    """The weights that are taught: masters in float32, and beside them what a step computes with."""

    def __init__(self, model: Checkpoint, form: str, start: Mapping[str, Torch]) -> None:
        self.masters = {k: v.clone() for k, v in start.items() if k not in _FROZEN}
        kinds = types_of(model, form)
        self._rounded = {name for name in self.masters if kinds[name] == "q4_0"}
        fast = fast_type()
        self._used: dict[str, Torch] = {
            name: value.to(fast) if value.dim() > 1 else value.clone()
            for name, value in start.items()
        }
        for name in self.masters:
            self._used[name].requires_grad_()

    def ready(self) -> Mapping[str, Torch]:
        """The weights as they would be stored."""
        with torch.no_grad():
            for name, master in self.masters.items():
                self._used[name].copy_(as_q4_0(master) if name in self._rounded else master)
        return self._used

    def hand_over(self, batch: int) -> None:
        """Gradients of what was computed with become those of the masters: the mean of a batch."""
        for name, master in self.masters.items():
            master.grad = self._used[name].grad.float() / batch
            self._used[name].grad = None


def distil(
    teacher: Checkpoint,
    student: Checkpoint,
    lesson: Lesson,
    half: Path,
    seen: Callable[[DistilProgress], None],
) -> Checkpoint:
    """The student after its lessons. `half` keeps what is done, so that the next call goes on."""
    torch.manual_seed(lesson.seed)
    torch.set_num_threads(thread_count())
    length = len(lesson.windows[0])
    fast = fast_type()
    known, tells = weights_of(teacher, fast), Network(teacher, length)
    begun, start = _begun(half, student)
    taught, learns = Student(student, lesson.form, start), Network(student, length)
    del start
    masters = list(taught.masters.values())
    optimiser = torch.optim.AdamW(masters, lr=lesson.rate, weight_decay=0.0, fused=True)
    saved, before = time.monotonic(), time.process_time()
    for step in range(begun.step, lesson.steps):
        spent = begun.cpu_s + time.process_time() - before
        share = max(step / lesson.steps, spent / lesson.cpu_s)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = lesson.rate * _schedule(share, step - begun.step)
        weights, loss = taught.ready(), 0.0
        for tokens in _batch(lesson, step).split(1):  # one at a time needs the least memory
            loss += _learn((tells, known), (learns, weights), tokens) / lesson.batch
        taught.hand_over(lesson.batch)
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimiser.step()
        optimiser.zero_grad()  # gives the memory back
        spent = begun.cpu_s + time.process_time() - before
        share = min(1.0, max((step + 1) / lesson.steps, spent / lesson.cpu_s))
        now = DistilProgress(step=step + 1, loss=loss, cpu_s=spent, share=share)
        seen(now)
        if time.monotonic() - saved > _SAVE_S:
            _save(half, taught, now)
            saved = time.monotonic()
    return _as_checkpoint(student, taught)


def _learn(teacher: Model, student: Model, tokens: Torch) -> float:
    """KL(teacher || student), mean over tokens; its gradient is added to the student's weights.

    Logits are made for some tokens at a time: those of a whole window, with what their gradients
    need, would take more memory than anything else.
    """
    (tells, known), (learns, weights) = teacher, student
    with torch.no_grad():
        wanted = tells.states(known, tokens)
    states = learns.states(weights, tokens)
    ends, loss = states.detach().requires_grad_(), 0.0
    for should, mine in zip(
        wanted.split(LOGITS_AT_ONCE, 1), ends.split(LOGITS_AT_ONCE, 1), strict=True
    ):
        with torch.no_grad():
            target = torch.log_softmax(tells.logits(known, should), -1)
        found = torch.log_softmax(learns.logits(weights, mine), -1)
        part = fn.kl_div(found, target, reduction="sum", log_target=True) / tokens.shape[1]
        part.backward()
        loss += float(part.detach())
    states.backward(ends.grad)
    return loss


def _schedule(share: float, since: int) -> float:
    """Warm-up, then a cosine down to a tenth. After a break the warm-up comes again: the
    optimiser's memory is not kept."""
    return min(1.0, (since + 1) / _WARM_UP) * (0.55 + 0.45 * float(np.cos(np.pi * min(1.0, share))))


def _batch(lesson: Lesson, step: int) -> Torch:
    """Windows in an order of their own in each pass, the same after a break."""
    count = len(lesson.windows)
    passes, at = divmod(step * lesson.batch, count)
    order = np.random.default_rng(lesson.seed + passes).permutation(count)
    chosen = [int(order[(at + n) % count]) for n in range(lesson.batch)]
    return torch.tensor([list(lesson.windows[n]) for n in chosen])


# What is kept


def _save(half: Path, taught: Student, now: DistilProgress) -> None:
    part = half.with_name(f".{half.name}.part")
    torch.save({"masters": taught.masters, "step": now.step, "cpu_s": now.cpu_s}, part)
    part.replace(half)


def _begun(half: Path, student: Checkpoint) -> tuple[DistilProgress, dict[str, Torch]]:
    weights = weights_of(student)
    if not half.is_file():
        return DistilProgress(step=0, loss=0.0, cpu_s=0.0, share=0.0), weights
    kept = torch.load(half, weights_only=True)
    weights.update(kept["masters"])
    return DistilProgress(step=kept["step"], loss=0.0, cpu_s=kept["cpu_s"], share=0.0), weights


def _as_checkpoint(student: Checkpoint, taught: Student) -> Checkpoint:
    tensors = dict(student.tensors)
    for name, master in taught.masters.items():
        values = master.numpy()
        tensors[name] = Tensor(shape=values.shape, kind="f32", load=lambda v=values: v)  # type: ignore[misc]
    return Checkpoint(architecture=student.architecture, fields=student.fields, tensors=tensors)
