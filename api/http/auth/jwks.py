"""Fetches, checks and caches the public keys of the token issuer (`ATTN_JWKS_URL`, RFC 7517).

A key set holds keys for many uses. Each entry is judged by itself: what is not a key for RS256 or ES256 is ignored, and
what is too weak is refused with a logged reason. Several keys may share a `kid`, and keys may have none.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa

__all__ = ["ALGORITHMS", "Keys", "PublicKey", "download", "read_keys", "redirected"]

ALGORITHMS = ("RS256", "ES256")

# Seconds. Keys are fetched again after `_KEYS_LAST`, and at once when no key fits a token, but never more often than
# every `_KEYS_PAUSE`: a flood of made-up tokens must not reach the issuer.
_KEYS_LAST = 600.0
_KEYS_PAUSE = 10.0
_KEYS_TIMEOUT = 10.0  # for the whole fetch, redirects included
_LARGEST = 1 << 20  # bytes of the document, packed and unpacked
_MOST_KEYS = 256  # entries of a set that are looked at
_MOST_TRIED = 16  # keys that one token is checked with; each check costs up to 0.1 ms
_MOST_LOGGED = 10  # refused keys of one document
_REDIRECTS = 5
# Bits of an RSA modulus. NIST SP 800-131A disallows less than 2048; beyond 16384 one check takes milliseconds.
_RSA_LEAST, _RSA_MOST = 2048, 16384

_log = structlog.get_logger("attn.edge")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`parameters` identify the key, so that two fetches can be compared."""

    kid: str | None
    algorithm: str
    parameters: tuple[int, int]
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class Keys:
    """Cache of the issuer's keys. They stay valid while the issuer cannot be reached. `fetch` returns the document.
    `generation` grows with each change."""

    def __init__(self, fetch: Callable[[], Awaitable[object]], clock: Callable[[], float]) -> None:
        self._fetch, self._clock = fetch, clock
        self._keys: list[PublicKey] = []
        self._refused: list[tuple[str | None, str]] = []
        self.generation = 0
        self._asked = self._fetched = float("-inf")
        self._lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    def fitting(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        """Returns the keys that may have signed a token with this header. A token's `kid` that no key has fits the keys
        without a `kid`; a token without one fits each key of the algorithm."""
        found = [key for key in self._keys if key.algorithm == algorithm]
        if kid is not None:
            found = [key for key in found if key.kid == kid] or [key for key in found if key.kid is None]
        return found[:_MOST_TRIED]

    async def refresh(self, seen: int) -> bool:
        """Fetches the keys, unless that was tried a moment ago. Returns whether they differ from generation `seen`."""
        async with self._lock:
            if self.generation == seen and not self._within(self._asked, _KEYS_PAUSE):
                self._asked = self._clock()
                try:
                    async with asyncio.timeout(_KEYS_TIMEOUT):
                        self._replace(await self._fetch())
                except Exception as error:  # whatever the issuer does, its cached keys stay valid
                    _log.warning("keys could not be fetched", error=_reason(error), cached_keys=len(self._keys))
            return self.generation != seen

    def renew(self) -> None:
        """Starts a fetch in the background when the keys are old, so that revoked keys expire."""
        if self._keys and not self._renewal and not self._within(self._fetched, _KEYS_LAST):
            self._renewal = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        try:
            await self.refresh(self.generation)
        finally:
            self._renewal = None

    def _within(self, moment: float, seconds: float) -> bool:
        """A clock that was set back must not keep the edge from fetching."""
        return 0 <= self._clock() - moment < seconds

    def _replace(self, document: object) -> None:
        keys, refused = read_keys(document)
        self._fetched = self._clock()
        if refused != self._refused:
            for kid, reason in refused[:_MOST_LOGGED]:
                _log.warning("a key of the issuer is refused", kid=kid and kid[:200], reason=reason)
            self._refused = refused
        if self.generation and _identities(keys) == _identities(self._keys):
            return
        if not keys:
            _log.warning("the issuer publishes no key that attn accepts: RSA of 2048 bits or more, or EC P-256")
        self._keys = keys
        self.generation += 1


def _reason(error: Exception) -> str:
    """Some errors of aiohttp repeat the URL, which may hold a secret."""
    of_aiohttp = isinstance(error, aiohttp.ClientError) and not isinstance(error, OSError)
    text = getattr(error, "message", "") if of_aiohttp else error
    return f"{type(error).__name__}: {text}"[:500]


def _identities(keys: list[PublicKey]) -> set[tuple[str | None, str, tuple[int, int]]]:
    return {(key.kid, key.algorithm, key.parameters) for key in keys}


class _Weak(ValueError):
    """The key is not secure enough."""


def read_keys(document: object) -> tuple[list[PublicKey], list[tuple[str | None, str]]]:
    """Returns the usable keys of a key set, and `kid` and reason of each one that is refused. Entries for other uses
    are in neither. Raises ValueError if it is no key set."""
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("the document is not a JSON Web Key Set: it has no list of keys")
    keys: list[PublicKey] = []
    refused: list[tuple[str | None, str]] = []
    for entry in entries[:_MOST_KEYS]:
        if not isinstance(entry, Mapping) or (algorithm := _algorithm(entry)) is None:
            continue
        kid = entry.get("kid")
        kid = kid if isinstance(kid, str) else None
        try:
            parameters, key = (_rsa if algorithm == "RS256" else _ec)(entry)
        except (ValueError, TypeError) as error:
            refused.append((kid, str(error)[:200]))
        else:
            keys.append(PublicKey(kid, algorithm, parameters, key))
    return keys, refused


def _algorithm(entry: Mapping[str, Any]) -> str | None:
    """Returns RS256 or ES256 if the entry may sign with it. The key type decides, and `alg`, `use` and `key_ops` must
    not contradict. A key without them may sign."""
    found = {"RSA": "RS256", "EC": "ES256"}.get(entry["kty"]) if isinstance(entry.get("kty"), str) else None
    algorithm, use, operations = (entry.get(name) for name in ("alg", "use", "key_ops"))
    if algorithm not in (None, found) or use not in (None, "sig"):
        return None
    return None if isinstance(operations, list) and "verify" not in operations else found


def _rsa(entry: Mapping[str, Any]) -> tuple[tuple[int, int], rsa.RSAPublicKey]:
    _public(entry)
    n, e = _number(entry, "n", _RSA_MOST), _number(entry, "e", 64)
    if n.bit_length() < _RSA_LEAST:
        raise _Weak(f"RSA key of {n.bit_length()} bits: at least {_RSA_LEAST} are required")
    if e < 3 or e % 2 == 0:
        raise _Weak(f"RSA exponent {e}: an odd number of 3 or more is required")
    return (n, e), rsa.RSAPublicNumbers(e, n).public_key()


def _ec(entry: Mapping[str, Any]) -> tuple[tuple[int, int], ec.EllipticCurvePublicKey]:
    _public(entry)
    if entry.get("crv") != "P-256":
        raise _Weak(f"curve {str(entry.get('crv'))[:40]}: ES256 requires P-256")
    x, y = _number(entry, "x", 256), _number(entry, "y", 256)
    return (x, y), ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _public(entry: Mapping[str, Any]) -> None:
    if "d" in entry:
        raise _Weak("its private part is published, so anybody may sign with it")


def _number(entry: Mapping[str, Any], name: str, most: int) -> int:
    """Returns a Base64urlUInt. Some tools pad it, write plain base64, or leave a zero byte for the sign; the number is
    the same. Raises ValueError if it is longer than `most` bits."""
    text = entry.get(name)
    if not isinstance(text, str):
        raise ValueError(f"it has no {name}")
    if len(text) > most // 6 + 8:
        raise ValueError(f"{name} is longer than {most} bits")
    plain = text.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    number = int.from_bytes(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True), "big")
    if number.bit_length() > most:
        raise ValueError(f"{name} is longer than {most} bits")
    return number


async def download(url: str) -> object:
    """Fetches the JSON document at `url`: gzip or plain, at most 1 MiB, over at most 5 redirects.

    Some firewalls refuse the default user agent of Python's clients, so attn sends its own. Proxies of the environment
    are used.
    """
    headers = {
        "user-agent": f"attn/{metadata.version('attn')}",
        "accept": "application/jwk-set+json, application/json, */*;q=0.5",
        "accept-encoding": "gzip",
    }
    async with aiohttp.ClientSession(headers=headers, auto_decompress=False, trust_env=True) as session:
        for _ in range(_REDIRECTS + 1):
            async with session.get(url, allow_redirects=False) as answer:
                if answer.status not in (301, 302, 303, 307, 308):
                    return await _document(answer)
                url = redirected(url, answer.headers.get("location", ""))
        raise ValueError(f"more than {_REDIRECTS} redirects")


def redirected(at: str, location: str) -> str:
    """Returns where a redirect leads. Raises ValueError if that is not http(s), or leads from https to plain http,
    which others can change on its way."""
    to = urljoin(at, location)
    before, after = urlsplit(at).scheme, urlsplit(to).scheme
    if not location or after not in ("http", "https") or (before, after) == ("https", "http"):
        raise ValueError(f"redirected from {before} to {after if location else 'nowhere'}: refused")
    return to


async def _document(answer: aiohttp.ClientResponse) -> object:
    if answer.status != 200:
        raise ValueError(f"the issuer answered {answer.status}, not 200")
    packed = bytearray()
    async for chunk in answer.content.iter_any():
        packed += chunk
        if len(packed) > _LARGEST:
            raise ValueError(f"more than {_LARGEST} bytes of keys")
    return json.loads(b"".join(_unpacked(bytes(packed), answer.headers.get("content-encoding", ""))))


def _unpacked(packed: bytes, encoding: str) -> Iterator[bytes]:
    """A small body may unpack to gigabytes, so unpacking stops at the limit."""
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        yield packed
        return
    if kind not in ("gzip", "x-gzip"):
        raise ValueError(f"the issuer's answer is encoded as {kind[:40]}: only gzip was asked for")
    unpacker, left = zlib.decompressobj(31), _LARGEST
    while packed:
        found = unpacker.decompress(packed, left + 1)
        left -= len(found)
        if left < 0:
            raise ValueError(f"more than {_LARGEST} bytes of keys")
        yield found
        if not unpacker.eof:
            raise ValueError("the issuer's gzip answer is cut short")
        packed, unpacker = unpacker.unused_data, zlib.decompressobj(31)
