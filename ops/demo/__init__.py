"""Demo: events of an invented team that works with AI agents, for `attn up --demo`."""

from ops.demo.player import run

__all__ = ["run"]
