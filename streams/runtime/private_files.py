"""Files that only their owner may read: the data directory with all inboxes, and secrets, one per file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["create_secret", "make_private_dir", "read_secret", "replace_atomically"]


def make_private_dir(directory: Path) -> None:
    """Creates a directory with mode 0700, and its parents. An existing directory keeps its mode."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)


def read_secret(path: Path) -> str:
    """Returns the secret in a file. Raises OSError if the file cannot be read."""
    return path.read_text().strip()


def create_secret(path: Path) -> bool:
    """Writes a new secret of 48 random bytes, atomically and with mode 0600. Returns False if the file exists."""
    if path.exists():
        return False
    draft = path.with_suffix(f".{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(48) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # fails if another process has created the secret in the meantime; `replace` would not
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


@contextmanager
def replace_atomically(path: Path, draft: Path | None = None) -> Iterator[Path]:
    """Gives a draft to write to; renames it to `path` at the end of the block, or deletes it if the block raises.

    Readers of `path` see the old content or the new, never a part. `draft` must be on the same file system; default:
    `path` with ".new" appended. The caller syncs the draft to disk where the content must survive a power failure.
    """
    draft = path.with_name(f"{path.name}.new") if draft is None else draft
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
