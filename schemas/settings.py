"""All `ATTN_*` settings with defaults and validation, and the name of the ClickHouse database.

Sources, the first wins: flags of a command, environment variables, a `.env` file. Comments give the reasons of the
defaults; the descriptions become docs/settings.md (`make schemas`).
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from schemas.scalars import SECOND, split_database_url

__all__ = ["DATABASE", "RENAMED", "Settings"]

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
_OLD_NAMES = "old_names"  # key under which the sources pass the old names in use to the model


class Settings(BaseSettings):
    """Everything that an operator can configure. Times are seconds unless the name has another unit."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_file=".env", extra="ignore", frozen=True)

    _deprecated: dict[str, str] = PrivateAttr(default_factory=dict)

    # Addresses, credentials and directories.
    kafka: str = Field("127.0.0.1:19092", description="bootstrap servers, HOST:PORT[,HOST:PORT]")
    # `attn up` sets zstd for the embedded broker, which holds all records in memory and in one file.
    kafka_compression: Literal["none", "gzip", "lz4", "zstd"] = Field(
        "none", description="compression of the records that attn writes; default with the embedded broker: zstd")
    # Kafka's own names. The embedded broker does not authenticate clients.
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Kafka `security.protocol`: encryption and authentication")
    kafka_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("PLAIN", description="SASL mechanism")
    kafka_user: str = Field("", description="SASL user")
    kafka_password: SecretStr | None = Field(None, description="SASL password")
    kafka_ca: Path | None = Field(
        None, description="PEM file of the CA that signed the brokers' certificates; default: the system's CAs")
    kafka_certificate: Path | None = Field(None, description="PEM file of the client certificate, if any")
    kafka_key: Path | None = Field(None, description="PEM file of its key; default: the same file")
    clickhouse: str = Field(
        "", description="http(s)://user:password@host:port/database; default: chdb in the data directory")
    clickhouse_cluster: str = Field(
        "", pattern=r"^[\w.-]*$",
        description="cluster name: tables are created ON CLUSTER and replicated; default: one server")
    clickhouse_migrate: bool = Field(True, description="apply migrations when `attn history` starts; chdb: always")
    clickhouse_read_url: str = Field(
        "", description="ClickHouse URL for read-only queries of edges and reports; default: ATTN_CLICKHOUSE")
    # Only one process can open chdb's directory: `attn history`, which answers the queries of all others. `attn up`
    # uses a free port; set one if a dashboard needs a fixed address.
    clickhouse_port: int = Field(
        0, ge=0, le=65535, description="port at which `attn history` with chdb answers queries; 0: off")
    data_dir: Path = Field(
        Path("data"), description="directory with the state of this machine: embedded broker, chdb, secrets")
    host: str = Field("127.0.0.1", description="address on which edges and metrics ports listen")
    port: int = Field(8080, ge=0, le=65535, description="port of the edge; 0: any free port")
    kafka_port: int = Field(19092, ge=0, le=65535, description="port of the embedded broker")
    instance: str = Field(
        "1", description="name of this process, unique in its role; part of the static group member id")
    incarnation: int = Field(
        0, ge=0, description="increment after the broker lost acknowledged records, because offsets are then reused")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="port for /metrics and /readyz of all roles but edges; 0: off")

    # Connectors and the MCP server are clients of an edge over HTTP, so they may run on any machine.
    url: str = Field(
        "", pattern=r"^(https?://.+)?$",
        description="URL of attn for `attn connect` and the MCP server; default: ATTN_HOST and ATTN_PORT")
    key: SecretStr | None = Field(
        None, description="key of a source (`attn key create`) that `attn connect` and the MCP server use")
    key_file: Path | None = Field(None, description="file with that key; ATTN_KEY comes before it")

    # Readiness. A rebalance or a leader election takes a few seconds and must not make a process unready; after half a
    # minute users notice stale data.
    stall_seconds: float = Field(
        10.0, gt=0, description="seconds without progress or answer of Kafka after which a process is not ready")
    # No process is busy for more than a second, but a loaded machine may be for many.
    unresponsive_seconds: float = Field(
        20.0, gt=0, description="seconds without an HTTP answer after which `attn up` kills a process that was ready")
    ready_lag_seconds: float = Field(
        30.0, gt=0, description="age of the oldest unprocessed record, in seconds, above which a process is not ready")

    # Workers. A takeover reads only the newest rows of a partition that a worker keeps as standby.
    standby_megabytes: int = Field(
        512, ge=0,
        description="memory of a worker, in MiB, for the rows of partitions that other workers own; 0: off. A row "
                    "takes its bytes and 180 more. Without another worker nothing is kept")
    session_seconds: float = Field(
        6.0, ge=1, le=300,
        description="after so long without a heartbeat of a worker, other workers take its partitions over; at least "
                    "the brokers' group.min.session.timeout.ms (default 6 s)")

    # Topics. Eight partitions use two cores fully; a production cluster has 64 (a partition is the unit of scale).
    log_partitions: int = Field(
        8, ge=1, le=1024, description="partitions of attn.log, attn.views and attn.facts; fixed once created")
    source_partitions: int = Field(4, ge=1, le=1024, description="partitions of source topics that attn creates")
    replication: int = Field(1, ge=1, le=5, description="replication factor of topics that attn creates")
    log_retention_hours: int = Field(7 * 24, ge=1, description="retention of attn.log")
    source_retention_hours: int = Field(7 * 24, ge=1, description="retention of source topics that attn creates")
    facts_retention_hours: int = Field(7 * 24, ge=1, description="retention of attn.facts")
    dead_letter_retention_hours: int = Field(30 * 24, ge=1, description="retention of dead-letters")
    # After a restart, an edge can resume feeds from the changes that are not compacted yet.
    resume_hours: float = Field(
        1.0, gt=0,
        description="`min.compaction.lag` of attn.views: how long feeds can resume after a restart of the edge")

    # Circuit breaker per source topic (decision 0015). Off by default: rejects must not stop a topic (CONTRACT §2,
    # decision 0027). Of fewer than a hundred records, a ratio is not significant.
    reject_ratio: float = Field(
        0.0, ge=0, le=1,
        description="share of rejected records in the window at which the circuit of a source topic opens; 0: never")
    reject_min_records: int = Field(
        100, ge=1,
        description="records in the window needed before the ratio is evaluated, and records read by a probe")
    reject_window_seconds: float = Field(60.0, gt=0, description="length of the window")
    reject_retry_seconds: float = Field(
        30.0, gt=0, description="delay before the first probe; doubles after each failed probe, up to ten minutes")

    # The fold.
    retention_days: float = Field(30.0, gt=0, description="how long resolved items can be read, by the log clock")
    dedupe_days: float = Field(
        30.0, gt=0, description="how long repeated events are recognised by source and id, by the log clock")
    proof_window_hours: float = Field(24.0, gt=0, description="`proof_expiring` opens this long before `expires_at`")
    activity_window_hours: float = Field(24.0, gt=0, description="how long edges keep activity in memory")
    target_urgent: timedelta = Field(timedelta(minutes=15), description="due time after the opening, priority urgent")
    target_high: timedelta = Field(timedelta(hours=1), description="due time after the opening, priority high")
    target_normal: timedelta = Field(timedelta(hours=8), description="due time after the opening, priority normal")
    target_low: timedelta = Field(timedelta(days=3), description="due time after the opening, priority low")
    target_message: timedelta | None = Field(
        None, description="due time after the posting of a message that asks nothing; default: never due")

    # Asking and deciding (CONTRACT §7).
    decisions: Literal["asks", "all", "off"] = Field(
        "asks", description="what can be decided in attn: items that ask; all: also items without an ask; off: nothing")
    decider_roles: Annotated[frozenset[str], NoDecode] = Field(
        frozenset({"OWNER", "ADMIN", "MANAGER", "MEMBER"}),
        description="roles that may decide where an ask names no deciders")
    undo_seconds: float = Field(5.0, ge=0, le=300, description="how long a decision can be taken back")
    decision_confirm: timedelta = Field(
        timedelta(minutes=15), description="time after which a decision that its source has not confirmed comes back")
    endpoints: Path | None = Field(
        None, description="TOML file with the HTTP endpoints to which `attn deliver` posts decisions")
    hooks: Path | None = Field(
        None, description="TOML file with the webhooks that `POST /hooks/NAME` accepts besides the built-in ones")
    # A receiver that was down over a weekend gets its decisions; the records themselves stay for a week.
    delivery_limit: timedelta = Field(
        timedelta(days=3), gt=timedelta(0),
        description="how long `attn deliver` retries, unless the question expires before")
    delivery_concurrency: int = Field(8, ge=1, le=256, description="concurrent requests of `attn deliver` per endpoint")
    # About 1 KB of memory each. Beyond it `attn deliver` stops reading until some are delivered or given up.
    delivery_max_waiting: int = Field(
        20_000, ge=1, description="undelivered decisions that `attn deliver` keeps in memory")
    # Several keys are separated by commas: the first one seals or signs, all open and verify. A public key of a
    # destroyed private key keeps old receipts verifiable.
    seal_keys: SecretStr | None = Field(
        None, description="keys that seal reply tokens, 32 bytes each in base64; default: derived from ATTN_JWT_SECRET")
    receipt_keys: SecretStr | None = Field(
        None, description="Ed25519 seeds that sign receipts, 32 bytes each in base64, and, after `pub:`, public keys "
        "that only verify; default: derived as above")
    receipt_issuer: str = Field(
        "attn", min_length=1, max_length=256, description="name of this installation in receipts, such as its URL")

    # Limits of source events (CONTRACT §2).
    max_title: int = Field(512, ge=1, description="longest title of an event, in characters")
    max_body: int = Field(64 << 10, ge=0, description="longest `body_md` or `error` of an event, in bytes of UTF-8")
    max_payload: int = Field(64 << 10, ge=0, description="largest `payload` of an event, in bytes of JSON")
    max_event: int = Field(1 << 20, ge=1024, description="largest value of a source record, in bytes")

    # Authentication and visibility.
    jwt_secret: SecretStr | None = Field(None, description="HS256 secret that signs and verifies tokens")
    jwks_url: str | None = Field(None, pattern=r"^https?://", description="URL of the issuer's public keys (JWKS)")
    # An issuer often signs tokens for many services; a token for another service must be refused.
    jwt_audience: str | None = Field(None, description="required `aud` of tokens; default: not checked")
    jwt_issuer: str | None = Field(None, description="required `iss` of tokens; default: not checked")
    # Sign-in with OpenID Connect (CONTRACT §9).
    oidc_issuer: str | None = Field(
        None, description="issuer of accounts, an https URL: the page then offers to sign in with it")
    oidc_client_id: str | None = Field(None, description="client id of attn at the issuer")
    oidc_client_secret: SecretStr | None = Field(None, description="client secret of attn at the issuer")
    oidc_name: str = Field(
        "", max_length=60, description="name of the issuer in `Sign in with ...`; default: the host of its URL")
    oidc_roles: Path | None = Field(
        None, description="TOML file that maps claims of an account to workspaces and roles")
    oidc_scopes: str = Field("openid profile email", description="scopes that attn asks for")
    oidc_contact: str = Field(
        "", max_length=500, description="whom to ask for access: what an account without a workspace reads")
    # The issuer's tokens live for minutes to hours. An account that was disabled is noticed at the next renewal.
    oidc_renew: timedelta = Field(
        timedelta(minutes=15), ge=timedelta(seconds=1),
        description="how often a session is renewed with the issuer's refresh token, if it gave one")
    critical_max_age: timedelta | None = Field(
        None, ge=timedelta(seconds=1),
        description="how old the sign-in of those may be who decide an action with risk `critical`; default: any age")
    critical_acr: str = Field(
        "", max_length=500, description="`acr` values, separated by spaces, of which their sign-in must have one")
    public_url: str | None = Field(
        None, pattern=r"^https?://[^/?#@\\\s]+/?$",
        description="URL at which browsers reach attn; sign-in with ATTN_OIDC_ISSUER returns to it")

    # A browser ignores a Secure cookie that comes over plain HTTP from another machine. Without Secure, an eavesdropper
    # on the network can read the token.
    session_over_http: bool = Field(
        False, description="allow sign-in over plain HTTP from other machines; the session cookie is not Secure then")
    # A session that is used once a working day survives the weekend; without a use it ends.
    session_idle_hours: float = Field(
        72.0, gt=0, le=24 * 365, description="hours without a use after which a session ends")
    session_days: float = Field(
        30.0, gt=0, le=365, description="days after the sign-in after which a session ends, however often it is used")
    max_sessions: int = Field(
        20, ge=1, le=100, description="sessions per user and workspace; one more ends the oldest")
    session_keys: SecretStr | None = Field(
        None, description="keys that seal refresh tokens of sessions, 32 bytes each in base64; default: derived from "
        "ATTN_JWT_SECRET")
    role_visibility: Literal["exact", "at-least"] = Field(
        "exact", description="at-least: a higher role also sees items that target a lower role")
    source_managed_kinds: Annotated[frozenset[str], NoDecode] = Field(
        frozenset({"waitpoint", "escalation", "plan_approval", "pending_action", "session_waiting"}),
        description="kinds of items that only their source resolves")

    # The edge.
    max_streams: int = Field(8, ge=1, description="live connections per user")
    heartbeat_seconds: float = Field(15.0, gt=0, description="longest time between two frames of a feed")
    # Browsers reconnect by themselves. Random delays keep them from reconnecting all at the same time.
    reconnect_seconds: float = Field(
        5.0, gt=0, le=300,
        description="upper bound of the random reconnect delay sent to clients (SSE `retry`); an edge with few streams "
                    "sends less: 1 ms per stream, at least 0.5 s")
    # Indexes take 6 % of the memory of the rows. To build them again costs 5 µs of CPU per row. The lower bound exceeds
    # the time for which a request uses a workspace.
    index_idle_seconds: float = Field(
        900.0, ge=60, allow_inf_nan=False,
        description="seconds after the last request until the edge drops the indexes of a workspace without streams; "
                    "the next request builds them again")
    drain_seconds: float = Field(
        2.0, ge=0, le=60, description="period over which the edge closes its streams when it stops")
    partitions: str = Field("", description="partitions that this edge serves, for example 0-31; default: all")
    resume_bytes: int = Field(
        64 << 20, ge=1 << 16, description="memory for changes that feeds can resume from, in bytes")
    stream_buffer: int = Field(
        1 << 20, ge=1 << 14, description="unsent bytes per stream, after which a slow reader is disconnected")

    # Limits of writes per user, so that no user can starve the others.
    write_seconds: float = Field(
        5.0, gt=0, description="how long an edge waits for the outcome of a write before it answers 503")
    write_rate: float = Field(20.0, gt=0, description="sustained writes per second and user")
    write_burst: int = Field(100, ge=1, description="writes that a user may send at once")
    max_request: int = Field(1 << 20, ge=1024, description="largest request body, in bytes")
    max_bulk: int = Field(500, ge=1, le=500, description="ids per bulk request")
    # A browser sends the origin of a page. Pages of other origins must not use the cookie of a user.
    websocket_origins: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        description="origins whose pages may open a WebSocket with the session cookie, besides the edge's own")
    max_subscriptions: int = Field(8, ge=1, description="subscriptions per WebSocket")
    socket_message: int = Field(16 << 10, ge=1024, description="largest WebSocket message of a client, in bytes")
    socket_rate: float = Field(10.0, gt=0, description="sustained messages per second and WebSocket")

    # Events over HTTP. The validation of a small event takes 13 µs of an edge's CPU.
    event_rate: float = Field(
        200.0, gt=0, description="sustained events per second and key; 4096 bytes of a body count as one more")
    event_burst: int = Field(2000, ge=1, description="events that a key may send at once")
    max_event_request: int = Field(
        4 << 20, ge=1024,
        description="largest body of `POST /events` and `POST /hooks/NAME`, in bytes, also after decompression")
    max_event_batch: int = Field(1000, ge=1, le=10_000, description="events per batch")
    event_seconds: float = Field(
        10.0, gt=0, description="how long `POST /events` waits for Kafka before it answers 503")
    event_buffer: int = Field(
        64 << 20, ge=1 << 20, description="bytes of events that may wait for Kafka, a quarter of them per sender")

    # History.
    history_batch_rows: int = Field(5000, ge=1, description="facts per insert into ClickHouse")
    history_batch_ms: int = Field(
        300, ge=1, description="longest wait for more facts before an insert, in milliseconds")
    # A row takes about 40 bytes: a million per day is 15 GB per year. Hourly sums are small and name no user.
    history_days: int = Field(0, ge=0, description="days after which facts are deleted from ClickHouse; 0: never")
    history_hourly_days: int = Field(
        0, ge=0, description="days after which hourly sums are deleted from ClickHouse; 0: never")

    # Embedded ClickHouse shares two cores with the inserts. The limits leave them their share, and end a query when no
    # user waits for it any more.
    chdb_query_seconds: float = Field(10.0, gt=0, description="time limit of a query at chdb's port")
    chdb_query_concurrency: int = Field(
        2, ge=1, le=64, description="concurrent queries at chdb's port: for edges, and again for all other clients")

    # Queries of an edge: users wait for them, and a hundred edges may share one server.
    history_query_seconds: float = Field(
        8.0, gt=0, le=300, description="time limit of an edge's request to ClickHouse (history, insights)")
    history_query_concurrency: int = Field(4, ge=1, le=64, description="concurrent ClickHouse queries per edge")

    # Off by default: whether and where spans are collected is the operator's choice. OTEL_* alone does not switch them
    # on, because platforms set these variables for all programs of a machine.
    traces: bool = Field(
        False, description="send OpenTelemetry traces, as the variables `OTEL_*` say; needs the extra `attn[traces]`")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="minimum level of log messages")
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
        """Checks the ports here, because the Kafka client fails on an invalid port with an unrelated error. An IPv6
        address may have no brackets."""
        for host in value.split(","):
            port = re.fullmatch(r"(?:[^:[\]]*|\[[^]]*\]):([^:]*)", host.strip())
            if port is not None and not _is_port(port[1]):
                raise ValueError(f"{host.strip()!r} is not HOST:PORT")
        return value

    @field_validator("clickhouse", "clickhouse_read_url")
    @classmethod
    def _url(cls, value: str) -> str:
        """Checks the form here, because the ClickHouse client takes other text as a path and connects to localhost. The
        error does not repeat the value: it may contain a password."""
        port = re.fullmatch(r"https?://(?:[^/?#]*@)?(?:\[[^]/]+\]|[^:/?#@]+)(?::([^/?#]*))?(?:[/?#].*)?", value)
        if value and (port is None or not _is_port(port[1] or "0")):
            raise ValueError("must be a URL such as https://user:password@host:8443/database")
        return value

    @field_validator("source_managed_kinds", "websocket_origins", "decider_roles", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return frozenset(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator(
        "jwt_secret", "jwks_url", "jwt_audience", "jwt_issuer", "kafka_password", "kafka_ca", "kafka_certificate",
        "kafka_key", "endpoints", "hooks", "target_message", "seal_keys", "receipt_keys", "session_keys", "key",
        "key_file", "oidc_issuer", "oidc_client_id", "oidc_client_secret", "oidc_roles", "critical_max_age",
        "public_url", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        """Turns empty values into None. An empty `ATTN_JWT_SECRET=` must not verify tokens signed with an empty
        secret."""
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
        if self.oidc_issuer is not None and (self.oidc_client_id is None or self.oidc_roles is None):
            raise ValueError("ATTN_OIDC_ISSUER needs ATTN_OIDC_CLIENT_ID and ATTN_OIDC_ROLES")
        return self

    @property
    def deprecated_names(self) -> dict[str, str]:
        """Returns the old names of variables that these settings were read from, old name -> new name."""
        return dict(self._deprecated)

    @property
    def clickhouse_database(self) -> str:
        """Database that the history writes: the path of ATTN_CLICKHOUSE, default `attn`."""
        return split_database_url(self.clickhouse, DATABASE)[1]

    @property
    def clickhouse_query_url(self) -> str:
        """URL of the ClickHouse server that edges and reports query; empty if none is configured."""
        return self.clickhouse_read_url or self.clickhouse

    @property
    def clickhouse_password_file(self) -> Path:
        """File with the password of the read-only user at chdb's port; `attn history` creates it."""
        return self.data_dir / "clickhouse-password"

    @property
    def clickhouse_edge_password_file(self) -> Path:
        """File with the password of user `edge` at chdb's port, whose queries have their own slots; `attn history`
        creates it."""
        return self.data_dir / "clickhouse-edge-password"

    @property
    def priority_targets(self) -> dict[str, int]:
        """Returns priority -> time from the opening of an item until it is due, in microseconds (CONTRACT §3).

        `message`: of messages that ask nothing, if the setting is given."""
        targets = {name: getattr(self, f"target_{name}") for name in ("urgent", "high", "normal", "low", "message")}
        return {name: int(target.total_seconds() * SECOND) for name, target in targets.items() if target is not None}


def _apply_new_names(*sources: PydanticBaseSettingsSource) -> dict[str, str]:
    """Renames the variables in `sources` that have an old name; drops one whose new name is given as well.

    Returns the old names in use, old name -> new name, as variables.
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


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 65536
