"""Which mappings of the engine's library may be released: those that the process can neither write nor has written."""

from __future__ import annotations

from pathlib import Path

from streams.history.embedded.library_pages import clean_ranges, release

_LIBRARY = "/site-packages/chdb/_chdb.abi3.so"


def mapping(start: int, access: str, name: str, **kilobytes: int) -> list[str]:
    fields = {"Rss": 8, "Shared_Dirty": 0, "Private_Dirty": 0, "Anonymous": 0, "Swap": 0} | kilobytes
    return [f"{start:x}-{start + 0x1000:x} {access} 00000000 fd:01 77   {name}",
            *(f"{field}: {value:>20} kB" for field, value in fields.items()), "VmFlags: rd ex mr mw me"]


def test_code_and_constants_are_released() -> None:
    lines = mapping(0x1000, "r-xp", _LIBRARY) + mapping(0x2000, "r--p", _LIBRARY)
    assert list(clean_ranges(lines)) == [(0x1000, 0x2000), (0x2000, 0x3000)]


def test_nothing_that_was_or_can_be_written_is_released() -> None:
    lines = [
        *mapping(0x1000, "rw-p", _LIBRARY), *mapping(0x2000, "r--p", _LIBRARY, Private_Dirty=4),
        *mapping(0x3000, "r--p", _LIBRARY, Anonymous=4), *mapping(0x4000, "r--p", _LIBRARY, Shared_Dirty=4),
        *mapping(0x5000, "r--p", _LIBRARY, Swap=4), *mapping(0x6000, "r--s", _LIBRARY),
    ]
    assert list(clean_ranges(lines)) == []


def test_other_files_and_memory_are_not_released() -> None:
    lines = mapping(0x1000, "r-xp", "/usr/lib/libc.so.6") + mapping(0x2000, "r--p", "")
    assert list(clean_ranges(lines)) == []


def test_a_system_without_smaps_releases_nothing(tmp_path: Path) -> None:
    assert release(tmp_path / "smaps") == 0
