"""Server-sent events (WHATWG HTML, 9.2): split incoming bytes into whole events, each with its
original bytes.
"""

import re

END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
LINE = re.compile(rb"\r\n|\n|\r")
LARGEST_EVENT = 16 * 1024 * 1024


class Framer:
    """Collects bytes and returns whole events. Anything in `rest` at the end of a stream is an
    unfinished event.
    """

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that are now whole, each with its final blank line. Raises ValueError
        if one grows past LARGEST_EVENT.
        """
        if self.rest:
            data = self.rest + data
        if (
            data.endswith(b"\n\n") and b"\r" not in data
        ):  # the usual case: whole events, ended by \n\n
            self.rest = b""
            return (
                [data]
                if data.find(b"\n\n") == len(data) - 2
                else [e + b"\n\n" for e in data[:-2].split(b"\n\n")]
            )
        events, start = [], 0
        for end in END.finditer(data):
            events.append(data[start : end.end()])
            start = end.end()
        self.rest = data[start:]
        if len(self.rest) > LARGEST_EVENT:
            raise ValueError("an event of the stream is too large")
        return events


def data_of(event: bytes) -> bytes:
    """Return the event's data, its `data:` lines joined; b"" if it has none (a comment, a
    heartbeat).
    """
    if (
        event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2
    ):  # one line, as every provider sends
        return event[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines)
