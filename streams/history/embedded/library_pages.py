"""Releases pages of the engine's library that only its start has used.

chdb's library has some 600 MB. Loading it maps about 150 MB of its code and constants into the process, most of which
are not used again. The kernel would evict these clean pages when memory is short, but until then they count as memory
of the process. A released page that is used again is mapped from the page cache.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["clean_ranges", "release"]

_MADV_DONTNEED = 4  # Linux: of a private file mapping, clean pages are read from the file again
_LIBRARY = "_chdb"
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+\s*(.*)")


def release(smaps: Path = Path("/proc/self/smaps")) -> int:
    """Releases the pages. Returns the bytes of the address ranges; 0 where the system has no `/proc/self/smaps`."""
    try:
        ranges = list(clean_ranges(smaps.read_text().splitlines()))
    except OSError:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return sum(
        end - start for start, end in ranges
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED) == 0)


def clean_ranges(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of the library's mappings without a page of this process's own. The process cannot write to
    them, so none becomes dirty later: releasing a dirty page would lose its content."""
    found: tuple[int, int] | None = None
    for line in smaps:
        if (head := _HEAD.fullmatch(line)) is not None:
            if found is not None:
                yield found
            start, end, access, name = head.groups()
            ours = access in ("r-xp", "r--p") and Path(name).name.startswith(_LIBRARY)
            found = (int(start, 16), int(end, 16)) if ours else None
        elif line.startswith(("Private_Dirty:", "Shared_Dirty:", "Anonymous:", "Swap:")) and line.split()[1] != "0":
            found = None
    if found is not None:
        yield found
