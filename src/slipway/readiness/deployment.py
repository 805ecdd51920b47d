"""What `slipway check` looks at: valid settings, and what a person allowed it to do."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from slipway.settings import Settings
from slipway.settings.loading import Loaded
from slipway.types import Record

Result = TypeVar("Result")


class DeploymentToCheck(Record, frozen=True, kw_only=True):
    """Settings that a server could start with. `is_served`: a Slipway server has their port now.
    `offline`: connect to nothing outside this machine. `paid`: call each model once.
    """

    found: Loaded
    is_served: bool = False
    offline: bool = False
    paid: bool = False

    @property
    def settings(self) -> Settings:
        return self.found.settings

    @property
    def name(self) -> str:
        """Return what is checked, as a report calls it."""
        return str(self.found.file) if self.found.file is not None else "settings of the flags"


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run what blocks in a thread that the end of the process does not wait for, since a network
    folder or a database may hang.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(set_it: Callable[..., None], value: object) -> None:
        if not future.done():
            set_it(value)

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            outcome: tuple[Callable[..., None], object] = (future.set_exception, error)
        else:
            outcome = (future.set_result, result)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, daemon=True, name="slipway check").start()
    return await future
