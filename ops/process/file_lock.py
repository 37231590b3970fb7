"""Exclusive lock on a file, held by one process at a time. The kernel releases it when the process ends, however that
happens; child processes do not inherit it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.errors import UserError

__all__ = ["exclusive_lock"]


@contextmanager
def exclusive_lock(path: Path, busy: str | None = None) -> Iterator[None]:
    """Holds the lock on `path` for the block; creates the file if it is missing.

    Without `busy` it waits until the lock is free. Otherwise it does not wait: raises UserError with the text `busy` if
    another process holds the lock. Raises OSError if the file cannot be opened.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if busy is None else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(busy or "") from None
        yield
