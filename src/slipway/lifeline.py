"""A child process ends when we do, however we end: it holds one end of a pipe that says nothing,
and that closes when we are gone.
"""

import os
import sys


class Lifeline:
    """Our end. The child is started with `pass_fds=line.fds` and calls `hold(line.fd)`; then
    `handed_over` closes its end here.
    """

    def __init__(self) -> None:
        self.fd, self._ours = os.pipe() if sys.platform != "win32" else (-1, -1)
        self._theirs = self.fd

    @property
    def fds(self) -> list[int]:
        return [self.fd] if self.fd >= 0 else []

    def handed_over(self) -> None:
        if self._theirs >= 0:
            os.close(self._theirs)
        self._theirs = -1

    def cut(self) -> None:
        """The child ends, if it has not. May be called twice."""
        self.handed_over()
        if self._ours >= 0:
            os.close(self._ours)
        self._ours = -1


# In the child


def hold(fd: int) -> None:
    """When the parent is gone, its end closes, and the system sends SIGIO, which nobody handles: it
    ends a library's endless loop too.

    Linux only; elsewhere the child has to find out by itself. (PR_SET_PDEATHSIG would be sent when
    the thread ends that started the child.)
    """
    if sys.platform != "win32" and fd >= 0:
        import fcntl
        import signal

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
