"""Settings: `ATTN_*` variables, a `.env` file, or flags of the command line. Each default carries its reason."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from typing_extensions import Annotated  # noqa: UP035 - pydantic-settings reads NoDecode from it on 3.11 too

from schemas.codec import SECOND

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Everything an operator may set. Lengths are characters or bytes as named, times seconds unless named."""

    model_config = SettingsConfigDict(env_prefix="ATTN_", env_file=".env", extra="ignore", frozen=True)

    # Where things are.
    kafka: str = Field("127.0.0.1:19092", description="bootstrap servers, HOST:PORT[,HOST:PORT]")
    clickhouse: str = Field("", description="http(s)://user:password@host:port/database; empty: chdb in data_dir")
    data_dir: Path = Field(Path("data"), description="state of one machine: broker, chdb, secret")
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    kafka_port: int = Field(19092, ge=0, le=65535, description="port of the embedded broker")
    poll_rest: float = Field(
        0.0, ge=0, le=1, description="seconds a consumer rests after an empty fetch; for a broker that holds none"
    )
    instance: str = Field("1", description="name of this process among its like; static group membership uses it")
    incarnation: int = Field(0, ge=0, description="raised when the broker lost its tail, so offsets were given twice")
    metrics_port: int = Field(0, ge=0, le=65535, description="worker, history: /metrics and /readyz there; 0: off")

    # Topics. Eight partitions keep two cores busy; a production cluster takes 64 (a partition is the unit of scale).
    log_partitions: int = Field(8, ge=1, le=1024)
    source_partitions: int = Field(4, ge=1, le=1024)
    replication: int = Field(1, ge=1, le=5)
    log_retention_hours: int = Field(7 * 24, ge=1)
    source_retention_hours: int = Field(7 * 24, ge=1)
    facts_retention_hours: int = Field(7 * 24, ge=1)
    dead_letter_retention_hours: int = Field(30 * 24, ge=1)
    # A feed can be resumed after a restart for as long as the views' changes are kept uncompacted.
    resume_hours: float = Field(1.0, gt=0)

    # The fold.
    retention_days: float = Field(30.0, gt=0, description="how long resolved items stay readable, of the log's clock")
    dedupe_days: float = Field(30.0, gt=0, description="how long an event is known by source and id")
    proof_window_hours: float = Field(24.0, gt=0, description="proof_expiring opens so long before expires_at")
    activity_window_hours: float = Field(24.0, gt=0)
    target_urgent: timedelta = timedelta(minutes=15)
    target_high: timedelta = timedelta(hours=1)
    target_normal: timedelta = timedelta(hours=8)
    target_low: timedelta = timedelta(days=3)

    # Limits of what comes in (CONTRACT §2).
    max_title: int = Field(512, ge=1, description="characters")
    max_body: int = Field(64 << 10, ge=0, description="bytes of UTF-8")
    max_payload: int = Field(64 << 10, ge=0, description="bytes of JSON")
    max_event: int = Field(1 << 20, ge=1024, description="bytes of the record's value")

    # Who may ask, and what they see.
    jwt_secret: SecretStr | None = None
    jwks_url: str | None = None
    role_visibility: Literal["exact", "at-least"] = "exact"
    source_managed_kinds: Annotated[frozenset[str], NoDecode] = frozenset(
        {"waitpoint", "escalation", "plan_approval", "pending_action", "session_waiting"}
    )

    # The edge.
    max_streams: int = Field(8, ge=1, description="live connections of one user")
    heartbeat: float = Field(15.0, gt=0)
    partitions: str = Field("", description="partitions this edge serves, such as 0-31; empty: all")
    resume_bytes: int = Field(64 << 20, ge=1 << 16, description="changes kept in memory for resuming feeds, bytes")
    stream_buffer: int = Field(1 << 20, ge=1 << 14, description="frames kept for a slow reader, bytes")

    # History.
    history_batch_rows: int = Field(5000, ge=1)
    history_batch_ms: int = Field(300, ge=1)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "text", "json"] = "auto"

    @field_validator("source_managed_kinds", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return frozenset(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def targets(self) -> dict[str, int]:
        """Priority -> how long after it opened an item is due, in microseconds (CONTRACT §3)."""
        return {
            name: int(getattr(self, f"target_{name}").total_seconds() * SECOND)
            for name in ("urgent", "high", "normal", "low")
        }
