"""A believable day of a team that works with AI agents: `attn up --demo`."""

from ops.demo.player import run

__all__ = ["run"]
