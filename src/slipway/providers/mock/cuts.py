"""Where a reply can break off: each function returns the writes that are left. A reply in one piece
has no chunks and breaks off half-way instead.
"""

import re

from slipway.providers.mock.reply import MockReply, TimedWrite

Writes = tuple[TimedWrite, ...]

_MULTI_BYTE = re.compile(rb'.*?"content":".*?[\x80-\xff]')


def at_byte(reply: MockReply, size: int) -> Writes:
    """Return the first `size` bytes."""
    kept = []
    for write in reply.writes:
        if size <= 0:
            break
        kept.append(write._replace(data=write.data[:size]))
        size -= len(write.data)
    return tuple(kept)


def at_chunk(reply: MockReply, count: int) -> Writes:
    """Return a stream's writes before its content chunk number `count`, never with its finish."""
    if reply.length is not None:
        return at_byte(reply, reply.length // 2)
    marks = content(reply)
    if not marks:
        return ()
    return reply.writes[: marks[count] if count < len(marks) else marks[-1] + 1]


def in_character(reply: MockReply, count: int) -> Writes:
    """Cut inside the first multi-byte character after `count` content chunks; if there is none,
    inside a chunk.
    """
    for index in range(len(reply.writes)) if reply.length is not None else content(reply)[count:]:
        if found := _MULTI_BYTE.match(reply.writes[index].data):
            return (*reply.writes[:index], reply.writes[index]._replace(data=found[0]))
    kept = at_chunk(reply, count)
    broken = reply.writes[len(kept) : len(kept) + 1] if reply.length is None else ()
    return (*kept, *(write._replace(data=write.data[: len(write.data) // 2]) for write in broken))


def behind_finish(reply: MockReply) -> Writes:
    """Return everything up to the last finish reason; a reply in one piece lacks its last byte."""
    if reply.length is not None:
        return at_byte(reply, reply.length - 1)
    finished = [index for index, write in enumerate(reply.writes) if write.finish]
    return reply.writes[: finished[-1] + 1] if finished else reply.writes


def content(reply: MockReply) -> list[int]:
    """Return the indices of the writes that carry text."""
    return [index for index, write in enumerate(reply.writes) if write.content]
