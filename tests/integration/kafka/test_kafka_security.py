"""Every role and command of attn works on a Kafka with TLS and a password, and on one with client certificates."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.edge.edge_on_broker import edge
from support.edge.edges import bearer, until
from support.fold.fold_driver import cloud_event
from support.kafka.brokers import JVM, QUICK
from support.kafka.pipeline import worker
from support.processes.cli import attn as command_line
from support.processes.cli import attn_here

from ops import config
from ops.errors import UserError
from ops.kafka import Cluster, missing
from ops.process.ports import free_port
from schemas.settings import Settings
from streams.history import metrics
from streams.history.main import run as run_history
from streams.kafka import topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PASSWORD = "p@ss word: with / every thing"
WORDS = {"kafka_user": "attn", "kafka_password": PASSWORD}


class Authority:
    """A certificate authority that signs certificates for 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' authority")])
        own = self._signed(self._name, self._key.public_key(), authority=True)
        self.file = directory / "ca.pem"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def certify(self, name: str) -> Path:
        """Writes a new key and its certificate into one PEM file, as Kafka and OpenSSL read it. Returns the path."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), authority=False)
        path = self._directory / f"{name}.pem"
        path.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption(),
        ) + certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        building = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False))
        if authority:
            building = building.add_extension(x509.KeyUsage(
                False, False, False, False, False, True, True, False, False), critical=True)
        return building.sign(self._key, hashes.SHA256())


class SecuredKafka:
    """A Kafka with three listeners: plain text; `words` needs TLS and a password; `certificate` needs a client
    certificate of the authority."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.port, self.words, self.certificate = free_port(), free_port(), free_port()
        login = "org.apache.kafka.common.security.plain.PlainLoginModule"
        self.cluster = Cluster(directory / "kafka", 1, port=self.port, jvm=JVM, overrides=QUICK | {
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.port + 1},"
                         f"WORDS://127.0.0.1:{self.words},CERT://127.0.0.1:{self.certificate}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port},WORDS://127.0.0.1:{self.words},"
                                    f"CERT://127.0.0.1:{self.certificate}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,WORDS:SASL_SSL,CERT:SSL",
            "ssl.keystore.type": "PEM", "ssl.keystore.location": str(self.authority.certify("broker")),
            "ssl.truststore.type": "PEM", "ssl.truststore.location": str(self.authority.file),
            "listener.name.cert.ssl.client.auth": "required",
            "listener.name.words.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.words.plain.sasl.jaas.config": f'{login} required user_attn="{PASSWORD}";',
        })

    def settings(self, listener: str, **more: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"kafka_ca": str(self.authority.file), "log_partitions": 2}
        if listener == "words":
            given |= {"kafka": f"127.0.0.1:{self.words}", "kafka_security": "SASL_SSL", **WORDS}
        else:
            given |= {"kafka": f"127.0.0.1:{self.certificate}", "kafka_security": "SSL",
                      "kafka_certificate": str(self.authority.certify("attn"))}
        return given | more


@asynccontextmanager
async def secured_kafka(directory: Path) -> AsyncIterator[SecuredKafka]:
    if why := missing():
        pytest.skip(f"no Apache Kafka here: {why}")
    kafka = SecuredKafka(directory)
    try:
        await kafka.cluster.start()
        yield kafka
    finally:
        kafka.cluster.kill()


async def attn(given: dict[str, Any], *arguments: str, expect: int = 0) -> None:
    """Runs `attn` with these settings. Fails unless its exit code is `expect`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ATTN_")]:
            patch.delenv(name)
        for name, value in given.items():
            patch.setenv(f"ATTN_{name.upper()}", str(value))
        assert await asyncio.to_thread(attn_here, *arguments) == expect, arguments


async def test_all_roles_and_commands_work_with_a_password_or_a_certificate(tmp_path: Path) -> None:
    async with secured_kafka(tmp_path) as kafka:
        for listener in ("words", "certificate"):
            given = kafka.settings(listener, data_dir=str(tmp_path / listener))
            settings = Settings(_env_file=None, **given)  # type: ignore[call-arg]
            await attn(given, "topics")
            good = cloud_event("message.posted", f"{listener}-1", ws="w1", title=listener)
            (tmp_path / "events").write_text(json.dumps(good) + "\n")
            (tmp_path / "bad").write_text(json.dumps({"topic": "messages", "value": {"nonsense": listener}}) + "\n")
            await attn(given, "emit", "messages", str(tmp_path / "events"))
            await attn(given, "replay", str(tmp_path / "bad"))
            stop, written = asyncio.Event(), metrics.ROWS._value.get()
            async with worker(settings), edge(settings) as base, httpx.AsyncClient(
                base_url=base, headers=bearer("ann", "OWNER", "w1"), timeout=60,
            ) as client:
                history = asyncio.create_task(run_history(settings, stop))

                async def listed(client: httpx.AsyncClient = client, name: str = f"{listener}-1") -> bool:
                    items = (await client.get("/org/me/inbox")).json()["items"]
                    return any(item["source_id"] == name for item in items)

                while not await listed():
                    await asyncio.sleep(0.1)
                item = (await client.get("/org/me/inbox")).json()["items"][0]["id"]
                answer = await client.patch(f"/api/v1/inbox/{item}", json={"state": "read"})
                assert answer.status_code == 200, answer.text
                await until(lambda before=written: metrics.ROWS._value.get() > before, 60)
                await attn(given, "dead-letters", "--summary")
                await attn(given, "rebuild", "--check")
                await attn(given, "checkpoint", str(tmp_path / f"{listener}.gz"))
                stop.set()
                await history


async def test_a_rejected_client_reports_the_reason_in_one_line(tmp_path: Path) -> None:
    async with secured_kafka(tmp_path) as kafka:
        async def refused(given: dict[str, Any]) -> None:
            env = {f"ATTN_{name.upper()}": str(value) for name, value in given.items()}
            done = await asyncio.to_thread(command_line, "topics", "--data-dir", str(tmp_path), cwd=tmp_path, env=env)
            assert done.returncode == 1, done.stderr
            assert done.stderr.splitlines()[-1].startswith("attn: "), done.stderr
            assert PASSWORD not in done.stderr
            assert "wrong" not in done.stderr
            with pytest.raises(topics.TopicError):
                await topics.ensure_topics(Settings(_env_file=None, **given), 1.0)  # type: ignore[call-arg]

        await asyncio.gather(*(refused(given) for given in (  # concurrently: each takes until its time limit
            kafka.settings("words", kafka_password="wrong"), kafka.settings("words", kafka_ca=""),
            kafka.settings("certificate", kafka_certificate=""),
            kafka.settings("words", kafka_security="PLAINTEXT"),
        )))


def test_missing_settings_and_files_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTN_KAFKA_SECURITY", "SASL_SSL")
    with pytest.raises(UserError, match="SASL_SSL needs ATTN_KAFKA_USER and ATTN_KAFKA_PASSWORD"):
        config.load_settings()
    monkeypatch.setenv("ATTN_KAFKA_SECURITY", "SSL")
    monkeypatch.setenv("ATTN_KAFKA_CA", str(tmp_path / "none.pem"))
    with pytest.raises(UserError, match=r"certificates for Kafka .*No such file"):
        config.load_settings()
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(UserError, match="certificates for Kafka"):
        config.load_settings()
    monkeypatch.delenv("ATTN_KAFKA_CA")
    assert attn_here("up", "--data-dir", str(tmp_path / "data")) == 2, "its broker has no TLS"
