"""`attn hooks`: the events of a payload, the field that fails, and the list of webhooks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.processes.cli import attn_here

DATA = Path(__file__).parents[3] / "data" / "connect"


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hooks(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `attn hooks` in this process. Returns its exit code, stdout and stderr."""
    def run(*arguments: object) -> tuple[int, str, str]:
        code = attn_here("hooks", *map(str, arguments))
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def try_(hooks: Run) -> Run:
    return partial(hooks, "try")


def test_a_name_and_a_payload(try_: Run) -> None:
    code, out, err = try_("alertmanager", DATA / "alertmanager" / "truncated.json")
    assert (code, json.loads(out)) == (0, json.loads((DATA / "alertmanager" / "truncated.events.json").read_text()))
    assert "truncatedAlerts" in err


def test_a_mapping_file_and_a_payload(try_: Run) -> None:
    code, out, _ = try_(DATA / "generic" / "jira.toml", DATA / "generic" / "jira.blocked.json")
    assert (code, json.loads(out)[0]["subject"]) == (0, "SHOP-42")


def test_github_needs_the_event(try_: Run) -> None:
    run = DATA / "github" / "workflow_run.failed.json"
    assert try_("github", run)[0] == 2
    code, out, _ = try_("github", run, "--event", "workflow_run")
    assert (code, json.loads(out)[0]["type"]) == (0, "run.failed")
    assert try_("github", run, "--header", "X-GitHub-Event: workflow_run")[1] == out
    code, out, err = try_("github", run, "--event", "push")
    assert (code, json.loads(out), "no event: event 'push'" in err) == (0, [], True)


@pytest.mark.parametrize(("payload", "error"), [
    ("{", "payload: not JSON"), ('{"version": "3"}', "version: must be '4'"),
    ('{"alerts": [{"status": "firing", "labels": {"a": "b"}}]}', "alerts.0.startsAt: is missing"),
    ('{"alerts": [{"status": "firing", "labels": {"a": "b"}, "startsAt": "2026-05-20T08:14:22Z", "fingerprint": ""}]}',
     "alerts.0.fingerprint: must be text of 1 to 128 characters"),
], ids=["json", "version", "time", "fingerprint"])
def test_the_field_that_fails(payload: str, error: str, try_: Run, tmp_path: Path) -> None:
    path = tmp_path / "payload.json"
    path.write_text(payload)
    code, _, err = try_("alertmanager", path)
    assert code == 1
    assert error in err
    assert "Traceback" not in err


def test_an_event_that_attn_would_not_accept(try_: Run, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(
        '[[event]]\ntype = "message.posted"\nsubject = "x"\ntime = "2026-05-20T08:14:22Z"\n'
        '[event.data]\npriority = "high"\n')
    (tmp_path / "p.json").write_text("{}")
    code, _, err = try_(tmp_path / "m.toml", tmp_path / "p.json")
    assert code == 1
    assert "event 0: data.title: Field required" in err


def test_errors_of_files(try_: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[event]]\n")
    assert "bad.toml: event.0.type: is missing" in try_(tmp_path / "bad.toml", tmp_path / "none")[2]
    assert "neither a file nor a webhook" in try_("nonsense", tmp_path / "none")[2]
    assert "cannot read" in try_("alertmanager", tmp_path / "none")[2]


def test_the_list_has_the_hooks_of_the_file(hooks: Run, tmp_path: Path) -> None:
    path = tmp_path / "hooks.toml"
    path.write_text('[[hook]]\nname = "ci"\nmapping = "github"\nworkspace = "ws_01"\nsecrets = ["hunter2-hunter2"]\n')
    code, out, err = hooks("list", "--hooks", path)
    assert code == 0, err
    assert "/hooks/ci  github  ws_01  /github  signature in x-hub-signature-256, or a key" in out
    assert "/hooks/alertmanager  alertmanager  the workspace of the key  /alertmanager  a key" in out
    assert "hunter2" not in out + err
