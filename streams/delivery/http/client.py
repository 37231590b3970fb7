"""One attempt to post a decision to an endpoint. Every part is bounded: addresses, time, redirects, answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from streams.delivery.endpoints import Endpoint
from streams.delivery.http.address_guard import AddressRefused, NameUnresolved, ResolvedAddress, resolve_checked
from streams.delivery.http.responses import MAX_ANSWER_BYTES, Result, classify, reason_of
from streams.delivery.signing import signature_headers

__all__ = ["HttpClient"]

_CONTENT_TYPE = "application/cloudevents+json"
_BODY_SECONDS = 3.0  # for the reason of a refusal, after its status
_IDENTITY = frozenset({"", "identity"})


class _Pinned(AbstractResolver):
    """Answers with the addresses that were checked."""

    def __init__(self, addresses: list[ResolvedAddress]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address.host, port=port, family=address.family, proto=0, flags=0)
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


class HttpClient:
    """Posts messages. Creates one connection per attempt: an endpoint never uses an address that was checked for
    another one, and a connection that the receiver has closed is never used again."""

    def __init__(self) -> None:
        self._tls = ssl.create_default_context()
        self._agent = f"attn/{metadata.version('attn')}"

    async def post(
        self, endpoint: Endpoint, message_id: str, body: bytes, secrets: tuple[str, ...] = (),
        trace: Mapping[str, str] = {},
    ) -> Result:
        """Makes one attempt: `endpoint.timeout` seconds until the status, 3 s more for a reason.

        `secrets`: texts that no reason may contain. `trace`: headers of the trace context.
        """
        now = time.time()
        headers = {
            "content-type": _CONTENT_TYPE, "accept": "application/json, text/plain", "accept-encoding": "identity",
            "user-agent": self._agent, **trace, **{name.lower(): value for name, value in endpoint.headers},
            **signature_headers(endpoint, message_id, int(now), body),
        }
        try:
            async with asyncio.timeout(endpoint.timeout) as limit:
                return await self._request(endpoint, headers, body, secrets, limit)
        except TimeoutError:
            return Result("failed", "timeout", f"no answer within {endpoint.timeout:g} s")
        except AddressRefused:
            return Result("failed", "address", "the endpoint's host has an address that is not public")
        except NameUnresolved:
            return Result("failed", "dns", "the endpoint's host name does not resolve")
        except (ssl.SSLError, aiohttp.ClientSSLError) as error:
            return Result("failed", "tls", f"TLS: {_tls_reason(error)}")
        except aiohttp.ClientConnectorError as error:
            return Result("failed", "connect", f"cannot connect: {_error_text(error.os_error)}")
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError, OSError):
            return Result("failed", "connect", "the connection was closed before an answer")
        except (aiohttp.ClientError, ValueError):
            return Result("failed", "protocol", "the answer is not valid HTTP")

    async def _request(
        self, endpoint: Endpoint, headers: dict[str, str], body: bytes, secrets: tuple[str, ...],
        limit: asyncio.Timeout,
    ) -> Result:
        addresses = await resolve_checked(endpoint.host, endpoint.port, endpoint.allow_private)
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, limit=1, ssl=self._tls)
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(endpoint.url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            result = classify(answer.status, answer.headers.get("retry-after"), time.time())
            if result.kind != "refused":
                return result  # the body is not needed, however long it is
            limit.reschedule(asyncio.get_running_loop().time() + 2 * _BODY_SECONDS)
            content = await _read(answer)
            return replace(
                result, reason=reason_of(answer.status, answer.headers.get("content-type", ""), content, secrets))


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """Returns up to MAX_ANSWER_BYTES of the body; what has arrived if the rest fails or takes more than 3 s.

    Returns nothing of a compressed body, which attn did not ask for and does not decompress.
    """
    if answer.headers.get("content-encoding", "").strip().lower() not in _IDENTITY:
        return b""
    content = bytearray()
    with contextlib.suppress(aiohttp.ClientError, OSError):  # TimeoutError is an OSError
        async with asyncio.timeout(_BODY_SECONDS):
            while len(content) < MAX_ANSWER_BYTES:
                chunk = await answer.content.read(MAX_ANSWER_BYTES - len(content))
                if not chunk:
                    break
                content += chunk
    return bytes(content)


def _error_text(error: OSError) -> str:
    """Returns the system's text of an error. The error's own text may have the address, which users may not see."""
    return os.strerror(error.errno).lower() if error.errno else "connection failed"


def _tls_reason(error: BaseException) -> str:
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    return str(getattr(inner, "verify_message", "") or getattr(inner, "reason", "") or "handshake failed")
