"""A pipeline without a server, for the commands that answer in their own process."""

import atexit
from collections.abc import Callable

from slipway.answer import Pipeline
from slipway.answer.settlement import NO_BOOKS, Bookkeeper
from slipway.app.compiling import Carried, compile_pipeline, models_for
from slipway.app.loading import load_settings
from slipway.app.stores import (
    LazyRecords,
    LazyStore,
    distinct,
    has_knowledge,
    synchronizers_for,
)
from slipway.cache import AnswerCache
from slipway.knowledge.sync import Synchronizer
from slipway.settings import Flags, Settings
from slipway.settings.live import LiveSettings
from slipway.settings.loading import Loaded
from slipway.store import LedgerWriter, RowWriter
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
            books=books_of(settings),
        ),
    )


def books_of(settings: Settings) -> Bookkeeper:
    """Return where a command books its calls: in the ledger of the store, if there is a store."""
    records = LazyRecords(settings)
    if not (records.is_there or has_knowledge(settings)):
        return NO_BOOKS
    writer = RowWriter(records, records.folder / "journal")
    atexit.register(writer.close)
    return LedgerWriter(writer, records.folder / "holds", lambda: records().ledger)
