"""The kinds of threads of the demo: how each begins, how it may end, and how long users take."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ops.demo import asks, effects, phrases
from ops.demo.story import Emit, Thread

__all__ = ["KINDS", "PEOPLE"]

MINUTE, HOUR = 60.0, 3600.0

# (user, role, name). A visitor of the demo signs in as the first.
PEOPLE = [
    ("maria", "OWNER", "Maria Okafor"), ("jonas", "ADMIN", "Jonas Lindt"), ("li", "MANAGER", "Li Wen"),
    ("sam", "MEMBER", "Sam Duarte"), ("noor", "MEMBER", "Noor Haddad"),
]
_USERS = [user for user, _, _ in PEOPLE]


def taken(rng: random.Random, median: float) -> float:
    """Returns the seconds until a user acts: log-normal with a long tail. Its median is 1.65 times `median`."""
    return rng.lognormvariate(0.5, 1.2) * median


def _where(rng: random.Random) -> dict[str, Any]:
    return {"cluster": rng.choices(phrases.CLUSTERS, [5, 4, 3, 2, 1])[0], "stack": rng.choice(phrases.STACKS)}


def _agent(rng: random.Random) -> dict[str, Any]:
    number, name = rng.choice(phrases.AGENTS)
    return {"sender": {"type": "agent", "id": number, "name": name}}


def _case(rng: random.Random) -> dict[str, Any]:
    number, title = rng.choice(phrases.CASES)
    return {"case_id": number, "case_title": title}


def _by(rng: random.Random) -> dict[str, Any]:
    """Returns the deciding user: never the first one, whose decisions are the visitor's own."""
    return {"by_user_id": rng.choice(_USERS[1:])}


def deploy(rng: random.Random, name: str) -> Thread:
    where, wp = _where(rng), f"wp_{name}"
    yield _deploy_question(rng, wp, where)
    yield min(taken(rng, 25 * MINUTE), 6 * HOUR)
    yield _deploy_end(rng, wp)


def payments_deploy(rng: random.Random, name: str) -> Thread:
    """A deploy that its application refuses at first (`ops.demo.effects.is_frozen`). It waits long for a visitor."""
    wp = f"wp_{name}"
    yield _deploy_question(rng, wp, {
        "cluster": rng.choice(phrases.CLUSTERS[:3]), "stack": rng.choice(effects.PAYMENTS)}, target=None)
    yield 3 * HOUR + taken(rng, HOUR)
    yield _deploy_end(rng, wp)


def _deploy_question(rng: random.Random, wp: str, where: dict[str, Any], **more: Any) -> Emit:
    payload = phrases.deploy_payload(rng, where)
    target = more.get("target", rng.choice([None, None, "OWNER", "ADMIN"]))
    return Emit("waitpoint.created", wp, {
        "title": f"Approve {where['stack']} {phrases.version(rng)} to {where['cluster']}",
        "body_md": phrases.change(rng), "priority": rng.choice(["normal", "high", "high", "urgent"]),
        "target_role": target, "payload": payload, "expires_in": 6 * HOUR,
        "ask": asks.approval(payload["image"], where, payload["canary"], 6 * HOUR),
        **where, **_agent(rng), **_case(rng)})


def _deploy_end(rng: random.Random, wp: str) -> Emit:
    kinds = ["waitpoint.approved", "waitpoint.rejected", "waitpoint.cancelled", "waitpoint.expired"]
    return Emit(rng.choices(kinds, [75, 12, 8, 5])[0], wp, _by(rng))


def access(rng: random.Random, name: str) -> Thread:
    """Two people must approve; the one who asks may not."""
    where, wp = _where(rng), f"wp_{name}"
    user, _, full_name = rng.choice(PEOPLE[3:])
    yield Emit("waitpoint.created", wp, {
        "title": f"Give {full_name} write access to {where['stack']}-prod for an hour",
        "body_md": phrases.question(rng) + "\n\nTwo people have to approve it.", "priority": "high",
        "sender": {"type": "user", "id": user, "name": full_name}, "by_user_id": user,
        "ask": asks.guarded_access(user, where["stack"], user), **where})
    yield 2 * HOUR + taken(rng, HOUR)
    yield Emit(rng.choice(["waitpoint.rejected", "waitpoint.cancelled"]), wp, {"by_user_id": _USERS[1]})


def canary(rng: random.Random, name: str) -> Thread:
    """If nobody decides, the safe option is taken when the ask expires."""
    where, key = _where(rng), f"act_{name}"
    ask = asks.safe_hold(rng, where)
    yield Emit("action.requested", key, {
        "title": f"Promote the canary of {ask['action']['args']['release']}?", "risk": "medium", "reversible": True,
        "priority": "high", "body_md": phrases.change(rng), "ask": ask, **where, **_agent(rng)})


def refunds(rng: random.Random, name: str) -> Thread:
    """Two actions that an agent asked for at once; their answers go out together."""
    where, about = _where(rng), {**_agent(rng), **_case(rng)}
    keys = [f"act_{name}_{part}" for part in "ab"]
    for key, customer in zip(keys, rng.sample(phrases.CUSTOMERS, 2), strict=True):
        amount = round(rng.uniform(40, 900), 2)
        yield Emit("action.requested", key, {
            "title": f"Refund {amount:.2f} EUR to {customer}", "risk": "medium", "reversible": False,
            "priority": "normal", "body_md": "Both customers were charged twice. " + phrases.question(rng),
            "ask": asks.batch_of_refunds(f"refunds_{name}", amount, customer), **where, **about})
        yield 1.0
    yield HOUR + taken(rng, 40 * MINUTE)
    for key in keys:
        yield Emit("action.confirmed", key, _by(rng))


def escalation(rng: random.Random, name: str) -> Thread:
    where, key = _where(rng), f"esc_{name}"
    yield Emit("escalation.opened", key, {
        "title": rng.choice(phrases.ESCALATIONS).format(**where), "body_md": phrases.question(rng),
        "priority": rng.choice(["normal", "high"]), "ask": asks.handover(), **where, **_agent(rng), **_case(rng)})
    if rng.random() < 0.4:
        yield taken(rng, 20 * MINUTE)
        yield Emit("escalation.updated", key, {"priority": "urgent"})
    yield taken(rng, 40 * MINUTE)
    yield Emit("escalation.resolved", key, {"action": rng.choice(["answered", "took_over", "waived"]), **_by(rng)})


def failed_run(rng: random.Random, name: str) -> Thread:
    where = _where(rng)
    priority = rng.choice(["low", "normal", "high"])
    yield from _runs(rng, name, [where["cluster"]], where["stack"], {"priority": priority}, asking=True)


def incident(rng: random.Random, name: str) -> Thread:
    """The same step fails on several clusters."""
    clusters = rng.sample(phrases.CLUSTERS, rng.randint(2, 4))
    yield from _runs(rng, name, clusters, rng.choice(phrases.STACKS), {"priority": rng.choice(["high", "urgent"])})


def _runs(
    rng: random.Random, name: str, clusters: list[str], stack: str, more: dict[str, Any], asking: bool = False,
) -> Thread:
    step, error = rng.choice(phrases.FAILURES)
    if asking:
        more = {**more, "ask": asks.failed_run_retry(step)}
    for cluster in clusters:
        yield Emit("run.failed", f"run_{name}_{cluster}", {
            "title": f"{stack}: {step} failed", "pipeline": f"deploy-{stack}-{name}", "step": step, "error": error,
            "body_md": f"Step `{step}` of `deploy-{stack}` ended with:\n\n```\n{error}\n```", "cluster": cluster,
            "stack": stack, **more})
        yield rng.uniform(5, 60)
    for cluster in clusters:
        yield taken(rng, 30 * MINUTE / len(clusters))
        yield Emit(rng.choices(["run.retried", "run.recovered", "run.cancelled"], [5, 4, 1])[0],
                  f"run_{name}_{cluster}", _by(rng))


def session(rng: random.Random, name: str) -> Thread:
    case, key = _case(rng), f"ses_{name}"
    about = {**case, **_agent(rng), "session_id": key, "conversation_id": f"conv_{name}", **_where(rng)}
    yield Emit("session.started", key, {"title": case["case_title"], **about})
    asked = False
    while not asked or rng.random() < 0.3:  # at least one question: it opens the item of the session
        asked = True
        yield taken(rng, 12 * MINUTE)
        title, body, answers = rng.choice(phrases.QUESTIONS)
        yield Emit("session.waiting", key, {
            "title": title, "body_md": body, "priority": rng.choice(["normal", "high"]), "ask": _question(answers),
            "target_user_id": rng.choice([None, None, None, "maria"]), **about})
        yield taken(rng, 18 * MINUTE)
        yield Emit("session.resumed", key, _by(rng))
    yield taken(rng, 15 * MINUTE)
    if rng.random() < 0.3:
        yield Emit("session.verifying", key, {"title": f"No proof yet: {case['case_title']}", **about})
        yield taken(rng, 30 * MINUTE)
        yield Emit("proof.attached", f"proof_{name}", {
            "title": f"Proof of: {case['case_title']}", "session_id": key, **case,
            "expires_in": rng.uniform(20, 60) * HOUR})
    yield Emit(rng.choices(["session.completed", "session.failed"], [9, 1])[0], key, about)


def _question(answers: list[str] | tuple[dict[str, Any], list[str]] | None) -> dict[str, Any]:
    """Returns the ask of a session: choices, a form, or the default of its kind, a text."""
    if answers is None:
        return {}
    return asks.choice(answers) if isinstance(answers, list) else asks.form(*answers)


def plan(rng: random.Random, name: str) -> Thread:
    where, key = _where(rng), f"plan_{name}"
    title, steps = rng.choice(phrases.PLANS)
    yield Emit("plan.proposed", key, {
        "title": title.format(**where), "body_md": phrases.change(rng),
        "priority": rng.choice(["normal", "normal", "high"]), "ask": {},
        "steps": [{"title": step, "mode": mode} for step, mode in steps], **where, **_agent(rng), **_case(rng)})
    yield taken(rng, 35 * MINUTE)
    yield Emit(rng.choices(["plan.approved", "plan.rejected", "plan.superseded"], [80, 12, 8])[0], key, _by(rng))


def action(rng: random.Random, name: str) -> Thread:
    where, key = _where(rng), f"act_{name}"
    title, tool, args, risk, reversible = rng.choice(phrases.ACTIONS)
    yield Emit("action.requested", key, {
        "title": title.format(**where), "risk": risk, "reversible": reversible,
        "priority": {"low": "low", "medium": "normal", "high": "high", "critical": "urgent"}[risk],
        "body_md": phrases.question(rng), "expires_in": 4 * HOUR,
        "ask": asks.confirmation({**args, **where}, tool, risk, reversible, 4 * HOUR), **where, **_agent(rng)})
    yield min(taken(rng, 15 * MINUTE), 4 * HOUR)
    yield Emit(rng.choices(["action.confirmed", "action.declined", "action.expired"], [80, 15, 5])[0], key, _by(rng))


def draft(rng: random.Random, name: str) -> Thread:
    where, key, owner = _where(rng), f"draft_{name}", rng.choice(_USERS)
    about = {"title": rng.choice(phrases.DRAFTS).format(**where), "owner_user_id": owner, **where}
    person = {"type": "user", "id": owner, "name": next(name for user, _, name in PEOPLE if user == owner)}
    number, agent = rng.choice(phrases.AGENTS)
    yield Emit("draft.edited", key, {"editor": person, **about})
    yield taken(rng, 10 * MINUTE)
    yield Emit("draft.edited", key, {"editor": {"type": "ai", "id": number, "name": agent}, "ask": {}, **about})
    yield taken(rng, 50 * MINUTE)
    yield Emit(rng.choices(["draft.committed", "draft.discarded"], [85, 15])[0], key, _by(rng))


def message(rng: random.Random, name: str) -> Thread:
    title, body = rng.choice(phrases.MESSAGES)
    yield Emit("message.posted", f"msg_{name}", {
        "title": title, "body_md": body, "priority": rng.choice(["low", "low", "normal"]), **_agent(rng), **_where(rng),
        "target_user_id": rng.choice([None, None, "maria", "sam"])})
    if rng.random() < 0.6:  # the users resolve the other messages by hand
        yield taken(rng, 2 * HOUR)
        yield Emit("message.withdrawn", f"msg_{name}", {})


def blocked(rng: random.Random, name: str) -> Thread:
    number, title = rng.choice(phrases.CASES)
    about = {"case_id": number, "case_title": title, "title": f"{title}: {rng.choice(phrases.BLOCKERS)}"}
    if rng.random() < 0.5:
        yield Emit("case.state_changed", number, {"state": "BLOCKED", "priority": "high", "ask": {}, **about})
        yield taken(rng, 45 * MINUTE)
        yield Emit("case.state_changed", number, {"state": "IN_PROGRESS", **about, **_by(rng)})
    else:
        yield Emit("task.blocked", f"task_{name}", {
            "task_id": f"task_{name}", "priority": "normal", "ask": {}, **about})
        yield taken(rng, 90 * MINUTE)
        yield Emit("task.unblocked", f"task_{name}", {"task_id": f"task_{name}", **about, **_by(rng)})


# Threads per day of each kind.
KINDS: dict[Callable[[random.Random, str], Thread], float] = {
    deploy: 40, escalation: 18, failed_run: 34, incident: 7, session: 55, plan: 28, action: 32, draft: 22, message: 26,
    blocked: 16, access: 10, payments_deploy: 20, canary: 14, refunds: 8,
}
