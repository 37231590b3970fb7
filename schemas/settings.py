"""Settings: `ATTN_*` variables, a `.env` file, or flags of the command line. Each default carries its reason."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from schemas.scalars import SECOND

__all__ = ["DATABASE", "RENAMED", "Settings", "split_clickhouse_url"]

DATABASE = "attn"
_PREFIX = "ATTN_"

# Settings that were renamed, old name -> new name. The old names work for one release; the new name wins.
RENAMED = {
    "archive_at_once": "history_query_concurrency",
    "archive_seconds": "history_query_seconds",
    "clickhouse_read": "clickhouse_read_url",
    "clickhouse_read_at_once": "chdb_query_concurrency",
    "clickhouse_read_seconds": "chdb_query_seconds",
    "drain": "drain_seconds",
    "heartbeat": "heartbeat_seconds",
    "origins": "websocket_origins",
    "reconnect": "reconnect_seconds",
    "reject_minimum": "reject_min_records",
    "reject_retry": "reject_retry_seconds",
    "reject_share": "reject_ratio",
    "reject_window": "reject_window_seconds",
    "wedged_seconds": "unresponsive_seconds",
}
_OLD_NAMES = "old_names"  # key under which the sources hand the old names that they met to the model


class Settings(BaseSettings):
    """Everything an operator may set. Lengths are characters or bytes as named, times seconds unless named."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_file=".env", extra="ignore", frozen=True)

    _deprecated: dict[str, str] = PrivateAttr(default_factory=dict)

    # Where things are.
    kafka: str = Field("127.0.0.1:19092", description="bootstrap servers, HOST:PORT[,HOST:PORT]")
    # As Kafka calls them. The embedded broker knows no callers.
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how the line to Kafka is protected, and whether we say who we are")
    kafka_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("PLAIN", description="of SASL")
    kafka_user: str = Field("", description="of SASL")
    kafka_password: SecretStr | None = Field(None, description="of SASL")
    kafka_ca: Path | None = Field(None, description="file of the authorities that sign brokers; empty: the system's")
    kafka_certificate: Path | None = Field(None, description="file of our own certificate, where brokers want one")
    kafka_key: Path | None = Field(None, description="file of its key; empty: it is in the same file")
    clickhouse: str = Field("", description="http(s)://user:password@host:port/database; empty: chdb in data_dir")
    clickhouse_cluster: str = Field("", pattern=r"^[\w.-]*$", description="its tables are made ON CLUSTER, replicated")
    clickhouse_migrate: bool = Field(True, description="history applies migrations when it starts; chdb's always")
    clickhouse_read_url: str = Field("", description="the same for what only reads: edges; empty: as ATTN_CLICKHOUSE")
    # chdb's directory belongs to the history process alone, so it answers queries for the others. `attn up` takes a
    # free port; set one where a dashboard is to find it.
    clickhouse_port: int = Field(0, ge=0, le=65535, description="history with chdb answers queries there; 0: off")
    data_dir: Path = Field(Path("data"), description="state of one machine: broker, chdb, secret")
    host: str = Field("127.0.0.1", description="address that edges, and the ports of metrics, listen on")
    port: int = Field(8080, ge=0, le=65535, description="of the edge; 0: any free one")
    kafka_port: int = Field(19092, ge=0, le=65535, description="port of the embedded broker")
    instance: str = Field("1", description="name of this process among its like; static group membership uses it")
    incarnation: int = Field(0, ge=0, description="raised when the broker lost its tail, so offsets were given twice")
    metrics_port: int = Field(0, ge=0, le=65535, description="worker, history: /metrics and /readyz there; 0: off")

    # When a role says that it is not ready. A rebalance or a new leader takes a few seconds, and is no news; half a
    # minute is when people begin to doubt what they see.
    stall_seconds: float = Field(10.0, gt=0, description="no answer of Kafka, or no progress though there is more")
    # `attn up` kills a part that does not answer. None is busy for more than a second; a machine may be for many.
    unresponsive_seconds: float = Field(20.0, gt=0, description="without an answer over HTTP, once it was ready")
    ready_lag_seconds: float = Field(30.0, gt=0, description="age of the oldest record not yet worked on")

    # Topics. Eight partitions keep two cores busy; a production cluster takes 64 (a partition is the unit of scale).
    log_partitions: int = Field(8, ge=1, le=1024, description="of log, views and facts; for good once they are there")
    source_partitions: int = Field(4, ge=1, le=1024, description="of source topics that attn makes")
    replication: int = Field(1, ge=1, le=5, description="brokers that hold each record of topics that attn makes")
    log_retention_hours: int = Field(7 * 24, ge=1, description="how long Kafka keeps attn.log")
    source_retention_hours: int = Field(7 * 24, ge=1, description="how long Kafka keeps source topics")
    facts_retention_hours: int = Field(7 * 24, ge=1, description="how long Kafka keeps attn.facts")
    dead_letter_retention_hours: int = Field(30 * 24, ge=1, description="how long Kafka keeps dead-letters")
    # A feed can be resumed after a restart for as long as the views' changes are kept uncompacted.
    resume_hours: float = Field(1.0, gt=0, description="attn.views is not compacted for so long")

    # When a source topic is left alone (decision 0015): never, unless asked for, as rejects stop nothing (CONTRACT §2,
    # decision 0027). Below a hundred records a share says little.
    reject_ratio: float = Field(0.0, ge=0, le=1, description="of rejects at which a topic is not read on; 0: never")
    reject_min_records: int = Field(100, ge=1, description="records of the window before that is judged")
    reject_window_seconds: float = Field(60.0, gt=0, description="seconds")
    reject_retry_seconds: float = Field(
        30.0, gt=0, description="seconds until it is tried again; doubles up to ten minutes")

    # The fold.
    retention_days: float = Field(30.0, gt=0, description="how long resolved items stay readable, of the log's clock")
    dedupe_days: float = Field(30.0, gt=0, description="how long an event is known by source and id")
    proof_window_hours: float = Field(24.0, gt=0, description="proof_expiring opens so long before expires_at")
    activity_window_hours: float = Field(24.0, gt=0, description="of the activity that edges hold themselves")
    target_urgent: timedelta = Field(timedelta(minutes=15), description="due so long after it opened")
    target_high: timedelta = Field(timedelta(hours=1), description="due so long after it opened")
    target_normal: timedelta = Field(timedelta(hours=8), description="due so long after it opened")
    target_low: timedelta = Field(timedelta(days=3), description="due so long after it opened")

    # Limits of what comes in (CONTRACT §2).
    max_title: int = Field(512, ge=1, description="characters")
    max_body: int = Field(64 << 10, ge=0, description="bytes of UTF-8")
    max_payload: int = Field(64 << 10, ge=0, description="bytes of JSON")
    max_event: int = Field(1 << 20, ge=1024, description="bytes of the record's value")

    # Who may ask, and what they see.
    jwt_secret: SecretStr | None = Field(None, description="signs and checks tokens, HS256")
    jwks_url: str | None = Field(None, pattern=r"^https?://", description="public keys of whoever signs tokens")
    # One issuer often signs for many services: what is for another one is no token here.
    jwt_audience: str | None = Field(None, description="what `aud` of a token must be, or hold; empty: anything")
    jwt_issuer: str | None = Field(None, description="what `iss` of a token must be; empty: anything")
    # A browser drops a Secure cookie that comes over plain http from another machine. Without Secure, whoever listens
    # on the network gets the token.
    session_over_http: bool = Field(
        False, description="pages of plain http beyond this machine may sign in; their cookies are not Secure")
    role_visibility: Literal["exact", "at-least"] = Field(
        "exact", description="at-least: a higher role also sees what is addressed to a lower one")
    source_managed_kinds: Annotated[frozenset[str], NoDecode] = Field(
        frozenset({"waitpoint", "escalation", "plan_approval", "pending_action", "session_waiting"}),
        description="kinds that their source alone resolves")

    # The edge.
    max_streams: int = Field(8, ge=1, description="live connections of one user")
    heartbeat_seconds: float = Field(15.0, gt=0, description="seconds between two frames of a feed at most")
    # A browser comes back by itself: so many at once that the last ones wait, unless each is told another moment.
    reconnect_seconds: float = Field(
        5.0, gt=0, le=300, description="streams that break come back within so many seconds")
    drain_seconds: float = Field(
        2.0, ge=0, le=60, description="seconds over which streams are ended when the edge stops")
    partitions: str = Field("", description="partitions this edge serves, such as 0-31; empty: all")
    resume_bytes: int = Field(64 << 20, ge=1 << 16, description="changes kept in memory for resuming feeds, bytes")
    stream_buffer: int = Field(1 << 20, ge=1 << 14, description="frames kept for a slow reader, bytes")

    # Writing: what one caller may do, so that none can crowd out the others.
    write_seconds: float = Field(5.0, gt=0, description="how long a caller waits until a write is decided, then 503")
    write_rate: float = Field(20.0, gt=0, description="writes a second of one user, in the long run")
    write_burst: int = Field(100, ge=1, description="writes of one user at once: a person clearing a list by keyboard")
    max_request: int = Field(1 << 20, ge=1024, description="bytes of a request's body; 500 ids need far less")
    max_bulk: int = Field(500, ge=1, le=500, description="ids of one bulk request, at most the 500 of a list")
    # A browser says where a page comes from. Pages of these origins may open a socket with the cookie, beside our own.
    websocket_origins: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), description="whose pages may open a socket with the cookie, beside our own")
    max_subscriptions: int = Field(8, ge=1, description="channels of one socket")
    socket_message: int = Field(16 << 10, ge=1024, description="bytes of a client's message; a token fits")
    socket_rate: float = Field(10.0, gt=0, description="messages a second of one socket, in the long run")

    # History.
    history_batch_rows: int = Field(5000, ge=1, description="facts of one insert at most")
    history_batch_ms: int = Field(300, ge=1, description="milliseconds that facts wait for others")
    # A row takes about 40 bytes: a million a day is 15 GB a year. Sums are small, and name nobody.
    history_days: int = Field(0, ge=0, description="facts leave ClickHouse so long after they came; 0: never")
    history_hourly_days: int = Field(0, ge=0, description="the same for hourly sums")

    # Embedded ClickHouse shares two cores with the writer: so many queries at once leave it its share, and none for
    # longer than a person waits.
    chdb_query_seconds: float = Field(10.0, gt=0, description="a query of chdb's port is ended then")
    chdb_query_concurrency: int = Field(
        2, ge=1, le=64, description="queries that run at once at chdb's port: for edges, and again for all others")

    # What an edge asks ClickHouse: people wait for it, and a hundred edges may share one server.
    history_query_seconds: float = Field(
        8.0, gt=0, le=300, description="history, insights: how long one answer may take")
    history_query_concurrency: int = Field(4, ge=1, le=64, description="queries of one edge that run at once")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="the least that is logged")
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else JSON lines")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Reads old names of settings (`RENAMED`) from the environment and from `.env`."""
        old_names = InitSettingsSource(settings_cls, {_OLD_NAMES: _apply_new_names(env_settings, dotenv_settings)})
        return init_settings, env_settings, dotenv_settings, file_secret_settings, old_names

    @field_validator("kafka")
    @classmethod
    def _brokers(cls, value: str) -> str:
        """Its client would raise whatever comes of a port that is none. An IPv6 address may stand without brackets."""
        for host in value.split(","):
            port = re.fullmatch(r"(?:[^:[\]]*|\[[^]]*\]):([^:]*)", host.strip())
            if port is not None and not _is_port(port[1]):
                raise ValueError(f"{host.strip()!r} is not HOST:PORT")
        return value

    @field_validator("clickhouse", "clickhouse_read_url")
    @classmethod
    def _url(cls, value: str) -> str:
        """Its client would take what is no URL for a path, and ask localhost. The password is not repeated."""
        port = re.fullmatch(r"https?://(?:[^/?#]*@)?(?:\[[^]/]+\]|[^:/?#@]+)(?::([^/?#]*))?(?:[/?#].*)?", value)
        if value and (port is None or not _is_port(port[1] or "0")):
            raise ValueError("must be a URL such as https://user:password@host:8443/database")
        return value

    @field_validator("source_managed_kinds", "websocket_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return frozenset(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator(
        "jwt_secret", "jwks_url", "jwt_audience", "jwt_issuer", "kafka_password", "kafka_ca", "kafka_certificate",
        "kafka_key", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        """`ATTN_JWT_SECRET=` is no secret. An empty one would let everybody sign."""
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        return None if isinstance(text, str) and not text.strip() else value

    @model_validator(mode="wrap")
    @classmethod
    def _remember_old_names(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        old_names = data.pop(_OLD_NAMES, {}) if isinstance(data, dict) else {}
        settings = handler(data)
        settings._deprecated.update(old_names)
        return settings

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.kafka_security.startswith("SASL") and not (self.kafka_user and self.kafka_password):
            raise ValueError(f"{self.kafka_security} needs ATTN_KAFKA_USER and ATTN_KAFKA_PASSWORD")
        return self

    @property
    def deprecated_names(self) -> dict[str, str]:
        """Returns the old names of variables that these settings were read from, old name -> new name."""
        return dict(self._deprecated)

    @property
    def clickhouse_database(self) -> str:
        """Database that the history writes: the path of ATTN_CLICKHOUSE, default `attn`."""
        return split_clickhouse_url(self.clickhouse)[1]

    @property
    def clickhouse_query_url(self) -> str:
        """URL of the ClickHouse server that edges and reports query; empty if none is configured."""
        return self.clickhouse_read_url or self.clickhouse

    @property
    def clickhouse_password_file(self) -> Path:
        """Password of chdb's port, whose user may only read; `attn history` makes it."""
        return self.data_dir / "clickhouse-password"

    @property
    def clickhouse_edge_password_file(self) -> Path:
        """Password of user `edge` at chdb's port, whose queries have slots of their own; `attn history` makes it."""
        return self.data_dir / "clickhouse-edge-password"

    @property
    def priority_targets(self) -> dict[str, int]:
        """Priority -> how long after it opened an item is due, in microseconds (CONTRACT §3)."""
        return {
            name: int(getattr(self, f"target_{name}").total_seconds() * SECOND)
            for name in ("urgent", "high", "normal", "low")
        }


def _apply_new_names(*sources: PydanticBaseSettingsSource) -> dict[str, str]:
    """Renames the variables in `sources` that have an old name; drops one whose new name is given as well.

    Returns the old names that were met, old name -> new name, as variables.
    """
    readers = [source for source in sources if isinstance(source, EnvSettingsSource)]
    given = {name for reader in readers for name in reader.env_vars}  # in lower case
    met = {}
    for reader in readers:
        variables = dict(reader.env_vars)
        for old, name in RENAMED.items():
            old_variable, variable = f"{_PREFIX}{old}".lower(), f"{_PREFIX}{name}".lower()
            if old_variable in variables:
                value = variables.pop(old_variable)
                met[old_variable.upper()] = variable.upper()
                if variable not in given:
                    variables[variable] = value
        reader.env_vars = variables
    return met


def split_clickhouse_url(url: str) -> tuple[str, str]:
    """Returns the URL without its path, and the database that the path names (default: `attn`)."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="")), unquote(parts.path.strip("/")) or DATABASE


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 65536
