"""Fetches, checks and caches the public keys of the token issuer (`ATTN_JWKS_URL`, RFC 7517).

A key set may hold keys for other uses, so each entry is checked separately: an entry that is no key for RS256 or ES256
is ignored, and a weak key is refused with a logged reason. Several keys may share a `kid`, and a key may have no `kid`.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

if TYPE_CHECKING:
    import aiohttp

__all__ = [
    "ALGORITHMS", "MAX_KEYS", "JwksCache", "KeyReader", "PublicKey", "WeakKey", "download", "parse_uint", "read_keys",
    "redirect_target", "refuse_private", "rsa_key",
]

ALGORITHMS = ("RS256", "ES256")

# Seconds. The keys are fetched again after `_REFRESH_SECONDS`. They are fetched at once if no key fits a token, but not
# more often than every `_MIN_REFRESH_INTERVAL`: a flood of invented tokens must not reach the issuer.
_REFRESH_SECONDS = 600.0
_MIN_REFRESH_INTERVAL = 10.0
_FETCH_TIMEOUT = 10.0  # for the whole fetch, redirects included
_MAX_DOCUMENT_BYTES = 1 << 20  # bytes of the document, compressed and decompressed
MAX_KEYS = 256  # entries of a key set that are read
_MAX_CANDIDATES = 16  # keys that one token is verified with; each verification takes up to 0.1 ms
_MAX_LOGGED = 10  # refused keys that are logged per document
_MAX_REDIRECTS = 5
# Bits of an RSA modulus. NIST SP 800-131A disallows fewer than 2048; above 16384 one verification takes milliseconds.
_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 16384

_log = structlog.get_logger("attn.edge")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One usable key of the issuer. `parameters` identify the key, so two fetched key sets can be compared."""

    kid: str | None
    algorithm: str
    parameters: tuple[int, int]
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


# document -> usable keys, and `kid` and reason of refused ones. Raises ValueError if it is not a key set.
KeyReader = Callable[[object], tuple[list[PublicKey], list[tuple[str | None, str]]]]


class JwksCache:
    """Cache of the issuer's keys. Cached keys stay valid while the issuer is unreachable.

    `fetch` returns the parsed JWKS document. `clock` returns seconds. `generation` increases with each change of the
    keys. `read` chooses the usable keys; the default is `read_keys`.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[object]], clock: Callable[[], float], read: KeyReader | None = None,
    ) -> None:
        # An edge without an issuer does not spend the 0.1 s of CPU that this import takes. An edge with one spends them
        # at its start: a request would block the others.
        importlib.import_module("aiohttp")
        self._fetch, self._clock, self._read = fetch, clock, read or read_keys
        self._keys: list[PublicKey] = []
        self._refused: list[tuple[str | None, str]] = []
        self.generation = 0
        self._last_attempt = self._last_success = float("-inf")
        self._lock = asyncio.Lock()
        self._refresh_task: asyncio.Task[None] | None = None

    def candidates(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        """Returns the keys that may have signed a token with this header, at most 16. If no key has the token's `kid`,
        the keys without a `kid` are candidates. Without a `kid` in the token, each key of the algorithm is a
        candidate."""
        keys = [key for key in self._keys if key.algorithm == algorithm]
        if kid is not None:
            keys = [key for key in keys if key.kid == kid] or [key for key in keys if key.kid is None]
        return keys[:_MAX_CANDIDATES]

    async def refresh(self, known_generation: int) -> bool:
        """Fetches the keys, unless the last attempt was less than 10 s ago. Returns whether the keys differ from those
        of `known_generation`."""
        async with self._lock:
            if self.generation == known_generation and not self._within(self._last_attempt, _MIN_REFRESH_INTERVAL):
                self._last_attempt = self._clock()
                try:
                    async with asyncio.timeout(_FETCH_TIMEOUT):
                        self._replace(await self._fetch())
                except Exception as error:  # no error of the issuer invalidates the cached keys
                    _log.warning("keys could not be fetched", error=_reason(error), cached_keys=len(self._keys))
            return self.generation != known_generation

    def refresh_in_background(self) -> None:
        """Starts a fetch in the background if the keys are older than 600 s, because revoked keys must expire."""
        if self._keys and not self._refresh_task and not self._within(self._last_success, _REFRESH_SECONDS):
            self._refresh_task = asyncio.create_task(self._refresh_once())

    async def _refresh_once(self) -> None:
        try:
            await self.refresh(self.generation)
        finally:
            self._refresh_task = None

    def _within(self, moment: float, seconds: float) -> bool:
        """Whether `moment` is less than `seconds` ago. False for a moment in the future: after the clock was set back,
        the edge must still fetch."""
        return 0 <= self._clock() - moment < seconds

    def _replace(self, document: object) -> None:
        keys, refused = self._read(document)
        self._last_success = self._clock()
        if refused != self._refused:
            for kid, reason in refused[:_MAX_LOGGED]:
                _log.warning("a key of the issuer is refused", kid=kid and kid[:200], reason=reason)
            self._refused = refused
        if self.generation and _identities(keys) == _identities(self._keys):
            return
        if not keys:
            _log.warning("the issuer publishes no key that attn accepts: RSA of 2048 bits or more, or EC P-256")
        self._keys = keys
        self.generation += 1


def _reason(error: Exception) -> str:
    """Returns the text of an error without the URL, which some errors of aiohttp repeat and which may hold a secret."""
    import aiohttp  # imported here: see `JwksCache.__init__`

    of_aiohttp = isinstance(error, aiohttp.ClientError) and not isinstance(error, OSError)
    text = getattr(error, "message", "") if of_aiohttp else error
    return f"{type(error).__name__}: {text}"[:500]


def _identities(keys: list[PublicKey]) -> set[tuple[str | None, str, tuple[int, int]]]:
    return {(key.kid, key.algorithm, key.parameters) for key in keys}


class WeakKey(ValueError):
    """The key is not secure enough; the message says why."""


def read_keys(document: object) -> tuple[list[PublicKey], list[tuple[str | None, str]]]:
    """Returns the usable keys of a key set, and a (`kid`, reason) pair for each refused key. Entries for other uses are
    in neither list. Raises ValueError if the document is not a key set."""
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("the document is not a JSON Web Key Set: it has no list of keys")
    keys: list[PublicKey] = []
    refused: list[tuple[str | None, str]] = []
    for entry in entries[:MAX_KEYS]:
        if not isinstance(entry, Mapping) or (algorithm := _algorithm(entry)) is None:
            continue
        kid = entry.get("kid")
        kid = kid if isinstance(kid, str) else None
        try:
            parameters, key = (rsa_key if algorithm == "RS256" else _ec_key)(entry)
        except (ValueError, TypeError) as error:
            refused.append((kid, str(error)[:200]))
        else:
            keys.append(PublicKey(kid, algorithm, parameters, key))
    return keys, refused


def _algorithm(entry: Mapping[str, Any]) -> str | None:
    """Returns RS256 or ES256 if the entry may sign with it, else None. The key type decides; `alg`, `use` and `key_ops`
    must not contradict it. A key without these fields may sign."""
    expected = {"RSA": "RS256", "EC": "ES256"}.get(entry["kty"]) if isinstance(entry.get("kty"), str) else None
    algorithm, use, operations = (entry.get(name) for name in ("alg", "use", "key_ops"))
    if algorithm not in (None, expected) or use not in (None, "sig"):
        return None
    return None if isinstance(operations, list) and "verify" not in operations else expected


def rsa_key(entry: Mapping[str, Any]) -> tuple[tuple[int, int], rsa.RSAPublicKey]:
    refuse_private(entry)
    n, e = parse_uint(entry, "n", _MAX_RSA_BITS), parse_uint(entry, "e", 64)
    if n.bit_length() < _MIN_RSA_BITS:
        raise WeakKey(f"RSA key of {n.bit_length()} bits: at least {_MIN_RSA_BITS} are required")
    if e < 3 or e % 2 == 0:
        raise WeakKey(f"RSA exponent {e}: an odd number of 3 or more is required")
    return (n, e), rsa.RSAPublicNumbers(e, n).public_key()


def _ec_key(entry: Mapping[str, Any]) -> tuple[tuple[int, int], ec.EllipticCurvePublicKey]:
    refuse_private(entry)
    if entry.get("crv") != "P-256":
        raise WeakKey(f"curve {str(entry.get('crv'))[:40]}: ES256 requires P-256")
    x, y = parse_uint(entry, "x", 256), parse_uint(entry, "y", 256)
    return (x, y), ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def refuse_private(entry: Mapping[str, Any]) -> None:
    if "d" in entry:
        raise WeakKey("its private part is published, so anyone can sign with it")


def parse_uint(entry: Mapping[str, Any], name: str, max_bits: int) -> int:
    """Returns a Base64urlUInt (RFC 7518) as a number. Some tools add padding, use plain base64, or add a zero sign
    byte; these forms are accepted. Raises ValueError if it is missing or longer than `max_bits` bits."""
    text = entry.get(name)
    if not isinstance(text, str):
        raise ValueError(f"it has no {name}")
    if len(text) > max_bits // 6 + 8:
        raise ValueError(f"{name} is longer than {max_bits} bits")
    plain = text.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    number = int.from_bytes(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True), "big")
    if number.bit_length() > max_bits:
        raise ValueError(f"{name} is longer than {max_bits} bits")
    return number


async def download(url: str) -> object:
    """Fetches the JSON document at `url`: plain or gzip, at most 1 MiB, over at most 5 redirects.

    attn sends its own user agent, because some firewalls refuse the default one of Python clients. The proxies of the
    environment are used. Raises ValueError or an aiohttp error if there is no such document.
    """
    import aiohttp  # imported here: see `JwksCache.__init__`

    headers = {
        "user-agent": f"attn/{metadata.version('attn')}",
        "accept": "application/jwk-set+json, application/json, */*;q=0.5",
        "accept-encoding": "gzip",
    }
    async with aiohttp.ClientSession(headers=headers, auto_decompress=False, trust_env=True) as session:
        for _ in range(_MAX_REDIRECTS + 1):
            async with session.get(url, allow_redirects=False) as response:
                if response.status not in (301, 302, 303, 307, 308):
                    return await _document(response)
                url = redirect_target(url, response.headers.get("location", ""))
        raise ValueError(f"more than {_MAX_REDIRECTS} redirects")


def redirect_target(at: str, location: str) -> str:
    """Returns the absolute URL of a redirect. Raises ValueError if its scheme is not http or https, or if it goes from
    https to plain http, which can be altered in transit."""
    to = urljoin(at, location)
    before, after = urlsplit(at).scheme, urlsplit(to).scheme
    if not location or after not in ("http", "https") or (before, after) == ("https", "http"):
        raise ValueError(f"redirected from {before} to {after if location else 'nowhere'}: refused")
    return to


async def _document(response: aiohttp.ClientResponse) -> object:
    if response.status != 200:
        raise ValueError(f"the issuer answered with status {response.status}, not 200")
    compressed = bytearray()
    async for chunk in response.content.iter_any():
        compressed += chunk
        if len(compressed) > _MAX_DOCUMENT_BYTES:
            raise ValueError(f"more than {_MAX_DOCUMENT_BYTES} bytes of keys")
    return json.loads(b"".join(_decompress(bytes(compressed), response.headers.get("content-encoding", ""))))


def _decompress(compressed: bytes, encoding: str) -> Iterator[bytes]:
    """Yields the decompressed body. Stops at 1 MiB: a small body may decompress to gigabytes. Raises ValueError beyond
    the limit, for an unknown encoding, and for a truncated body."""
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        yield compressed
        return
    if kind not in ("gzip", "x-gzip"):
        raise ValueError(f"the issuer's response has the encoding {kind[:40]}: only gzip is accepted")
    decompressor, left = zlib.decompressobj(31), _MAX_DOCUMENT_BYTES
    while compressed:
        chunk = decompressor.decompress(compressed, left + 1)
        left -= len(chunk)
        if left < 0:
            raise ValueError(f"more than {_MAX_DOCUMENT_BYTES} bytes of keys")
        yield chunk
        if not decompressor.eof:
            raise ValueError("the issuer's gzip response is truncated")
        compressed, decompressor = decompressor.unused_data, zlib.decompressobj(31)
