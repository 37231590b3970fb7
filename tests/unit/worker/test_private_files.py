"""`replace_atomically` replaces a file as a whole, or leaves the old content."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.runtime.private_files import replace_atomically


def test_the_file_has_the_new_content_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    with replace_atomically(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_keeps_the_old_content_if_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def fail(draft: Path) -> None:
        draft.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), replace_atomically(path) as draft:
        fail(draft)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
