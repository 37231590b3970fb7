"""How a Kafka client reaches the brokers: where they are, how the line is protected, and who we are (decision 0035);
and how it leaves them."""

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
from streams.kafka.records import fetcher_patch

__all__ = ["client_arguments", "close_client", "deadline"]

# A broker that is silent does not say goodbye either: TLS would wait 30 s for that, bytes that are not sent longer.
_CLOSE_SECONDS = 5.0


def client_arguments(settings: Settings) -> dict[str, Any]:
    """Arguments that every client of aiokafka takes. OSError (SSLError is one): a certificate can't be read.

    Every client of attn calls it first, so it also replaces aiokafka's parser of records for this process.
    """
    fetcher_patch.install()
    given: dict[str, Any] = {"bootstrap_servers": settings.kafka, "security_protocol": settings.kafka_security}
    if settings.kafka_security.endswith("SSL"):
        given["ssl_context"] = _context(settings.kafka_ca, settings.kafka_certificate, settings.kafka_key)
    if settings.kafka_security.startswith("SASL"):
        given["sasl_mechanism"] = settings.kafka_mechanism
        given["sasl_plain_username"] = settings.kafka_user
        password = settings.kafka_password
        given["sasl_plain_password"] = password.get_secret_value() if password is not None else ""
    return given


@asynccontextmanager
async def deadline(seconds: float, message: str, error: type[Exception] = TimeoutError) -> AsyncIterator[None]:
    """Raises `error(message)` if the block takes longer than `seconds`. aiokafka itself retries without a limit."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise error(message) from None


async def close_client(client: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient | AIOKafkaClient) -> None:
    """End a client, or leave it after some seconds; a cancellation that comes meanwhile is heard when it has ended.

    aiokafka awaits tasks that it cancelled itself and takes any cancellation for theirs: whoever was cancelled in that
    moment would go on as if nothing had been said, and who waits for its end would wait for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await (client.close() if isinstance(client, AIOKafkaAdminClient | AIOKafkaClient) else client.stop())
    if task.cancelling() > before:
        raise asyncio.CancelledError


@lru_cache(maxsize=8)  # a process has one; making it reads all certificates of the system
def _context(authority: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=authority)
    if certificate is not None:
        found.load_cert_chain(certificate, key)
    return found
