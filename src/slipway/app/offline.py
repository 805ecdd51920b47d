"""A pipeline without a server, for the commands that answer in their own process."""

from collections.abc import Callable

from slipway.answer import Pipeline
from slipway.app.compiling import Carried, compile_pipeline, models_for
from slipway.app.loading import load_settings
from slipway.app.stores import LazyStore, distinct, synchronizers_for
from slipway.cache import AnswerCache
from slipway.knowledge.sync import Synchronizer
from slipway.settings import Flags, Settings
from slipway.settings.live import LiveSettings
from slipway.settings.loading import Loaded
from slipway.types import Emit


def local_pipeline(flags: Flags) -> Pipeline:
    """Return the pipeline of `slipway ask`: the documents are read before it returns."""
    return offline_pipeline(load_settings(flags).settings, read_documents)


def read_documents(synchronizer: Synchronizer) -> None:
    """Read the documents; use the vectors that exist, and make none."""
    synchronizer.build()
    synchronizer.load_vectors()


def offline_pipeline(
    settings: Settings,
    read: Callable[[Synchronizer], object],
    emit: Emit = lambda record: None,
) -> Pipeline:
    """Compile the settings for use in this process; call `read` for each set of documents."""
    synchronizers = synchronizers_for(settings, LazyStore(settings), {})
    for synchronizer in distinct(synchronizers):
        read(synchronizer)
    return compile_pipeline(
        settings,
        models_for(settings, {}),
        synchronizers,
        Carried(
            emit=emit,
            live=LiveSettings(Loaded(settings=settings, file=None)),
            cache=AnswerCache(),
        ),
    )
