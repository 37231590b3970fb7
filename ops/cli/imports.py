"""Imports the modules of a command with less CPU: without garbage collections, and structlog without rich.

A killed process serves again only after its imports. Modules do not become garbage, so a collection during an import
only takes time. structlog imports rich for coloured tracebacks, which the logs of attn do not have.
"""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType

__all__ = ["LONG_RUNNING", "import_module"]

# Modules of commands that run for long. They import structlog in any case, and none of them imports rich.
LONG_RUNNING = frozenset(
    f"ops.cli.commands.{name}" for name in ("history", "roles", "sources.connect", "sources.mcp", "up"))


def import_module(name: str) -> ModuleType:
    """Imports and returns a module. Raises what the module raises."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        if name in LONG_RUNNING:
            _import_structlog()
        return importlib.import_module(name)
    finally:
        if enabled:
            gc.enable()


def _import_structlog() -> None:
    """Imports structlog as if rich were not installed. A later import of rich succeeds."""
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # documented: `import rich` raises ModuleNotFoundError
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
