"""Text of a device: bounded, one line, without characters that change how it is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from api.http.auth.device import address_of, clean_text, device_of


def device(agent: str) -> str:
    return device_of(Request({"type": "http", "headers": [(b"user-agent", agent.encode("latin-1", "replace"))]}))


@pytest.mark.parametrize(("agent", "shown"), [
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/1 Safari/1 Edg/1",
     "Edge on Windows"),
    ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605 Version/17.0 Safari/604.1",
     "Safari on iPhone"),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:1) Gecko/1 Firefox/1", "Firefox on Linux"), ("curl/8.5.0", "curl/8.5.0"),
    ("", ""), ("<script>alert(1)</script>", "<script>alert(1)</script>"), ("a\x00b\x1b[31m\u00a0c", "a b [31m c"),
    ("x" * 5000, "x" * 120),
])
def test_a_device_is_short_text(agent: str, shown: str) -> None:
    assert device(agent) == shown


@given(st.text(), st.integers(1, 200))
def test_text_of_clients_is_bounded_and_printable(text: str, limit: int) -> None:
    shown = clean_text(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert clean_text("\u202egnp.exe\u200b", 50) == "gnp.exe"


def test_a_request_without_a_connection_has_no_address() -> None:
    assert address_of(Request({"type": "http", "headers": []})) == ""
