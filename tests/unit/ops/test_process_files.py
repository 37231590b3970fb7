"""Locks on files, and files that are replaced atomically."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ops.errors import UserError
from ops.process.file_lock import exclusive_lock
from streams.runtime.private_files import replace_atomically


def test_a_second_holder_of_a_lock_gets_the_error(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "lock", "busy"), pytest.raises(UserError, match="busy"):
        exclusive_lock(tmp_path / "lock", "busy").__enter__()
    with exclusive_lock(tmp_path / "lock", "busy"):
        pass


def test_a_lock_without_a_message_waits_until_it_is_free(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with exclusive_lock(tmp_path / "lock"):
            order.append("second")

    with exclusive_lock(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_failed_replacement_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replace_atomically(path) as draft:
        draft.write_text(f"half {1 // 0}")
    assert path.read_text() == "old"
    with replace_atomically(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
