"""Run a command that ends when the process that started it does: `python tether.py PARENT SIGNAL COMMAND...`.

Run as a file, with the standard library only, and replaced by the command: same pid, nothing stays in between. On
Linux the kernel sends the signal when the parent is gone, whatever killed it. Elsewhere the command just runs, and
the next start takes over what is left (`ops.process.identity`).
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def exit_with_parent(parent: int, signum: int) -> None:
    """Ask for `signum` once `parent` ends; leave at once when it already has."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def command(arguments: list[str], signum: int) -> list[str]:
    """The command line that runs `arguments` tied to this process."""
    return [sys.executable, "-IS", __file__, str(os.getpid()), str(int(signum)), *arguments]


if __name__ == "__main__":
    exit_with_parent(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606 - no shell is the point
