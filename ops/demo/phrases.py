"""Texts of the demo's events."""

from __future__ import annotations

import random
from typing import Any

CLUSTERS = ["prod-us-east-1", "prod-eu-west-1", "prod-ap-south-1", "staging", "edge-lab"]
STACKS = ["checkout", "billing", "search", "ledger", "web", "sessions"]
AGENTS = [("ag_daniel", "Daniel (release agent)"), ("ag_iris", "Iris (support agent)"), ("ag_otto", "Otto (SRE agent)"),
          ("ag_mina", "Mina (data agent)"), ("ag_planner", "Planner")]
CASES = [
    ("case_101", "Refactor the payment module"), ("case_102", "Move search to the new index"),
    ("case_103", "Customer export for Northwind"), ("case_104", "Cut cold starts of the web tier"),
    ("case_105", "Rotate the signing keys"), ("case_106", "Backfill invoices of Q1"),
    ("case_107", "Retire the old session store"), ("case_108", "Rate limits for partner traffic"),
]
ESCALATIONS = [
    "Two customers on {cluster} report the same double charge", "The on-call hand-over of {stack} is unclear",
    "Otto is not sure whether {stack} may fail over", "A partner asks for data that {stack} does not export",
    "Latency budget of {stack} used up on {cluster}", "Iris can't tell which refund policy applies",
]
FAILURES = [
    ("helm-upgrade", "Error: UPGRADE FAILED: timed out waiting for the condition"),
    ("integration-tests", "AssertionError: expected 200, got 502 (3 of 214 failed)"),
    ("db-migrate", "ERROR: canceling statement due to lock timeout"),
    ("image-pull", "ErrImagePull: toomanyrequests: rate limit exceeded"),
    ("smoke-test", "checkout p99 2.9 s > 1.5 s for 5 minutes"),
    ("terraform-plan", "Error acquiring the state lock: ConditionalCheckFailed"),
]
# Title, text, and the answer that is asked for: a list of choices, a form as (fields, required fields), or None (any
# text).
QUESTIONS: list[tuple[str, str, list[str] | tuple[dict[str, Any], list[str]] | None]] = [
    ("Which currency wins when both are set?", "The order has `currency: EUR`, the customer `USD`.\n\n"
     "- keep the **order's**\n- keep the *customer's*\n- ask support",
     ["The order's", "The customer's", "Ask support"]),
    ("May I drop the column legacy_ref?", "Nothing in this repository reads it. Two dashboards may still use it.",
     ["Drop it", "Keep it"]),
    ("Found two customers named Northwind", "Same VAT number, different billing address. Merge them?",
     ["Merge them", "Keep both"]),
    ("The test needs a production-like key", "I can go on with a sandbox key, but then step 4 is not proven.", None),
    ("Is a breaking change of the API fine?", "`amount` becomes a string. Three callers, all ours.",
     ["Yes, change all callers", "No, add a new field"]),
    ("How far back shall the backfill go?", "2023-01 is 41 M rows (about 3 h), 2024-01 is 12 M.", (
        {
            "from": {"type": "string", "format": "date", "title": "First day", "default": "2024-01-01"},
            "workers": {"type": "integer", "minimum": 1, "maximum": 8, "title": "Parallel workers", "default": 2},
            "notify": {"type": "boolean", "title": "Tell me when it is done", "default": True},
        }, ["from", "workers"])),
]
PLANS = [
    ("Move {stack} on {cluster} to the new node pool", [
        ("Cordon the old pool", "auto"), ("Drain one node", "auto"), ("Check error rate for 10 minutes", "auto"),
        ("Drain the rest", "confirm"), ("Delete the old pool", "confirm")]),
    ("Rotate the credentials of {stack}", [
        ("Create new credentials", "auto"), ("Deploy with both", "confirm"), ("Revoke the old ones", "confirm")]),
    ("Upgrade Postgres of {stack} to 17", [
        ("Take a snapshot", "auto"), ("Upgrade the replica", "auto"), ("Fail over", "confirm"),
        ("Upgrade the old primary", "auto"), ("Analyze", "auto")]),
    ("Split the {stack} queue by tenant", [
        ("Create 8 queues", "auto"), ("Dual-write for an hour", "auto"), ("Switch readers", "confirm")]),
]
# Title, tool, arguments, risk, whether it can be undone.
ACTIONS: list[tuple[str, str, dict[str, Any], str, bool]] = [
    ("Restart 6 pods of {stack} on {cluster}", "restart_pods", {"pods": 6}, "low", True),
    ("Refund 312.40 EUR to Northwind", "refund",
     {"customer": "Northwind", "amount": 312.40, "currency": "EUR", "reason": "late delivery"}, "medium", False),
    ("Scale {stack} on {cluster} from 4 to 12", "scale", {"replicas": 12, "from": 4}, "medium", True),
    ("Delete volume pvc-{stack}-old on {cluster}", "delete_volume", {"size_gib": 512}, "critical", False),
    ("Block 14 addresses at the edge of {cluster}", "block", {"addresses": 14, "hours": 24}, "high", True),
    ("Send 1,204 customers a correction", "send_mail", {"template": "correction-7", "recipients": 1204}, "high", False),
    ("Purge the CDN cache of {stack}", "purge_cache", {"paths": ["/*"]}, "low", True),
    ("Force-unlock the state of {stack}", "force_unlock", {"lock": "terraform"}, "high", False),
]
CUSTOMERS = ["Northwind", "Contoso", "Fabrikam", "Initech", "Globex"]
DRAFTS = ["{stack}: raise memory limits", "{stack}: autoscaling by queue length", "{stack}: runbook of the fail-over",
          "{stack} on {cluster}: network policy", "{stack}: alert when refunds pile up"]
MESSAGES = [
    ("Nightly reconciliation done", "41,203 of 41,203 entries match. Nothing to do."),
    ("Cost of this week's sessions", "| agent | sessions | cost |\n| --- | --- | --- |\n| Daniel | 61 | 18.20 |\n"
     "| Iris | 140 | 31.75 |\n| Otto | 38 | 9.90 |"),
    ("I learned a new refund rule", "From the case of Northwind: **partial refunds keep the original tax rate**."),
    ("Three alerts were noise", "They fired for a node that was being drained. I propose to silence them for drains."),
    ("Index of search is rebuilt", "12.4 M documents, 38 minutes, p95 of queries from 180 to 95 ms."),
    ("Weekly summary is ready", "Plans approved: 31. Rejected: 4. Longest wait: 6 h 12 min (ledger)."),
]
BLOCKERS = ["waits for a key from the bank", "needs the schema from the data team", "the vendor's sandbox is down",
            "no reviewer for two days", "legal has to confirm retention"]
_CHANGES = ["retries with jitter", "a smaller image", "the new rounding of taxes", "an index on `created_at`",
            "timeouts for the partner's API", "fewer queries per page", "the feature flag removed"]


def version(rng: random.Random) -> str:
    return f"v{rng.randint(3, 9)}.{rng.randint(0, 40)}.{rng.randint(0, 9)}"


def change(rng: random.Random) -> str:
    first, second = rng.sample(_CHANGES, 2)
    return (f"PR #{rng.randint(900, 4000)} brings **{first}** and *{second}*.\n\n"
            f"- tests: {rng.randint(180, 900)} passed\n- canary: {rng.randint(15, 60)} min, no new errors\n"
            f"- roll-back: `attnctl undo`, about {rng.randint(1, 9)} min")


def question(rng: random.Random) -> str:
    return rng.choice([
        "I have done this twice before without trouble, but not at this time of day.",
        "The metrics of the last hour look normal. The runbook says to ask anyway.",
        f"Confidence {rng.randint(61, 93)} %. What speaks against it: the last roll-back was only yesterday.",
        "Nobody answered in the channel for ten minutes, so I ask here.",
    ])


def deploy_payload(rng: random.Random, where: dict[str, Any]) -> dict[str, Any]:
    return {
        "deploy_target": where["cluster"],
        "image": f"registry.example/{where['stack']}@sha256:{rng.randbytes(8).hex()}",
        "canary": {"share": rng.choice([0.05, 0.1, 0.25]), "minutes": rng.randint(15, 60)},
        "registry_token": f"demo-{rng.randbytes(6).hex()}",  # no real token; the page redacts the value
    }
