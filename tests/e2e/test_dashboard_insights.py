"""The overview's card about decisions, on the whole stack, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from support.clients.browsers import CHROMIUM, Scene, shows
from support.processes.up import wait_for

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


def test_the_overview_shows_managers_how_long_decisions_took(scene: Scene, tmp_path: Path) -> None:
    """The receipts of these decisions verify with the keys that the running edge publishes."""
    asks = {"options": [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"}]}
    scene.emit("waitpoints", *(scene.event("waitpoint.created", name, -30, title=name, ask=asks, case_id="k")
                               for name in ("one", "two")))
    page = scene.signed_in()
    shows(page, "one", "two")
    for item in scene.up.get("/org/me/inbox", scene.token()).json()["items"]:
        done = httpx.post(
            f"{scene.up.url}/api/v1/inbox/{item['id']}/decision", json={"option": "yes", "digest": item["digest"]},
            headers={"authorization": f"Bearer {scene.token('bob', 'MEMBER')}"}, trust_env=False)
        assert done.status_code == 201, done.text
        receipt = scene.up.get(f"/api/v1/inbox/{item['id']}/decision/receipt", scene.token())
        (tmp_path / "receipt.json").write_bytes(receipt.content)
        keys = f"{scene.up.url}/.well-known/attn-decision-keys.json"
        verified = scene.up.attn("receipt", "verify", str(tmp_path / "receipt.json"), "--keys", keys)
        assert verified.returncode == 0, verified.stderr
        assert "that of the question in the receipt" in verified.stdout
        assert item["digest"] in verified.stdout
    scene.emit("waitpoints", scene.event("decision.refused", "two", 0, reason="frozen until Monday"))
    wait_for(lambda: scene.up.get("/org/me/insights", scene.token()).json()["decisions"]["refused"], 60, "the history")
    page.reload()
    card = page.locator("#widget-decisions")
    card.locator(".people b:text-is('bob')").wait_for()
    text = card.inner_text()
    for part in ("2\nDecided", "30 min\nHalf decided within", "1 refused", "frozen until Monday", "2 decisions",
                 "100 % decided without opening the item"):
        assert part in text, text
    page.locator(".row:has-text('two')").locator(".main").click()
    page.wait_for_selector(".timeline >> text=decision refused")
    assert "because frozen until Monday" in re.sub(r"[\u2066-\u2069]", "", page.locator(".timeline").inner_text())
    eve = scene.signed_in("eve", "MEMBER")
    eve.wait_for_selector("#widget-kinds")
    assert eve.locator("#widget-decisions").count() == 0
