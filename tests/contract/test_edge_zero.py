"""Zero's routes: the seeds' rules by their numbers."""

from __future__ import annotations

from support.edges import Fed
from support.rows import item

from schemas.log import Data


async def test_z2_to_z7_inbox_under_zeros_names() -> None:
    fed = Fed()
    fed.put(
        item(source_id="ses_1", kind="session_waiting", priority="urgent", blocking=True,
             data=Data(title="paused", body_md="needs you", case_id="case_1", case_title="Fix")),
        item(source_id="t", kind="blocked_task", priority="low", state="read", data=Data(title="waits")),
        item(source_id="other", target_user_id="bob"),
    )
    async with fed.client() as client:
        body = (await client.get("/inbox")).json()
        for one in body["items"]:
            del one["id"]
        assert body == {"count": 2, "items": [
            {"kind": "ask_user", "urgency": "high", "case_id": "case_1", "case_title": "Fix", "title": "paused",
             "description": "needs you", "session_id": "ses_1", "action_url": "/cases/case_1/sessions/ses_1"},
            {"kind": "blocked_task", "urgency": "low", "title": "waits"},
        ]}
        assert (await client.get("/inbox?limit=1")).json()["count"] == 2
        assert (await client.get("/inbox/count")).json() == {"count": 1}


async def test_z10_a_case_nobody_let_me_see_is_404() -> None:
    fed = Fed()
    fed.put(item(source_id="a", kind="blocked_task", target_role="OWNER", data=Data(case_id="mine")))
    async with fed.client("bob", "MEMBER") as client:
        unseen = await client.get("/cases/mine/events")
        absent = await client.get("/cases/never/events")
    assert unseen.status_code == absent.status_code == 404
    assert unseen.content == absent.content
