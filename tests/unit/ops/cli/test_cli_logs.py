"""Logs: secrets are redacted in every field; text for terminals, JSON otherwise. Repeated lines are limited."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import jwt
import pytest
import structlog
from pydantic import SecretStr

from ops.cli import logging_setup
from ops.cli.logging_setup import REDACTED, Redactor, RepeatFilter
from schemas.settings import Settings
from streams.runtime.secret_texts import KEYS, LINKS, SESSIONS, TERMINALS, SecretFormat
from streams.runtime.source_keys import ENTROPY_BYTES, new_key

SECRET = 'horse"battery\\staple and more, long enough'
TOKEN = jwt.encode({"sub": "u"}, "k" * 32)
KEY = new_key(bytes(range(ENTROPY_BYTES))).text


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def settings(**more: object) -> Settings:
    return Settings(
        _env_file=None, jwt_secret=SecretStr(SECRET), clickhouse="https://ana:p%40ssw0rd@ch:8443/attn", **more)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_gets_into_a_log(log_format: str) -> None:
    out = io.StringIO()
    logging_setup.configure("edge", settings(log_format=log_format), out)
    log = structlog.get_logger("attn.test")
    log.info("configured", secret=SECRET, nested={"password": "hunter22", "list": [{"api_key": "k-123456"}]})
    log.info(f"said {SECRET} aloud", url="https://ana:p%40ssw0rd@ch:8443/attn")
    log.warning("request", headers={"Authorization": f"Bearer {TOKEN}"}, path=f"/ws?token={TOKEN}")
    log.info("bearer", line=f"Authorization: Bearer {TOKEN[:20]}")
    logging.getLogger("other.library").warning("Cookie: attn_session=%s; theme=dark", TOKEN)
    log.warning("request", path=f"/events/{KEY}", sent=[KEY], headers={"Authorization": f"Bearer {KEY}"})
    logging.getLogger("other.library").warning("a key: %s, and cut: %s", KEY, KEY[:40])
    logging.getLogger("other.library").warning("env ATTN_JWT_SECRET=opensesame other=1")
    try:
        password = "p@ssw0rd"  # noqa: F841 - a local variable of a traceback
        raise RuntimeError(f"login with {SECRET!r} as p%40ssw0rd failed")
    except RuntimeError:
        log.exception("failed")
    text = out.getvalue()
    for secret in (
        "horse", "staple", "hunter22", "k-123456", "p%40ssw0rd", "p@ssw0rd", TOKEN, TOKEN[:20], "opensesame",
        KEY[22:30], KEY[40:],
    ):
        assert secret not in text, text
    assert text.count(REDACTED) >= 8
    assert f"{KEY[:22]}{REDACTED}" in text, "the key's id is not redacted: an operator needs it to revoke the key"
    assert "theme=dark" in text
    assert "other=1" in text
    assert "Traceback" in text


def test_json_lines_are_json_even_when_redacted() -> None:
    out = io.StringIO()
    logging_setup.configure("worker", settings(log_format="json"), out)
    structlog.get_logger("attn.test").info("x", dsn=f'{{"password": "{SECRET}", "a": 1}}', note=SECRET)
    logging.getLogger("foreign").error('{"token": "abcdefgh"}')
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["role"] for line in lines] == ["worker"] * 3
    assert lines[0]["note"] == REDACTED
    assert lines[1]["level"] == "error"
    assert {"time", "event", "logger"} <= lines[0].keys()
    assert "mind the gap" in lines[2]["event"]


def test_ordinary_words_are_not_redacted() -> None:
    redact = Redactor(["s3cr3t-value"])
    for line in (
        "wp_tok_abc was approved", "http://127.0.0.1:8080/org/me/inbox?limit=5", "tokens: 5 were made", "10 secrets",
        "kafka at user@host:9092", "made a secret for tokens",
    ):
        assert redact.redact_text(line) == line
    event = {"event": "a token came", "count": 3}
    assert redact.redact_fields(None, "", event) == event


@pytest.mark.parametrize("prefix", ["whsec_", "whsk_"])
def test_secrets_of_webhooks_are_redacted(prefix: str) -> None:
    redact = Redactor([]).redact_text
    assert redact(f"read {prefix}MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw== here") == f"read {prefix}{REDACTED} here"
    public = "the public key is whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw="
    assert redact(public) == public


def test_a_part_of_a_longer_secret_does_not_uncover_it() -> None:
    assert Redactor(["abcd", "abcdefgh"]).redact_text("abcdefgh") == REDACTED


def test_info_lines_of_libraries_are_dropped_and_those_of_attn_are_kept() -> None:
    out = io.StringIO()
    logging_setup.configure("worker", settings(log_format="text"), out)
    logging.getLogger("aiokafka.consumer").info("rebalanced")
    structlog.get_logger("attn.worker").info("ready")
    assert "rebalanced" not in out.getvalue()
    assert "ready" in out.getvalue()


def test_repeated_log_lines_of_libraries_are_limited() -> None:
    now = 0.0
    calm = RepeatFilter(quiet=10.0, clock=lambda: now)

    def logged_text(name: str, line: str, *given: object) -> str | None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, line, given, None)
        return record.getMessage() if calm.filter(record) else None

    assert logged_text("aiokafka", "no node %s", 1) == "no node 1"
    assert [logged_text("aiokafka", "no node %s", 2) for _ in range(7)] == [None] * 7
    assert logged_text("aiokafka", "another line") == "another line"
    assert [logged_text("attn.worker", "no node %s", 1) for _ in range(2)] == ["no node 1"] * 2
    now = 10.0
    assert logged_text("aiokafka", "no node %s", 3) == "no node 3 (and 7 more like it since)"
    now = 20.0
    assert logged_text("aiokafka", "no node %s", 3) == "no node 3"


def test_many_repeated_lines_take_no_memory_and_debug_shows_all() -> None:
    calm = RepeatFilter()
    for number in range(5000):
        calm.filter(logging.LogRecord("faust", logging.ERROR, "", 0, f"line {number}", (), None))
    assert len(calm._said) <= 1000
    for level, count in (("INFO", 1), ("DEBUG", 3)):
        out = io.StringIO()
        logging_setup.configure("worker", settings(log_format="text", log_level=level), out)
        for number in range(3):
            logging.getLogger("aiokafka.producer").error("no node %d", number)
        assert out.getvalue().count("no node") == count


def test_text_only_for_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert logging_setup.is_text(settings(), Terminal())
    assert not logging_setup.is_text(settings(), io.StringIO())
    assert logging_setup.is_text(settings(log_format="text"), io.StringIO())
    assert not logging_setup.is_text(settings(log_format="json"), Terminal())


def test_an_old_name_of_a_setting_is_warned_of_with_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTN_HEARTBEAT", "3")
    stream = io.StringIO()
    logging_setup.configure("edge", settings(log_format="json"), stream)
    line, = map(json.loads, stream.getvalue().splitlines())
    assert line["level"] == "warning"
    assert line["event"] == (
        "ATTN_HEARTBEAT is deprecated and will be removed in the next release: use ATTN_HEARTBEAT_SECONDS")


@pytest.mark.parametrize("kind", [KEYS, SESSIONS, LINKS, TERMINALS], ids=lambda kind: kind.prefix)
def test_every_secret_of_attn_is_redacted_behind_its_id(kind: SecretFormat) -> None:
    text = kind.new(bytes(range(ENTROPY_BYTES))).text
    shown = Redactor([]).redact_text(f"sent '{text}.s1.ab' to https://x/#signin={text}")
    assert text[-49:] not in shown
    assert shown.count(text[:22] if kind is KEYS else text[:23]) == 2
