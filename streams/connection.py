"""How a Kafka client reaches the brokers: where they are, how the line is protected, and who we are (decision 0035)."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any

from schemas.settings import Settings

__all__ = ["connection"]


def connection(settings: Settings) -> dict[str, Any]:
    """Arguments that every client of aiokafka takes. OSError (SSLError is one): a certificate can't be read."""
    given: dict[str, Any] = {"bootstrap_servers": settings.kafka, "security_protocol": settings.kafka_security}
    if settings.kafka_security.endswith("SSL"):
        given["ssl_context"] = _context(settings.kafka_ca, settings.kafka_certificate, settings.kafka_key)
    if settings.kafka_security.startswith("SASL"):
        given["sasl_mechanism"] = settings.kafka_mechanism
        given["sasl_plain_username"] = settings.kafka_user
        password = settings.kafka_password
        given["sasl_plain_password"] = password.get_secret_value() if password is not None else ""
    return given


@lru_cache(maxsize=8)  # a process has one; making it reads all certificates of the system
def _context(authority: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=authority)
    if certificate is not None:
        found.load_cert_chain(certificate, key)
    return found
