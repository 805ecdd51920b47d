"""`slipway serve` and `slipway check`."""

import asyncio
import sys
from contextlib import closing
from functools import partial
from http.client import HTTPConnection, HTTPException

import msgspec

from slipway.app.banner import address_of, banner, local_address
from slipway.app.building import Assembly
from slipway.app.loading import (
    check_settings,
    load_settings,
    price_warnings,
    rule_warnings,
    with_model_names,
)
from slipway.app.logs import begin_log, use_format
from slipway.app.rulebooks import failing_tests
from slipway.app.stores import LazyRecords, LazyStore, has_knowledge
from slipway.app.supervised import serve_workers
from slipway.errors import SettingsError
from slipway.settings import Flags, Listen, Settings
from slipway.settings.live import LiveSettings
from slipway.settings.loading import Loaded
from slipway.store import check_usable, file_of, redis
from slipway.web.server import Server, bind
from slipway.weights import fetching


def serve(flags: Flags, *, quiet: bool = False) -> None:
    """Serve until SIGTERM. Raises SettingsError for invalid settings or an unusable address."""
    begin_log(quiet=quiet)
    flags = with_model_names(flags)
    found = load_settings(flags)
    use_format(found.settings)
    # the file is named from here on, so that a reload also finds it if it is missing for a moment
    flags = msgspec.structs.replace(flags, config=found.file)
    records = LazyRecords(found.settings)
    records.check()
    if found.settings.listen.workers > 1:
        records.close()  # each worker opens its own
        listening = bind(found.settings.listen)
        address = listening.getsockname()
        serve_workers(
            flags, found, listening, announce=partial(tell_start, found, address, quiet=quiet)
        )
        return
    store = LazyStore(found.settings)
    assembly = Assembly(store, LiveSettings(found, partial(check_settings, flags)), records)
    listening = bind(found.settings.listen)
    url = address_of(local_address(listening.getsockname()))

    def announce() -> None:
        if has_knowledge(assembly.current.settings):
            store().announce(url)

    announce()
    assembly.reloading.after_apply = announce
    tell_start(found, listening.getsockname(), quiet=quiet)
    with fetching.in_background(flags.models, shown=not quiet):
        Server(assembly.asgi, assembly.current).run(sockets=[listening])


def tell_start(found: Loaded, address: tuple[str, int], *, quiet: bool) -> None:
    for line in [
        *(
            f"warning: {w}"
            for w in (*found.warnings, *rule_warnings(found), *price_warnings(found))
        ),
        *([] if quiet else banner(found, address)),
    ]:
        print(line, file=sys.stderr)  # noqa: T201 - for the person who starts the server


def is_slipway(listen: Listen) -> bool:
    """Return True if a Slipway server answers at this address; wait at most 2 s."""
    host, port = local_address((listen.host, listen.port))
    connection = HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        return connection.getresponse().read().startswith(b'{"status":"ok"')
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def startable(flags: Flags) -> tuple[Loaded, bool]:
    """Return the settings, if a server could start with them, and whether a Slipway server has their
    port now: these may be its next settings.

    Raises SettingsError for invalid settings, and for a port or a store that a server could not
    use now.
    """
    found = check_settings(flags)
    settings = found.settings
    check_usable(file_of(settings))
    with closing(LazyRecords(settings)) as records:
        records.check()
    if failed := list(failing_tests(settings)):
        raise SettingsError(failed)
    try:
        bind(settings.listen).close()
    except SettingsError:
        if not is_slipway(settings.listen):
            raise
        return found, True
    return found, False


def check_shared(settings: Settings) -> None:
    """Raise SettingsError if Redis rejects what `shared` says; one that is down is no mistake."""
    if settings.shared is not None:
        asyncio.run(redis.check(settings.shared))
