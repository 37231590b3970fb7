"""`attn up --demo` for a new user: a full list, a question that Maria decides, and its effect at the source."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from support.clients.browsers import CHROMIUM, Scene, stage
from support.processes.up import Up, wait_for

from ops.process import identity

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, Any]]:
    with stage(tmp_path_factory.mktemp("demo"), "--demo") as both:
        yield both


@pytest.fixture
def scene(playing: tuple[Up, Any]) -> Iterator[Scene]:
    result = Scene(*playing, ws="demo")
    yield result
    result.close()


def item(scene: Scene, number: str) -> dict[str, Any]:
    row: dict[str, Any] = scene.up.get(f"/org/me/inbox/{number}", scene.token("maria")).json()
    return row


def questions(scene: Scene, kind: str, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Returns questions for Maria, newest first, because the demo's team decides the oldest first."""
    items = scene.up.get(f"/org/me/inbox?kind={kind}&limit=500", scene.token("maria")).json()["items"]
    return sorted((row for row in items if "ask" in row and wanted(row)), key=lambda row: str(row["created_at"]),
                  reverse=True)


def decide(scene: Scene, row: dict[str, Any], does: str) -> bool:
    """Maria decides over HTTP. Returns False if a member of the team decided before, or the story closed the item."""
    option = next(choice["id"] for choice in row["ask"]["options"] if choice["does"] == does)
    answer = httpx.post(
        f"{scene.up.url}/api/v1/inbox/{row['id']}/decision", timeout=60, trust_env=False,
        json={"option": option, "digest": row["digest"]}, headers={"Authorization": f"Bearer {scene.token('maria')}"})
    assert answer.status_code in (201, 409, 410, 412), answer.text
    return bool(answer.status_code == 201)


def decided(scene: Scene, kind: str, does: str, wanted: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
    """Waits for an item that Maria decides before the team. Returns the item."""
    return wait_for(lambda: next((row for row in questions(scene, kind, wanted) if decide(scene, row, does)), None), 90,
                    f"an item of kind {kind} that Maria decides")


def outcome(scene: Scene, number: str, *states: str) -> dict[str, Any]:
    """Waits until the item's decision is in one of these states. Returns the item."""
    def found() -> dict[str, Any] | None:
        row = item(scene, number)
        return row if row.get("decision", {}).get("state") in states else None

    return wait_for(found, 60, f"a decision that is {' or '.join(states)}")


def test_an_approval_takes_effect_at_the_source(scene: Scene) -> None:
    plan = decided(scene, "plan_approval", "approve")
    done = outcome(scene, plan["id"], "applied")
    assert (done["state"], done["resolved_action"], done["resolved_by_user_id"]) == ("resolved", "approved", "maria")
    messages = scene.up.get("/org/me/inbox?kind=message&limit=500", scene.token("maria")).json()["items"]
    assert f"Step 1 of the plan is done: {plan['title']}" in [row["title"] for row in messages]


def approved(page: Any, row_of_item: dict[str, Any]) -> bool:
    """Maria approves the item in the page with its shortcut key. Returns False if the team or the story was faster."""
    row = f"[data-id='{row_of_item['id']}']:not(.gone) .main"
    page.fill("#search", row_of_item["title"])
    page.wait_for_selector(f"{row}, .empty, .row:not([data-id='{row_of_item['id']}'])")
    if not page.locator(row).count():
        return False
    page.locator(row).click()
    # A row that leaves the list between the press and the release of the mouse does not open.
    wait_for(lambda: page.locator("#detail .answers.ready, #detail:not(:has(.answers))").count()
             or not page.locator(row).count(), 60, "an open item")
    if not page.locator("#detail .answers.ready").count():
        return False
    page.keyboard.press("a")
    page.wait_for_selector(".toast")
    return page.locator(".toast:has-text('Take back')").count() == 1


def test_a_newcomer_approves_in_the_page(scene: Scene) -> None:
    page = scene.signed_in("maria")
    plan = wait_for(lambda: next((row for row in questions(scene, "plan_approval", bool)[:2] if approved(page, row)),
                                 None), 240, "a plan that Maria approves in the page")
    done = outcome(scene, plan["id"], "applied")
    assert (done["resolved_action"], done["resolved_by_user_id"]) == ("approved", "maria")


def test_a_refusal_comes_back_with_its_reason(scene: Scene) -> None:
    """The source refuses a deploy of payments to production, and would approve it after two minutes."""
    def frozen(row: dict[str, Any]) -> bool:
        return bool(row.get("stack") in ("billing", "ledger") and row["cluster"].startswith("prod")
                    and row["ask"].get("action", {}).get("name") == "deploy")

    deploy = decided(scene, "waitpoint", "approve", frozen)
    back = outcome(scene, deploy["id"], "refused")
    assert back["decision"]["reason"].startswith("payments freeze until ")
    assert back["state"] in ("unread", "read")
    assert "refused" in back["rank_reasons"]


def test_decisions_are_applied_after_the_demo_was_killed(scene: Scene) -> None:
    before = identity.read(scene.up.data_dir / "run" / "demo.pid")
    assert before is not None
    action = decided(scene, "pending_action", "reject", lambda row: "batch" not in row["ask"])
    os.kill(before.pid, signal.SIGKILL)
    assert outcome(scene, action["id"], "applied")["resolved_action"] == "declined"
