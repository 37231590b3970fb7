"""The dashboard's card of keys in a real browser: create a key by keyboard, use and revoke it; other roles; axe."""

from __future__ import annotations

import json
import shlex
from typing import Any

import httpx
import pytest
from support.clients.browsers import CHROMIUM, Scene, shows

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def opened(page: Any) -> None:
    page.click(".menu summary")
    page.click(".menu >> text=Keys of sources")
    page.wait_for_selector("#keys >> text=New key")


def findings(page: Any) -> list[str]:
    """Returns what axe reports within the card, contrast included, after the animations."""
    page.wait_for_function("() => !document.getAnimations().length")
    violations = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{violation['id']}: {node['target']} {node.get('failureSummary')}" for violation in violations
            if violation["impact"] in ("serious", "critical") for node in violation["nodes"]]


def keys(scene: Scene) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = scene.up.get("/org/me/keys", scene.token()).json()["keys"]
    return rows


def status(scene: Scene, secret: str) -> int:
    answer = httpx.get(f"{scene.up.url}/org/me/decisions", headers={"authorization": f"Bearer {secret}"},
                       trust_env=False, timeout=30)
    return answer.status_code


def test_a_key_by_keyboard_alone(scene: Scene) -> None:
    page = scene.signed_in(permissions=["clipboard-read", "clipboard-write"])
    page.focus(".menu summary")
    page.keyboard.press("Enter")
    page.focus(".menu button:has-text('Keys of sources')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#keys >> text=This workspace has no keys.")
    page.focus("#keys >> text=New key")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'key-name'")
    page.keyboard.press("Enter")  # no field is filled: the focus moves to the first invalid one
    page.wait_for_selector("#key-topics-error:has-text('at least one topic')")
    assert page.evaluate("() => document.activeElement.id") == "key-name"
    page.keyboard.type("CI <b>of</b> the shop")
    for key in ("Tab", "Space", "Tab", "Tab", "Tab", "Tab", "Tab", "Tab", "Tab", "Tab", "Tab"):
        page.keyboard.press(key)
    page.wait_for_function("() => document.activeElement.id === 'key-source'")
    page.keyboard.type("/pipelines")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-text")
    secret = page.input_value("#key-text")
    assert secret.startswith("attn_")
    page.focus("#key-text >> xpath=.. >> text=Copy")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=status]:text-is('Copied')")
    assert page.evaluate("() => navigator.clipboard.readText()") == secret
    words = shlex.split(page.input_value("#key-curl"))
    sent = httpx.post(words[2], content=words[-1], trust_env=False, timeout=30,
                      headers=dict(value.split(": ", 1) for value in (words[4], words[6])))
    assert (sent.status_code, sent.json()["accepted"]) == (202, 1)
    assert json.loads(words[-1])["source"] == "/pipelines"
    shows(page, "Review production deploy")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert secret not in page.content()
    assert page.evaluate("(text) => JSON.stringify([localStorage, sessionStorage]).includes(text)", secret) is False
    opened(page)
    page.wait_for_selector(".key-entry:has-text('CI <b>of</b> the shop'):has-text('source /pipelines')")
    assert secret not in page.content()
    assert [(key["name"], key["topics"]) for key in keys(scene)] == [("CI <b>of</b> the shop", ["waitpoints"])]
    page.focus(".key-entry >> text=Revoke")
    page.keyboard.press("Enter")
    # a second press does not revoke the key
    page.wait_for_function("() => document.activeElement.textContent === 'Keep'")
    assert status(scene, secret) == 200
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#keys >> text=This workspace has no keys.")
    assert keys(scene) == []
    assert status(scene, secret) == 401


def test_a_lost_response_creates_one_key(scene: Scene) -> None:
    """The edge answers a repeat without the key's text. The card says this, and the key can be revoked."""
    page = scene.signed_in()
    opened(page)
    page.click("#keys >> text=New key")
    page.fill("#key-name", "CI")
    page.check("[value=messages]")

    def lose_response(route: Any) -> None:
        route.fetch()
        route.abort()

    page.route("**/org/me/keys", lose_response, times=1)
    page.click("#keys >> text=Create the key")
    page.wait_for_selector("#keys >> text=attn keeps no copy")
    assert page.locator("#key-text").count() == 0
    assert len(keys(scene)) == 1
    page.click("#keys >> text=Done")
    page.wait_for_selector(".key-entry:has-text('CI')")
    page.mouse.click(5, 5)  # a click beside the card does not close it
    assert page.locator("#keys[open]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_reports_no_violations_on_any_screen(scene: Scene, scheme: str) -> None:
    page = scene.signed_in(color_scheme=scheme, reduced_motion="reduce", **(PHONE if scheme == "dark" else {}))
    opened(page)
    assert findings(page) == []
    page.click("#keys >> text=New key")
    page.select_option("#key-expiry", "date")
    page.click("#keys >> text=Create the key")
    page.wait_for_selector("#key-date-error:has-text('not over')")
    assert findings(page) == []
    page.fill("#key-name", "n" * 200)
    page.check("[value=cases]")
    page.fill("#key-date", "2030-01-01")
    page.click("#keys >> text=Create the key")
    page.wait_for_selector("#key-text")
    assert findings(page) == []
    page.click("#keys >> text=Done")
    page.click(".key-entry >> text=Revoke")
    page.wait_for_selector("text=Revoke now")
    assert findings(page) == []
    width = "(at) => at.scrollWidth - at.clientWidth"
    assert page.locator("#keys").evaluate(width) == 0


@pytest.mark.parametrize("role", ["MANAGER", "MEMBER", "VIEWER"])
def test_other_roles_have_no_entry(scene: Scene, role: str) -> None:
    page = scene.signed_in("eve", role)
    page.click(".menu summary")
    page.wait_for_selector(".menu >> text=Keyboard shortcuts")
    page.wait_for_selector(f".menu >> text={role.lower()} of")
    assert page.locator(".menu >> text=Keys of sources").count() == 0
