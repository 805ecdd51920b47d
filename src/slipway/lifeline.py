"""End a child process when we end, however that happens: it holds one end of a pipe that carries
nothing and closes when we are gone.
"""

import os
import sys


class Lifeline:
    """Our end of the pipe. Start the child with `pass_fds=line.fds`; it calls
    `end_with_parent(line.fd)`. Then call `close_child_end` here.
    """

    def __init__(self) -> None:
        self.fd, self._ours = os.pipe() if sys.platform != "win32" else (-1, -1)
        self._theirs = self.fd

    @property
    def fds(self) -> list[int]:
        return [self.fd] if self.fd >= 0 else []

    def close_child_end(self) -> None:
        """Close our copy of the child's end."""
        if self._theirs >= 0:
            os.close(self._theirs)
        self._theirs = -1

    def end_child(self) -> None:
        """End the child if it still runs. May be called twice."""
        self.close_child_end()
        if self._ours >= 0:
            os.close(self._ours)
        self._ours = -1


# In the child


def end_with_parent(fd: int) -> None:
    """Make the system send SIGIO, which nobody handles, when the parent is gone. This ends even a
    library's endless loop.

    Linux only; elsewhere the child has to find out by itself. (PR_SET_PDEATHSIG would be sent when
    the thread ends that started the child.)
    """
    if sys.platform != "win32" and fd >= 0:
        import fcntl
        import signal

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
