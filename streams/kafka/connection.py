"""Connection arguments of all Kafka clients (addresses, TLS, SASL: decision 0035), and bounded disconnect."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaClient, AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from schemas.settings import Settings
from streams.kafka.records import broker_loss, fetcher_patch

__all__ = ["client_arguments", "close_client", "deadline"]

# Closing a TLS connection waits 30 s for a broker that does not answer, and longer while bytes are unsent.
_CLOSE_SECONDS = 5.0


def client_arguments(settings: Settings) -> dict[str, Any]:
    """Returns the keyword arguments that every aiokafka client takes. Raises OSError (SSLError is one) if a certificate
    cannot be read.

    Every client of attn is created with these arguments, so this function also replaces aiokafka's record parser
    and shortens the waits of fetches while a broker is down.
    """
    fetcher_patch.install()
    broker_loss.install()
    arguments: dict[str, Any] = {"bootstrap_servers": settings.kafka, "security_protocol": settings.kafka_security}
    if settings.kafka_security.endswith("SSL"):
        arguments["ssl_context"] = _context(settings.kafka_ca, settings.kafka_certificate, settings.kafka_key)
    if settings.kafka_security.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.kafka_mechanism
        arguments["sasl_plain_username"] = settings.kafka_user
        password = settings.kafka_password
        arguments["sasl_plain_password"] = password.get_secret_value() if password is not None else ""
    return arguments


@asynccontextmanager
async def deadline(seconds: float, message: str, error: type[Exception] = TimeoutError) -> AsyncIterator[None]:
    """Raises `error(message)` if the block takes longer than `seconds`. aiokafka itself retries without a limit."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise error(message) from None


async def close_client(client: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient | AIOKafkaClient) -> None:
    """Closes a Kafka client; gives up after 5 s.

    aiokafka swallows `CancelledError` while it awaits its own cancelled tasks. If the calling task was cancelled in the
    meantime, this function raises CancelledError once the client is closed.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await (client.close() if isinstance(client, AIOKafkaAdminClient | AIOKafkaClient) else client.stop())
    if task.cancelling() > before:
        raise asyncio.CancelledError


@lru_cache(maxsize=8)  # creating a context reads all certificates of the system; a process needs one
def _context(authority: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
