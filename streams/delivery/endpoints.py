"""HTTP endpoints that receive decisions, from the TOML file ATTN_ENDPOINTS (CONTRACT §7).

    [[endpoint]]
    name = "payments"                             # what `ask.reply.to` of an event names
    url = "https://payments.example.com/attn"
    secrets = ["whsec_...", "whsk_..."]           # HMAC and ed25519; each of them signs, so keys can be rotated
    headers = { Authorization = "Bearer ..." }    # optional
    timeout = 15                                  # optional, seconds for one attempt
    allow_private = false                         # optional, whether private addresses are allowed
    workspaces = ["ws_01"]                        # optional, default: every workspace may name it

An event names an endpoint and never brings a URL. No error, `repr` or log line contains a secret or a header's value.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

__all__ = ["Endpoint", "Endpoints", "EndpointsError", "EndpointsFile", "load_endpoints", "parse_endpoints"]

log = logging.getLogger("attn.deliver")

_MAX_FILE_BYTES = 1 << 20
_RELOAD_SECONDS = 2.0  # between two checks whether the file has changed
_HMAC, _ED25519 = "whsec_", "whsk_"
_MIN_HMAC_BYTES, _MAX_HMAC_BYTES = 16, 64  # Standard Webhooks recommends 24 to 64
_SEED_BYTES, _KEY_PAIR_BYTES = 32, 64  # some libraries write the seed alone, others seed and public key
_SECRET = re.compile(f"(?:{_HMAC}|{_ED25519}).*", re.DOTALL)  # pasted where a key of the table belongs
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110 `token`
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]{0,4094}[\x21-\x7e])?")
# attn sets these itself, or they would change how the request is framed or routed.
_RESERVED = frozenset({
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
    "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})


class EndpointsError(Exception):
    """The file of endpoints cannot be used. The text is for the operator and names no secret."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One receiver. `hmac_keys` and `ed25519_keys` sign every message, all of them."""

    name: str
    url: str
    hmac_keys: tuple[bytes, ...] = field(default=(), repr=False)
    ed25519_keys: tuple[Ed25519PrivateKey, ...] = field(default=(), repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: float = 15.0
    allow_private: bool = False
    workspaces: frozenset[str] | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        url = urlsplit(self.url)
        return url.port or (443 if url.scheme == "https" else 80)


class Endpoints(Mapping[str, Endpoint]):
    """All endpoints of a file, by name."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = dict(endpoints)

    def find(self, name: str, workspace: str) -> Endpoint | None:
        """Returns the endpoint that an ask of `workspace` names; None if there is none that this workspace may name.

        Both cases look the same to the workspace: it must not learn the names of another tenant's endpoints.
        """
        endpoint = self._endpoints.get(name)
        if endpoint is None or (endpoint.workspaces is not None and workspace not in endpoint.workspaces):
            return None
        return endpoint

    def __getitem__(self, name: str) -> Endpoint:
        return self._endpoints[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._endpoints)

    def __len__(self) -> int:
        return len(self._endpoints)


def _check_url(text: str) -> str:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError("is not a URL with a valid host and port") from None
    if not text.isascii() or any(character <= " " or character == "\x7f" for character in text):
        raise ValueError("must be ASCII without spaces and control characters; encode the rest with %XX or punycode")
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise ValueError("must be an http or https URL with a host")
    if "%" in url.netloc or "\\" in text:
        raise ValueError("must have a host without escapes")
    if "@" in url.netloc:
        raise ValueError("must have no user or password; use `headers`")
    if "#" in text:
        raise ValueError("must have no fragment")
    return text


def _check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    names = [name.lower() for name in headers]
    if len(set(names)) < len(names):
        raise ValueError("must name each header once")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("has a name that is no HTTP header name")
        if name.lower() in _RESERVED or name.lower().startswith("webhook-"):
            raise ValueError(f"must not set {name.lower()}: attn sets it")
        if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
            raise ValueError(f"{name.lower()}: the value must be 1 to 4096 printable ASCII characters")
    return headers


class _Entry(BaseModel):
    """One table `[[endpoint]]`."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f\x7f]+$")]
    url: Annotated[str, StringConstraints(max_length=2048), AfterValidator(_check_url)]
    secrets: Annotated[list[SecretStr], Field(min_length=1, max_length=10)]
    headers: Annotated[dict[str, SecretStr], Field(max_length=32), AfterValidator(_check_headers)] = {}
    timeout: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 15.0
    allow_private: bool = False
    workspaces: Annotated[list[str], Field(min_length=1)] | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    endpoint: list[_Entry] = []


def load_endpoints(path: Path) -> Endpoints:
    """Reads the file. Raises EndpointsError if it cannot be read, is no TOML, or has an invalid endpoint."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise EndpointsError(f"cannot read {path}: {error.strerror}") from None
    if len(raw) > _MAX_FILE_BYTES:
        raise EndpointsError(f"{path} has more than {_MAX_FILE_BYTES} bytes")
    try:
        return parse_endpoints(raw.decode())
    except UnicodeDecodeError:
        raise EndpointsError(f"{path} is not UTF-8") from None
    except EndpointsError as error:
        raise EndpointsError(f"{path}: {error}") from None


def parse_endpoints(text: str) -> Endpoints:
    """Returns the endpoints of a file's text. Raises EndpointsError with the endpoint and the field that are wrong."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        where = re.search(r"\(at (?:line \d+, column \d+|end of document)\)", str(error))
        raise EndpointsError(f"is no valid TOML {where[0] if where else ''}".rstrip()) from None
    if "endpoints" in table and "endpoint" not in table:  # [[endpoints]] reads as well
        table["endpoint"] = table.pop("endpoints")
    try:
        entries = _File.model_validate(table).endpoint
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise EndpointsError(f"{_place(first['loc'], table)}: {first['msg'].removeprefix('Value error, ')}") from None
    found: dict[str, Endpoint] = {}
    for number, entry in enumerate(entries, 1):
        if entry.name in found:
            raise EndpointsError(f'endpoint {number} "{entry.name}": another endpoint has this name')
        found[entry.name] = _endpoint(entry, number)
    return Endpoints(found)


def _place(location: tuple[int | str, ...], table: Mapping[str, Any]) -> str:
    """Returns the endpoint and the field of an error: `endpoint 2 "payments", field url`."""
    match location:
        case ("endpoint", int(number), *rest):
            entry = table["endpoint"][number]
            name = entry.get("name") if isinstance(entry, dict) else None
            fields = [_SECRET.sub("(secret)", str(part)) for part in rest if part != "[key]"]
            of = f' "{name[:128]}"' if isinstance(name, str) else ""
            return f"endpoint {number + 1}{of}" + (f", field {'.'.join(fields)[:160]}" if fields else "")
        case _:
            return f"key {_SECRET.sub('(secret)', '.'.join(map(str, location)))[:160]}"


def _endpoint(entry: _Entry, number: int) -> Endpoint:
    hmac_keys, ed25519_keys = [], []
    for position, secret in enumerate(entry.secrets, 1):
        place = f'endpoint {number} "{entry.name}", secret {position}'
        text = secret.get_secret_value()
        if text.startswith(_HMAC):
            hmac_keys.append(_hmac_key(text.removeprefix(_HMAC), place))
        elif text.startswith(_ED25519):
            ed25519_keys.append(_ed25519_key(text.removeprefix(_ED25519), place))
        else:
            raise EndpointsError(f"{place}: must begin with {_HMAC} (HMAC) or {_ED25519} (ed25519)")
    return Endpoint(
        entry.name, entry.url, tuple(hmac_keys), tuple(ed25519_keys),
        tuple((name, value.get_secret_value()) for name, value in entry.headers.items()), entry.timeout,
        entry.allow_private, frozenset(entry.workspaces) if entry.workspaces is not None else None)


def _hmac_key(text: str, place: str) -> bytes:
    key = _decode(text, place)
    if not _MIN_HMAC_BYTES <= len(key) <= _MAX_HMAC_BYTES:
        raise EndpointsError(
            f"{place}: has {len(key)} bytes; an HMAC secret has {_MIN_HMAC_BYTES} to {_MAX_HMAC_BYTES}")
    return key


def _ed25519_key(text: str, place: str) -> Ed25519PrivateKey:
    raw = _decode(text, place)
    if len(raw) not in (_SEED_BYTES, _KEY_PAIR_BYTES):
        raise EndpointsError(
            f"{place}: has {len(raw)} bytes; an ed25519 key has {_SEED_BYTES}, {_KEY_PAIR_BYTES} with its public key")
    key = Ed25519PrivateKey.from_private_bytes(raw[:_SEED_BYTES])
    if raw[_SEED_BYTES:] not in (b"", key.public_key().public_bytes_raw()):
        raise EndpointsError(f"{place}: the public key does not belong to the private key")
    return key


def _decode(text: str, place: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise EndpointsError(f"{place}: is not base64 after its prefix") from None


class EndpointsFile:
    """The current endpoints of a file that may change while the process runs.

    The file is checked at most every 2 s. A changed file that is invalid is reported once, and the endpoints before it
    stay in use. `problem`: why the present file is not in use, None if it is.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises EndpointsError if the file is invalid. Without a path there are no endpoints."""
        self._path, self._clock = path, clock
        self._state = self._stat()
        self._checked_at = clock()
        self._endpoints = load_endpoints(path) if path is not None else Endpoints({})
        self.problem: str | None = None

    def current(self) -> Endpoints:
        """Returns the endpoints; reads the file again if it has changed."""
        if self._path is None or self._clock() - self._checked_at < _RELOAD_SECONDS:
            return self._endpoints
        self._checked_at = self._clock()
        state = self._stat()
        if state != self._state:
            self._state = state
            self._reload(self._path)
        return self._endpoints

    def _reload(self, path: Path) -> None:
        try:
            self._endpoints = load_endpoints(path)
        except EndpointsError as error:
            self.problem = str(error)
            log.error("endpoints not reloaded, the earlier ones stay in use: %s", error)
        else:
            self.problem = None
            log.info("endpoints reloaded: %s", ", ".join(self._endpoints) or "none")

    def _stat(self) -> tuple[int, ...] | None:
        """Returns what changes with the file: inode, size, time. Secrets of Kubernetes change by a link."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns
