"""The way from a model to a smaller one: read `compress` top to bottom.

Every stage leaves its file and its result in the folder, so that a run that was stopped goes on.
Between stages there are files only, of weights in float16; no two large models are in memory at
once except while one teaches the other.
"""

from importlib.util import find_spec
from pathlib import Path

from slipway.compress import planning, pruning, texts
from slipway.compress.checkpoint import Checkpoint, read_gguf
from slipway.compress.huggingface import read_folder
from slipway.compress.jobs import Hands, Job
from slipway.compress.refusals import refused
from slipway.compress.results import Outcome
from slipway.compress.stages import Stages
from slipway.compress.state import held


def compress(job: Job, hands: Hands) -> Outcome:
    """Raises SettingsError for what cannot be done as asked, KeyboardInterrupt if it is stopped."""
    source = _opened(job.model)  # what is no model is said before anything is made
    _check_needs(job, source)
    with held(job.out) as state:
        run = Stages(job, hands, state)
        ingested = run.ingest(source)
        found = run.prepare()
        planned = run.plan()
        original = run.baseline()
        pruned = run.prune(planned) if planned.cut else None
        distilled = run.distil(planned, original, pruned) if planned.distils else None
        result = run.quantise(planned)
        gated = run.gate(planned, result)
        registered = run.register(gated, result)
    return Outcome(
        command=job.command,
        ingested=ingested,
        texts=found,
        planned=planned,
        original=original,
        pruned=pruned,
        distilled=distilled,
        result=result,
        gated=gated,
        registered=registered,
        price_hour=job.price_hour,
        seconds=state.seconds,
        memory=state.memory,
    )


def _check_needs(job: Job, source: Checkpoint) -> None:
    """Whatever would stop the run later, said now."""
    if job.prune:
        pruning.cut_from(job.prune, source)
    given = {
        "--distil": job.distil,
        "--calibrate": job.calibrate,
        "--test": job.test,
        "--other": job.other,
    }
    found = {flag: texts.documents_in(path, flag) for flag, path in given.items() if path}
    if "--distil" in found:
        texts.check_enough(found["--distil"], "--distil")
        texts.refuse_shared(found["--distil"], found.get("--test", []), "--test")
    if job.distil is not None and find_spec("torch") is None:
        raise refused("--distil: torch is not installed; pip install 'slipway[distil]'")
    planning.check_room(
        source, job.out, prunes=job.prune is not None, distils=job.distil is not None
    )


def _opened(path: Path) -> Checkpoint:
    if path.is_dir():
        return read_folder(path)
    return read_gguf(path)
