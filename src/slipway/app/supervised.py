"""The start of a server with several workers: sockets, the supervisor, and each worker's process."""

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

from slipway.app.banner import address_of, local_address
from slipway.app.crew import Crew, notes, pack, unfinished, unpack
from slipway.app.gauges import edges_of
from slipway.app.loading import check_settings
from slipway.app.logs import use_format
from slipway.app.stores import LazyStore, has_knowledge
from slipway.app.working import FirstAssembly, FollowerAssembly, WorkerAssembly
from slipway.errors import SettingsError
from slipway.settings import Flags
from slipway.settings.live import LiveSettings
from slipway.settings.loading import Loaded
from slipway.web.worker_server import WorkerServer
from slipway.weights import fetching
from slipway.workers import Board, Channel, ChannelError, Supervisor, bind_all, bind_inner
from slipway.workers.channel import Line, Verb, encode
from slipway.workers.supervising import Answer, Worker

LONGEST_FOLDER = 64  # bytes; the names of the folder and the socket follow
log = logging.getLogger("slipway")


class SettingsInForce:
    """The settings in force in all workers, as the supervisor knows them: a worker that is started
    again begins with them.
    """

    def __init__(self, found: Loaded, supervisor: Supervisor) -> None:
        self.found, self.version = found, 1
        self.proposed: Any = None
        self._supervisor = supervisor
        self._versions: dict[int, int] = {}  # worker -> the version that it began with
        supervisor.verbs |= {"propose": self.propose, "commit": self.commit, "began": self.began}

    def propose(self, proposer: Worker, settings: Any, answer: Answer) -> None:
        """Let all workers but the proposer compile the settings; answer with their problems."""
        self.proposed = settings
        body = {"version": self.version + 1, "settings": settings}

        def take(lines: list[Line]) -> None:
            answer([problem for line in lines for problem in line.body or ()])

        self._supervisor.ask(self._others(proposer), "prepare", body, take)

    def commit(self, proposer: Worker, _: Any, answer: Answer) -> None:
        """Put the proposed settings in force."""
        self.version += 1
        self.found = unpack(self.proposed)
        body = {"version": self.version, "settings": self.proposed}

        def take(lines: list[Line]) -> None:
            for line in lines:
                if line.error is not None:
                    log.warning("a worker did not take the new settings: %s", line.error)
            answer(None)

        self._supervisor.ask(self._others(proposer), "apply", body, take)

    def began(self, worker: Worker, version: int, answer: Answer) -> None:
        """Send the settings to a worker that began with older ones."""
        if version != self.version and worker.number != 1:
            body = {"version": self.version, "settings": pack(self.found)}
            self._supervisor.tell(worker, "apply", body)
        answer(None)

    def _others(self, proposer: Worker) -> list[Worker]:
        return [each for each in self._supervisor.workers.values() if each is not proposer]


def serve_workers(
    flags: Flags, found: Loaded, listening: socket.socket, *, announce: Callable[[], None]
) -> None:
    """Serve with several worker processes until SIGTERM; `listening` has the address.

    `announce` is called once all of them take requests. Raises SettingsError if they cannot start.
    """
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "fork"):
        raise SettingsError(["listen.workers: this system runs one worker only; write 1"])
    workers = found.settings.listen.workers
    address = listening.getsockname()
    sockets = bind_all(listening, workers)

    def ready() -> None:
        announce()
        for note in notes(found.settings):
            log.info("%s", note)

    folder, own = folder_for_socket(), os.getpid()
    try:
        path, secret = folder / "first.sock", secrets.token_hex(32).encode()
        board, edges = Board(workers), edges_of(found.settings)
        supervisor = Supervisor(
            board,
            sockets,
            bind_inner(path),
            grace_s=lambda: agreement.found.settings.listen.grace,
            on_ready=ready,
            unfinished=partial(unfinished, board),
        )
        agreement = SettingsInForce(found, supervisor)
        gc.collect()
        gc.freeze()  # the workers share what exists now: a collection must not write to it
        if (place := supervisor.run()) is not None:
            crew = Crew(place, board, path, secret, edges)
            url = address_of(local_address(address))
            Work(crew, supervisor, agreement, flags, url).run()
    finally:
        if os.getpid() == own:
            rmtree(folder, ignore_errors=True)


class Work:
    """One worker, in its process."""

    def __init__(
        self, crew: Crew, supervisor: Supervisor, agreement: SettingsInForce, flags: Flags, url: str
    ) -> None:
        self.crew, self.place, self.flags, self.url = crew, crew.place, flags, url
        self.sockets, self.inner = supervisor.sockets, supervisor.inner
        self.found, self.version = agreement.found, agreement.version
        self.store = LazyStore(self.found.settings)
        self.loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """Take requests until the supervisor, or a signal, asks this worker to end."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor passes on what is meant
        use_format(self.found.settings, self.place.number)
        try:
            self.assembly = self.assemble()
        except SettingsError as error:
            failed = Line(verb="failed", body=error.problems)
            self.place.end.sendall(encode(failed))
            raise SystemExit(1) from None
        self.announce()
        self.server = WorkerServer(
            self.assembly.asgi, self.assembly.current, self.sockets, self.began, self.leaving
        )
        self.channel = self.crew.channel = Channel(self.place.end, self.verbs(), self.orphaned)
        own = self.sockets[self.place.number - 1]
        if not self.place.is_first:
            self.server.run(sockets=[own])
            return
        with fetching.in_background(self.flags.models, shown=False):
            self.server.run(sockets=[own, self.inner])

    def assemble(self) -> WorkerAssembly:
        if not self.place.is_first:
            return FollowerAssembly(LiveSettings(self.found), self.crew, self.version)
        live = LiveSettings(self.found, partial(check_settings, self.flags))
        assembly = FirstAssembly(self.store, live, self.crew)
        assembly.reloading.after_apply = self.announce
        return assembly

    def announce(self) -> None:
        """Write into the store's lock where the server listens."""
        if self.place.is_first and has_knowledge(self.assembly.current.settings):
            self.store().announce(self.url)

    def verbs(self) -> dict[str, Verb]:
        return {
            **self.assembly.verbs,
            "stop": acting(self.stop),
            "end": acting(self.server.end_now),
            "listen": self.server.listen,
            "leave": self.server.leave,
        }

    async def began(self) -> None:
        """Tell the supervisor that requests are taken now."""
        self.loop = asyncio.get_running_loop()
        await self.channel.start()
        await self.assembly.begin()
        await self.channel.call("supervisor", "began", self.version)
        await self.channel.call("supervisor", "ready")
        if self.place.is_first and self.crew.board.starts(1) > 1:
            self.read_again()

    def read_again(self) -> None:
        """Apply a change of the settings file that came while no first worker ran."""
        reloading = self.assembly.reloading
        try:
            fresh = check_settings(self.flags, self.found.settings)
        except SettingsError:
            reloading.check_now()  # says why they are refused
        else:
            if fresh.settings != self.found.settings:
                reloading.check_now()

    def stop(self) -> None:
        """Finish within the grace."""
        self.server.handle_exit(signal.SIGTERM, None)

    def orphaned(self) -> None:
        """Finish, and tidy up, as the supervisor has ended and cannot."""
        if self.place.is_first and not self.server.should_exit:
            rmtree(self.crew.path.parent, ignore_errors=True)
        self.stop()

    def leaving(self) -> None:
        """Give the port up: the supervisor lets others take our connections.

        May run in a signal handler, so the loop does it.
        """
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        for each in self.sockets:
            if each is not self.sockets[self.place.number - 1]:
                each.close()
        self._telling = asyncio.get_running_loop().create_task(self._tell_leaving())

    async def _tell_leaving(self) -> None:
        with suppress(ChannelError):  # the supervisor has ended
            await self.channel.call("supervisor", "leaving")


def folder_for_socket() -> Path:
    """Make the folder of the workers' socket. The path of a socket has at most 103 bytes on some
    systems (unix(7), sun_path), so that a long TMPDIR cannot be used.
    """
    usual = tempfile.gettempdir()
    fits = len(os.fsencode(usual)) <= LONGEST_FOLDER
    return Path(tempfile.mkdtemp(prefix="slipway-workers-", dir=usual if fits else "/tmp"))  # noqa: S108 - mkdtemp makes it private


def acting(act: Callable[[], object]) -> Verb:
    """Return a verb that calls a function without arguments."""

    async def verb(_: Any) -> None:
        act()

    return verb
