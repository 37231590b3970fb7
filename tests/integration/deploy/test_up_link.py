"""`attn up --demo` and `attn link` print links that sign in once. The secrets are in no file and no metric of attn."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import httpx
import pytest
from support.processes.up import Up, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.slow]
LINK = re.compile(r"(http://127\.0\.0\.1:\d+)/#signin=(attnl_[0-9A-Za-z]{16}_([0-9A-Za-z]{49}))")


def redeem(base: str, text: str) -> httpx.Response:
    return httpx.post(f"{base}/auth/link", json={"link": text}, timeout=30, trust_env=False)


def test_the_printed_link_signs_the_newcomer_in_once(tmp_path: Path) -> None:
    up = Up(tmp_path, "--demo")
    try:
        up.start()
        wait_for(lambda: LINK.search(up.output_text()), 60, "a link in the banner")
        match = LINK.search(up.output_text())
        assert match is not None
        base, text, secret = match.groups()
        assert base == up.url
        assert up.output_text().count(secret) == 1
        first = redeem(base, text)
        assert first.status_code == 200, first.text
        assert (first.json()["workspace_id"], first.json()["role"]) == ("demo", "OWNER")
        assert redeem(base, text).status_code == 410
        session = first.cookies["attn_session"]
        cookies = {"attn_session": session}
        me = httpx.get(f"{base}/org/me", cookies=cookies, timeout=30, trust_env=False)
        assert (me.status_code, me.json()["session_id"]) == (200, session[6:22])
        printed = up.attn(
            "link", "--workspace", "w2", "--user", "eve", "--role", "viewer", "--url", "https://a.example/")
        assert printed.returncode == 0, printed.stderr
        assert re.fullmatch(r"https://a\.example/#signin=attnl_\w{66}\n", printed.stdout)
        other = redeem(base, printed.stdout.strip().partition("=")[2])
        assert (other.status_code, other.json()["user_id"]) == (200, "eve")
        assert up.attn("link", "--workspace", "w2", "--user", "eve", "--role", "king").returncode == 2
        signed_out = httpx.delete(
            f"{base}/auth/session", timeout=30, trust_env=False, headers={"x-csrf-token": first.cookies["attn_csrf"]},
            cookies=cookies | {"attn_csrf": first.cookies["attn_csrf"]})
        assert signed_out.status_code == 204
        assert httpx.get(f"{base}/org/me", cookies=cookies, timeout=30, trust_env=False).status_code == 401
        metrics = httpx.get(f"{base}/metrics", timeout=30, trust_env=False).text
        up.stop()
        texts = [session[23:], secret, other.cookies["attn_session"][23:]]
        assert not [text for text in texts if text in metrics]
        files = [path for path in up.data_dir.rglob("*") if path.is_file()]
        assert files
        for path in files:
            raw = path.read_bytes()
            raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
            assert not [text for text in texts if text.encode() in raw], path
        assert up.output_text().count(session[23:]) == 0
    finally:
        up.close()
