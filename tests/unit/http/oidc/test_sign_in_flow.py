"""State of a sign-in: its cookie is valid for this sign-in only, and a redirect target never leads to another host."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.auth.oidc.flow import FLOW_SECONDS, Box, cookie_name, new_flow, safe_target
from schemas.settings import Settings

NOW = 1_800_000_000.0
PAGE = "https://attn.example.com/auth/callback"


def box(secret: str = "s" * 40) -> Box:
    return Box(Settings(jwt_secret=secret, _env_file=None))  # type: ignore[call-arg]


def test_a_flow_opens_on_each_edge_for_ten_minutes() -> None:
    flow = new_flow(NOW, "/#item=1", 300, "mfa")
    value = box().seal_flow(flow)
    assert flow.verifier not in value
    assert box().open_flow(value, flow.state, NOW + FLOW_SECONDS) == flow
    assert box().open_flow(value, flow.state, NOW + FLOW_SECONDS + 1) is None
    assert box().open_flow(value, flow.state, NOW - 60) is None


def test_a_flow_does_not_open_for_another_state_or_key_or_when_it_was_changed() -> None:
    flow, other = new_flow(NOW, "/"), new_flow(NOW, "/")
    value = box().seal_flow(flow)
    assert box().open_flow(value, other.state, NOW) is None
    assert box("t" * 40).open_flow(value, flow.state, NOW) is None
    for place in range(0, len(value), 7):
        changed = value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1:]
        assert box().open_flow(changed, flow.state, NOW) is None
    for text in ("", "A", "\xff" * 100, "A" * 10_000):
        assert box().open_flow(text, flow.state, NOW) is None
    assert cookie_name(flow.state) != cookie_name(other.state)


def test_the_longest_cookie_is_kept_by_browsers() -> None:
    flow = new_flow(NOW, safe_target("/#item=" + "x" * 1400), 10**9, "x" * 500)
    assert len(box().seal_flow(flow)) + len(cookie_name(flow.state)) < 4096 - 128


def test_a_box_needs_a_secret() -> None:
    with pytest.raises(ValueError, match="ATTN_OIDC_CLIENT_SECRET"):
        Box(Settings(_env_file=None))  # type: ignore[call-arg]


@pytest.mark.parametrize("target", ["/", "/#item=a%20b", "/?view=open#item=x", "/#item=ä", "/?a=b&c=d"])
def test_targets_of_the_page_are_kept(target: str) -> None:
    assert safe_target(target).replace("%C3%A4", "ä") == target


@pytest.mark.parametrize("target", [
    None, "", "//evil.example.com", "/\\evil.example.com", "https://evil.example.com", "javascript:alert(1)",
    "/auth/logout", "/\t/evil", "/#a\r\nset-cookie: x=1", "/..//evil", "#item=1", "?x", "/%2f/evil", "/#" + "x" * 2000,
])
def test_other_targets_are_the_page(target: str | None) -> None:
    assert safe_target(target) == "/"


@given(st.text(max_size=60) | st.text("/\\?#@:.a\t%", max_size=12))
def test_no_target_leaves_the_page(text: str) -> None:
    target = safe_target(text)
    parts = urlsplit(urljoin(PAGE, target))
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "attn.example.com", "/")
    assert target.isascii()
    assert target.isprintable()
