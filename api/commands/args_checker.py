"""Runs the check of edited arguments (`api.contract.asking.args_schema`) in a child process with a deadline.

The process starts with the first check and handles one check at a time. It has no variable of this process, and so no
secret. A check that exceeds the deadline kills it; the next check starts another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import OrderedDict
from typing import Any

import structlog

from api import metrics

__all__ = ["ArgsChecker"]

SECONDS = 5.0  # of one check
_START_SECONDS = 30.0  # until a new process answers its first request, on a busy machine
_MAX_UNUSABLE = 1000  # schemas that are not evaluated again
_MAX_LINE = 1 << 20  # bytes of an answer; the check bounds it to 20 errors
_NOTHING = json.dumps({"schema": "{}", "args": "{}"}).encode() + b"\n"

_log = structlog.get_logger("attn.edge")


class ArgsChecker:
    """Checks arguments one after another. `seconds`: the deadline of one check."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._unusable: OrderedDict[bytes, None] = OrderedDict()

    async def errors(self, schema: bytes, args: bytes) -> dict[str, str]:
        """Returns the reason for each argument that does not fit the schema, by its path; {} if all fit.

        A schema that cannot be evaluated rejects nothing: it is invalid, refers to another document, or takes longer
        than the deadline. The source checks the arguments anyway.
        """
        name = hashlib.sha256(schema).digest()
        if name in self._unusable:
            metrics.ARGS_CHECKS.labels("unusable").inc()
            return {}
        request = json.dumps({"schema": schema.decode(), "args": args.decode()}).encode() + b"\n"
        async with self._turn:
            answer = await self._answer(request)
        errors = answer.get("errors")
        if errors is None:
            _log.info("args_schema of an ask cannot be evaluated", reason=answer.get("unusable"))
            self._unusable[name] = None
            if len(self._unusable) > _MAX_UNUSABLE:
                self._unusable.popitem(last=False)
        metrics.ARGS_CHECKS.labels("unusable" if errors is None else "invalid" if errors else "valid").inc()
        return errors or {}

    async def _answer(self, request: bytes) -> dict[str, Any]:
        """Returns the answer of the process. If the process ends meanwhile, a new one gets the request once more: the
        kernel may have killed the first one for another reason."""
        for last in (False, True):
            try:
                return await _exchange(await self._started(), request, self._seconds)
            except TimeoutError:
                await self.stop()
                return {"unusable": f"takes longer than {self._seconds:g} s"}
            except (OSError, ValueError, EOFError) as error:  # out of memory, or a stack overflow
                await self.stop()
                if last:
                    return {"unusable": f"the check failed: {type(error).__name__}"}
            except asyncio.CancelledError:
                await self.stop()  # its next answer would be that of this request
                raise
        raise AssertionError

    async def _started(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-m", "api.contract.asking.args_schema", stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
                env={"PATH": os.defpath}, limit=_MAX_LINE)
            await _exchange(self._process, _NOTHING, _START_SECONDS)  # imports count for no check
        return self._process

    async def stop(self) -> None:
        """Kills the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _exchange(process: Process, request: bytes, seconds: float) -> dict[str, Any]:
    """Sends a request and returns its answer. Raises TimeoutError, OSError, ValueError or EOFError."""
    assert process.stdin is not None
    assert process.stdout is not None
    async with asyncio.timeout(seconds):
        process.stdin.write(request)
        await process.stdin.drain()
        line = await process.stdout.readline()
    if not line:
        raise EOFError
    answer: dict[str, Any] = json.loads(line)
    return answer
