"""Restart policy of supervised processes, one `attn up` per directory, and the banner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ops.cli.commands.up import banner
from ops.embedded.stack import Stack, lock_data_dir
from ops.errors import UserError
from ops.process.supervisor import RestartPolicy, RestartTracker
from schemas.settings import Settings

POLICY = RestartPolicy(initial_delay=0.25, max_delay=5.0, healthy_after=10.0, max_failures=5)


def test_restart_delays_grow_until_the_supervisor_gives_up() -> None:
    record = RestartTracker(POLICY)
    assert [record.record_exit(lived=0.1, killed=False) for _ in range(5)] == [0.25, 0.5, 1.0, 2.0, None]


def test_an_optional_process_is_restarted_after_a_long_pause() -> None:
    record = RestartTracker(replace(POLICY, cooldown=60.0))
    assert [record.record_exit(lived=0.1, killed=False) for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 60.0, 60.0, 60.0]
    assert record.record_exit(lived=10.0, killed=False) == 0.25


def test_a_long_life_resets_the_restart_delay() -> None:
    record = RestartTracker(POLICY)
    for _ in range(4):
        record.record_exit(lived=0.1, killed=False)
    assert record.record_exit(lived=10.0, killed=False) == 0.25
    assert record.record_exit(lived=0.1, killed=False) == 0.5


def test_a_killed_process_is_always_restarted_with_growing_delays() -> None:
    record = RestartTracker(POLICY)
    waits = [record.record_exit(lived=0.1, killed=True) for _ in range(200)]
    assert waits[:6] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0]
    assert set(waits[6:]) == {5.0}
    assert record.record_exit(lived=0.1, killed=False) == 5.0


def test_a_healthy_process_that_was_killed_is_started_again_at_once() -> None:
    record = RestartTracker(POLICY)
    assert record.record_exit(lived=10.0, killed=True) == 0.0
    assert [record.record_exit(lived=0.1, killed=True) for _ in range(3)] == [0.25, 0.5, 1.0]
    assert record.record_exit(lived=10.0, killed=True) == 0.0


def test_a_data_directory_has_one_attn_up(tmp_path: Path) -> None:
    with lock_data_dir(tmp_path / "data"), pytest.raises(UserError, match="another `attn up` uses"):
        lock_data_dir(tmp_path / "data").__enter__()
    with lock_data_dir(tmp_path / "data"):
        pass


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot use"), lock_data_dir(tmp_path / "file" / "data"):
        pass


@pytest.mark.parametrize(("host", "url"), [
    ("127.0.0.1", "http://127.0.0.1:80"), ("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"),
    ("box.lan", "http://box.lan:80"),
])
def test_the_shown_url_can_be_opened(host: str, url: str) -> None:
    stack = Stack(Settings(host=host, port=80), True, {}, lambda *_: None, lambda *_: None)
    assert stack.url == url


def test_the_banner_shows_the_directory_and_no_secret() -> None:
    text = banner(Settings(data_dir=Path("my data"), kafka="127.0.0.1:1", jwt_secret="s" * 40), "http://h:1")
    assert "s" * 40 not in text
    assert text.count("--data-dir 'my data'") == 3
    assert "http://h:1/org/me/inbox" in text
    assert "--data-dir" not in banner(Settings(), "http://h:1")
