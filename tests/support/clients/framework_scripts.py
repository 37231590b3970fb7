"""Runs the scripts of tests/data/clients in an environment with the real agent frameworks and without attn."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["VERSIONS", "Script"]

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "tests" / "data" / "clients"
VERSIONS = ("aiohttp==3.14.5", "langgraph==1.2.24", "langchain==1.5.2", "openai-agents==0.24.0",
            "claude-agent-sdk==0.2.189")


class Script:
    """A running script in the environment of the frameworks."""

    def __init__(self, interpreter: Path, name: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [interpreter, SCRIPTS / name, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(
                ROOT / "clients" / "python" / "src"), "LANGSMITH_TRACING": "false", "OPENAI_API_KEY": "none"})

    async def end(self) -> Any:
        """Waits for the end of the script. Returns the JSON that it printed."""
        out, errors = await asyncio.to_thread(self.process.communicate, timeout=120)
        assert self.process.returncode == 0, errors[-4000:]
        return json.loads(out.strip().splitlines()[-1])

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
