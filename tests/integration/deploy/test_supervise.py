"""The supervisor restarts a crashed process, gives up with the reason, stops in bounded time, and ends with its parent
process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ops.process import identity
from ops.process.supervisor import RestartLimitReached, RestartPolicy, SupervisedProcess

FAST = RestartPolicy(initial_delay=0.02, max_delay=0.1, healthy_after=10.0, max_failures=3)


def program(code: str) -> list[str]:
    return [sys.executable, "-c", code]


STEADY = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@asynccontextmanager
async def supervised(tmp_path: Path, code: str, output: list[str] | None = None) -> AsyncIterator[SupervisedProcess]:
    """Supervises `python -c CODE` during the block, which begins once the program has printed "up"."""
    lines: list[str] = [] if output is None else output
    part = SupervisedProcess("part", program(code), {}, tmp_path, lambda _, line: lines.append(line), FAST)
    running = asyncio.create_task(part.run_forever())
    try:
        await until(lambda: "up" in lines)
        yield part
    finally:
        running.cancel()
        await asyncio.wait({running})
        await part.stop(0.0)


async def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    assert await identity.wait_until(holds, seconds)


async def test_a_killed_part_is_started_again(tmp_path: Path) -> None:
    output: list[str] = []
    async with supervised(tmp_path, STEADY, output) as part:
        first = part.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: part.pid not in (None, first) and output.count("up") == 2)


async def test_a_part_that_keeps_failing_reaches_the_restart_limit_with_its_last_output(tmp_path: Path) -> None:
    part = SupervisedProcess("part", program("raise SystemExit('no such port')"), {}, tmp_path, lambda *_: None, FAST)
    with pytest.raises(RestartLimitReached, match=r"part keeps failing \(exit code 1\); last output: no such port"):
        await asyncio.wait_for(part.run_forever(), 120)
    assert await part.stop(1.0)


async def test_stop_sends_sigterm_first_and_then_sigkill(tmp_path: Path) -> None:
    async with supervised(tmp_path, STEADY) as part:
        assert await part.stop(60.0)
    async with supervised(tmp_path, STUBBORN) as part:
        begun = time.monotonic()
        assert not await part.stop(0.3)
        assert time.monotonic() - begun < 30  # the program sleeps for 60 s
        assert part.pid is None
    assert list(tmp_path.glob("*.pid")) == []


async def test_long_and_broken_lines_arrive(tmp_path: Path) -> None:
    output: list[str] = []
    code = """
import sys, time
sys.stdout.buffer.write(b'x' * 3_000_000 + b'\\n\\xff\\nup\\nno newline')
sys.stdout.flush()
time.sleep(60)
"""
    async with supervised(tmp_path, code, output):
        assert "".join(output).count("x") == 3_000_000
        assert output[-2:] == ["\ufffd", "up"]


PARENT = """
import asyncio, sys
from pathlib import Path
from ops.process.supervisor import SupervisedProcess
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
part = SupervisedProcess(
    "part", [sys.executable, "-c", code], {}, Path(sys.argv[1]), lambda _, line: print(part.pid, flush=True))
asyncio.run(part.run_forever())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_a_part_ends_with_its_supervisor(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = identity.identify(int(parent.stdout.readline()))
        assert child is not None
        parent.kill()
    await until(lambda: not identity.is_alive(child))


async def test_a_part_left_over_is_ended_before_the_next_starts(tmp_path: Path) -> None:
    with subprocess.Popen(program(STUBBORN), stdout=subprocess.PIPE) as left:
        assert left.stdout is not None
        left.stdout.readline()
        leftover = identity.identify(left.pid)
        assert leftover is not None
        identity.write(tmp_path / "part.pid", leftover)
        part = SupervisedProcess("part", [], {}, tmp_path, lambda *_: None)
        await part.end_leftover()
        assert left.wait(60) == -signal.SIGKILL
    assert not (tmp_path / "part.pid").exists()
