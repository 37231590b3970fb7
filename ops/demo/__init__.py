"""The demo of `attn up --demo`: generates events of a fictional team that works with AI agents."""

from ops.demo.player import run

__all__ = ["run"]
