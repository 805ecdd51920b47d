"""Server-sent events (WHATWG HTML, 9.2): split incoming bytes into whole events, each with its
original bytes.
"""

import re

# Two line ends in a row; atomic, so that one \r\n is not taken for two
END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
LINE = re.compile(rb"\r\n|\n|\r")
LONGEST_END = 4  # bytes
LARGEST_EVENT = 16 * 1024 * 1024


class Framer:
    """Collects bytes and returns whole events. Anything in `rest` at the end of a stream is an
    unfinished event.

    An event that arrives in many blocks is searched once, not again with each block.
    """

    __slots__ = ("_blocks", "_size", "_tail")

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._size = 0
        self._tail = b""  # the last bytes, which may be the beginning of an event's end

    @property
    def rest(self) -> bytes:
        """Return the bytes that are not a whole event yet."""
        return b"".join(self._blocks)

    @property
    def has_rest(self) -> bool:
        return bool(self._blocks)

    @property
    def is_comment(self) -> bool:
        """Return whether the incomplete event begins like a comment."""
        return bool(self._blocks) and self._blocks[0].startswith(b":")

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that are now whole, each with its final blank line. Raises ValueError
        if one grows past LARGEST_EVENT.
        """
        if not self._blocks and data.endswith(b"\n\n") and b"\r" not in data:  # the usual case
            if data.find(b"\n\n") == len(data) - 2:
                return [data]
            return [event + b"\n\n" for event in data[:-2].split(b"\n\n")]
        near = self._tail + data
        self._blocks.append(data)
        self._size += len(data)
        # a search for two bytes is a hundred times as fast as END, and enough for most providers
        plain = b"\r" not in near
        if b"\n\n" not in near if plain else END.search(near) is None:
            self._keep(near)
            return []
        held = self.rest
        if plain and b"\r" not in held:
            if held.find(b"\n\n") == len(held) - 2:
                self._blocks, self._size, self._tail = [], 0, b""
                return [held]
            events = [event + b"\n\n" for event in held.split(b"\n\n")]
            last = events.pop()[:-2]
            self._blocks, self._size = [last] if last else [], len(last)
            self._keep(last)
            return events
        events, start = [], 0
        for end in END.finditer(held):
            events.append(held[start : end.end()])
            start = end.end()
        self._blocks = [held[start:]] if start < len(held) else []
        self._size = len(held) - start
        self._keep(held[start:])
        return events

    def _keep(self, near: bytes) -> None:
        self._tail = near[-LONGEST_END + 1 :]
        if self._size > LARGEST_EVENT:
            raise ValueError("an event of the stream is too large")


def data_of(event: bytes) -> bytes:
    """Return the event's data, its `data:` lines joined; b"" if it has none (a comment, a
    heartbeat).
    """
    if (
        event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2
    ):  # one line, as most providers send
        return event[6:-2]
    return b"\n".join(data_lines(event))


def data_lines(event: bytes) -> list[bytes]:
    """Return the data of each `data:` line."""
    return [line[5:].removeprefix(b" ") for line in LINE.split(event) if line.startswith(b"data:")]


def name_of(event: bytes) -> bytes:
    """Return the event's name, from its `event:` line; b"" if it has none."""
    lines = (line for line in LINE.split(event) if line.startswith(b"event:"))
    return next((line[6:].strip() for line in lines), b"")
