"""What goes wrong for reasons the person at the terminal can do something about."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(Exception):
    """Printed as it is, without a traceback. `code` is the exit code: 1 it failed, 2 it was asked for wrongly."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
