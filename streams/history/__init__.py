"""History: facts -> ClickHouse, each exactly once (CONTRACT §6). `attn history` runs `run`."""

from streams.history.main import run

__all__ = ["run"]
