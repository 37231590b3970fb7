"""The session of this terminal (`attn login`), in a file that only its owner may read: attn/session.json below
XDG_CONFIG_HOME, else ~/.config."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from ops.errors import UserError
from streams.runtime.private_files import make_private_dir, replace_atomically

__all__ = ["TerminalSession", "delete_session", "read_session", "session_file", "write_session"]


class TerminalSession(msgspec.Struct):
    """What the file has. `url`: of attn. `session`: its text, a bearer token."""

    url: str
    session: str
    user_id: str
    workspace_id: str
    role: str


def session_file() -> Path:
    """Returns the path of the file, whether it exists or not."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".config"  # the specification ignores relative paths
    return folder / "attn" / "session.json"


def read_session(check_mode: bool = True) -> TerminalSession | None:
    """Returns the session; None if there is none. Raises UserError if the file cannot be read, or others can read
    it."""
    path = session_file()
    try:
        with path.open("rb") as file:
            if check_mode and os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise UserError(f"other users can read {path}: run `attn logout`, then `attn login` again")
            return msgspec.json.decode(file.read(), type=TerminalSession)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(f"cannot read {path}: {error}; delete it and run `attn login` again") from None


def write_session(session: TerminalSession) -> None:
    """Replaces the session, with mode 0600. Raises UserError if the file cannot be written."""
    path = session_file()
    try:
        make_private_dir(path.parent)
        with replace_atomically(path) as draft:
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.encode(session) + b"\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from None


def delete_session() -> None:
    """Deletes the file, if it exists. Raises UserError if it cannot be deleted."""
    try:
        session_file().unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot delete {session_file()}: {error}") from None
