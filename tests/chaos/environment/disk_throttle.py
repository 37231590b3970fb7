"""Slows the disk for some processes with the kernel's I/O controller (cgroup v1 `blkio` or v2 `io`), if it is
writable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Throttle"]

_ROOT = Path("/sys/fs/cgroup")


class Throttle:
    """Limits writes to the disk under `directory`. `missing`: the reason why it cannot, or None.

    Writes to the page cache are not slowed, only those to the disk. The brokers of this harness flush often.
    """

    def __init__(self, directory: Path) -> None:
        device = os.stat(directory).st_dev
        self._device = f"{os.major(device)}:{os.minor(device)}"
        self._v1 = (_ROOT / "blkio").is_dir()
        self._group = (_ROOT / "blkio" if self._v1 else _ROOT) / f"attn-chaos-{os.getpid()}"
        self.missing = self._try()

    def _try(self) -> str | None:
        try:
            self._group.mkdir()
            self._limit(1 << 30)
            self._limit(0)
        except OSError as error:
            self.close()
            return f"cgroups are not writable here ({error.strerror or error}), or do not have the disk {self._device}"
        return None

    def _limit(self, rate: int) -> None:
        """Sets the limit in bytes per second; 0: no limit."""
        if self._v1:
            (self._group / "blkio.throttle.write_bps_device").write_text(f"{self._device} {rate}")
        else:
            (self._group / "io.max").write_text(f"{self._device} wbps={rate or 'max'}")

    @contextmanager
    def slow(self, pid: int, rate: int) -> Iterator[None]:
        """Limits writes of the process, with all its threads, to `rate` bytes per second within the block."""
        self._limit(rate)
        (self._group / "cgroup.procs").write_text(str(pid))
        try:
            yield
        finally:
            self._limit(0)
            with suppress(OSError):  # the process has ended
                (self._group.parent / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        with suppress(OSError):
            self._group.rmdir()
