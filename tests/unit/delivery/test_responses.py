"""Meaning of a receiver's response: statuses, Retry-After in both forms, and reasons without secrets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.delivery.http.responses import (
    MAX_REASON,
    MAX_RETRY_AFTER,
    classify,
    reason_of,
    retry_after_seconds,
)

NOW = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)


@given(st.integers(100, 999))
def test_every_status_has_one_meaning(status: int) -> None:
    kind = classify(status).kind
    assert kind == ("accepted" if status // 100 == 2 else "refused" if status in (409, 410, 422) else "failed")


def test_causes() -> None:
    assert [classify(status).cause for status in (204, 302, 400, 404, 409, 410, 422, 429, 500, 503)] == [
        "2xx", "redirect", "4xx", "4xx", "409", "410", "422", "4xx", "5xx", "5xx"]


@pytest.mark.parametrize(("value", "seconds"), [
    ("0", 0.0), ("7", 7.0), (" 120 ", 120.0), ("0007", 7.0), ("86401", MAX_RETRY_AFTER), ("9" * 60, MAX_RETRY_AFTER),
    (None, None), ("", None), ("-1", None), ("1.5", None), ("+3", None), ("soon", None), ("٣", None), ("1e3", None),
    ("Mon, 30 Nov 2026 12:00:10 GMT", 10.0), ("Mon, 30 Nov 2026 11:59:00 GMT", 0.0),
    ("Monday, 30-Nov-26 12:00:10 GMT", 10.0), ("Mon Nov 30 12:00:10 2026", 10.0),
    ("Mon, 30 Nov 2026 14:00:10 +0200", 10.0), ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER),
    ("Mon, 30 Nov 0001 12:00:10 GMT", 0.0), ("Mon, 99 Nov 2026 12:00:10 GMT", None),
])
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW.timestamp()) == seconds


@given(st.text(max_size=200) | st.integers().map(str))
def test_any_retry_after_is_bounded(value: str) -> None:
    seconds = retry_after_seconds(value, NOW.timestamp())
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER


@given(st.integers(-10**6, 10**6))
def test_dates_of_retry_after(seconds: int) -> None:
    text = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_seconds(text, NOW.timestamp()) == min(max(0.0, float(seconds)), MAX_RETRY_AFTER)


def test_only_429_and_503_pause_the_whole_endpoint() -> None:
    assert {status for status in range(100, 600) if classify(status, "5").throttles} == {429, 503}
    assert not classify(503).throttles
    assert classify(500, "5").retry_after == 5.0
    assert classify(302, "5").retry_after is None


@pytest.mark.parametrize(("kind", "body", "reason"), [
    ("application/json", '{"error": "already deployed"}', "already deployed"),
    ("application/json", '{"error": {"message": "already deployed"}}', "already deployed"),
    ("application/problem+json", '{"title": "T", "detail": "D"}', "D"),
    ("", '{"message": "m"}', "m"), ("application/json", '"text"', "text"),
    ("text/plain", "not  any\r\nmore\t", "not any more"), ("text/plain; charset=utf-8", "schön", "schön"),
    ("application/json", "{}", "HTTP 409"), ("application/json", '{"error": 5}', "HTTP 409"),
    ("application/json", "[1]", "HTTP 409"), ("application/json", "{", "HTTP 409"), ("text/plain", "", "HTTP 409"),
    ("text/html", "<h1>no</h1>", "HTTP 409"), ("application/json", "[" * 10_000, "HTTP 409"),
    ("text/plain", " \x00\x1b[31m \u202e", "[31m"),
])
def test_reasons(kind: str, body: str, reason: str) -> None:
    assert reason_of(409, kind, body.encode()) == reason


@given(st.binary(max_size=3000) | st.text(max_size=3000).map(lambda text: json.dumps({"error": text}).encode()))
def test_any_body_gives_one_bounded_line(body: bytes) -> None:
    reason = reason_of(422, "text/plain", body)
    assert 0 < len(reason) <= MAX_REASON
    assert not any(character in reason for character in "\r\n\x00\u202e")
    reason.encode()


@given(st.text(min_size=6, max_size=80).filter(str.strip), st.text(max_size=600), st.text(max_size=600), st.booleans())
def test_a_repeated_secret_is_removed(secret: str, before: str, after: str, as_json: bool) -> None:
    """A receiver may repeat the request in its response, also escaped within other text."""
    inner = json.dumps({"token": secret})
    for text in (f"{before}{secret}{after}", inner, json.dumps({"token": secret}, ensure_ascii=False)):
        body = json.dumps({"error": text}) if as_json else text
        reason = reason_of(409, "text/plain", body.encode(errors="surrogatepass"), (secret,))
        if secret not in before + after + "(removed)" + '{"token": ""}' and len(secret) > 12:
            assert secret not in reason


def test_a_secret_at_the_cut_is_removed_as_a_whole() -> None:
    secret = "s3cret-" + "x" * 40
    body = ("a" * (MAX_REASON - 20) + secret).encode()
    assert "s3cret" not in reason_of(409, "text/plain", body, (secret,))
