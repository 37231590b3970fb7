"""Checkpoint files return the rows that were written; incomplete or damaged files are refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.processes.version1_data import version1_state

from ops.cli.data.checkpoints import Checkpoint, CheckpointWriter, config_fields
from ops.errors import UserError
from schemas.topics import VIEWS
from schemas.views import VIEW_VERSION, encode_row, position_key
from streams.core.config import FoldConfig
from streams.rebuild.partition_view import PartitionView


def views() -> list[PartitionView]:
    all_views = []
    for partition in range(3):
        view = PartitionView(partition)
        for key, value, _ in version1_state().topics[VIEWS][partition]:
            view.add(key, value)
        all_views.append(view)
    return [*all_views, PartitionView(3)]  # partition 3 was never folded


async def iterate(stored_views: list[PartitionView]) -> AsyncIterator[tuple[int, PartitionView]]:
    for partition, view in enumerate(stored_views):
        yield partition, view


async def write(path: Path, stored_views: list[PartitionView], rules: FoldConfig = FoldConfig()) -> int:  # noqa: B008 - frozen
    return await CheckpointWriter(path, len(stored_views), rules).write(iterate(stored_views))


async def test_rows_read_equal_rows_written(tmp_path: Path) -> None:
    path, stored_views = tmp_path / "views.gz", views()
    assert await write(path, stored_views) == sum(len(view.rows) for view in stored_views)
    assert [file.name for file in tmp_path.iterdir()] == ["views.gz"]
    read = Checkpoint(path)
    head = read.head
    assert (head.v, head.view, head.partitions, head.rules) == (1, VIEW_VERSION, 4, config_fields(FoldConfig()))
    bases = dict(read.bases({0, 1, 2, 3}))
    assert set(bases) == {0, 1, 2}
    for partition, base in bases.items():
        view = stored_views[partition]
        assert base.position == view.position
        assert base.rows == view.rows | {position_key(partition): encode_row(view.position)}
    assert set(dict(Checkpoint(path).bases({1}))) == {1}
    assert path.stat().st_size < sum(len(value) for view in stored_views for value in view.rows.values()) / 3


async def test_a_changed_or_truncated_checkpoint_is_rejected(tmp_path: Path) -> None:
    path, other = tmp_path / "views.gz", tmp_path / "other.gz"
    await write(path, views())
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    whole = path.read_bytes()
    bad = [
        b"", b"text", whole[:-30], whole[:100], whole[:400] + b"xxxx" + whole[404:], gzip.compress(b""),
        *(gzip.compress(b"".join(change)) for change in (
            lines[:-1], lines[:-2], lines[1:], [lines[0], *lines[2:]], [*lines[:5], lines[6], lines[5], *lines[7:]],
            [line.replace(b'"unread"', b'"read"') for line in lines], [*lines, lines[-1]],
        )),
    ]
    for raw in bad:
        other.write_bytes(raw)
        with pytest.raises(UserError, match=r"other\.gz"):
            Checkpoint(other)
    with pytest.raises(UserError, match="No such file"):
        Checkpoint(tmp_path / "none.gz")


@pytest.mark.parametrize(("field", "message"), [("v", "a checkpoint has version 9"), ("view", "a view has version 9")])
async def test_a_checkpoint_of_a_newer_version_is_rejected(tmp_path: Path, field: str, message: str) -> None:
    path = tmp_path / "views.gz"
    await write(path, views())
    first, *rest = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(json.dumps(json.loads(first) | {field: 9}).encode() + b"\n" + b"".join(rest)))
    with pytest.raises(UserError, match=f"{message}.* upgrade this process"):
        Checkpoint(path)


async def test_a_view_with_an_invalid_row_writes_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "views.gz"
    path.write_bytes(b"the one of before")
    for wrong in (b"{}", b'{"out of turn":true}', b"\n", b"no JSON"):
        stored_views = views()
        stored_views[1].rows[b"i:x"] = wrong
        with pytest.raises(UserError, match="partition 1: the value of key b'i:x' is not a row"):
            await write(path, stored_views)
    assert path.read_bytes() == b"the one of before"
    assert [file.name for file in tmp_path.iterdir()] == ["views.gz"]
    with pytest.raises(UserError, match="cannot write"):
        await write(tmp_path / "none" / "views.gz", views())
