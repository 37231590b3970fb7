"""Runs a command that ends when its parent process ends: `python parent_death.py PARENT SIGNAL COMMAND...`.

This file runs as a script with the standard library only, and execs the command: the pid stays the same and no process
stays in between. On Linux the kernel sends the signal when the parent is gone, whatever ended it (prctl
PR_SET_PDEATHSIG). On other systems the command just runs, and the next start of the supervisor ends what is left over
(`ops.process.identity`).
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def exit_with_parent(parent: int, signum: int) -> None:
    """Asks the kernel to send `signum` to this process once `parent` ends. Exits at once if it has ended already."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def command(arguments: list[str], signum: int) -> list[str]:
    """Returns the command line that runs `arguments` and sends them `signum` when this process ends."""
    return [sys.executable, "-IS", __file__, str(os.getpid()), str(int(signum)), *arguments]


if __name__ == "__main__":
    exit_with_parent(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606 - no shell, on purpose
