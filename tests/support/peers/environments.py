"""Installs peers, the systems that tests run attn against, from package registries into a cache.

The cache is `$XDG_CACHE_HOME/attn-peers` (default `~/.cache/attn-peers`), outside of the checkout. A peer is installed
once for each list of versions. Several test processes may need a peer at the same time; a file lock lets one of them
install it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.processes.installation import UV, install

from ops.process.file_lock import exclusive_lock

__all__ = ["go_binary", "npm_environment", "peer_directory", "python_environment"]

INSTALL_SECONDS = 900  # a Go program of Alertmanager's size takes minutes on two busy cores


def peer_directory(name: str, *versions: str) -> Path:
    """Returns the directory of a peer in these versions, created if missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256("\n".join([sys.version.split()[0], *versions]).encode()).hexdigest()[:16]
    directory = cache / "attn-peers" / f"{name}-{key}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def python_environment(name: str, requirements: Sequence[str], python: str | Path = sys.executable) -> Path:
    """Returns the interpreter of a virtual environment with exactly `requirements` and their dependencies.

    Skips the test if the package index cannot be reached; in CI the test fails then.
    """
    directory = peer_directory(name, str(python), *requirements)
    interpreter = directory / "venv" / "bin" / "python"
    with _installing(directory) as needed:
        if needed:
            install(UV, "venv", "--quiet", "--clear", "--no-project", "--python", python, directory / "venv")
            install(UV, "pip", "install", "--quiet", "--python", interpreter, *requirements)
    return interpreter


def npm_environment(name: str, packages: Sequence[str]) -> Path:
    """Returns a directory whose `node_modules` has `packages` (`name@version`). Scripts of packages do not run.

    Skips the test if Node is missing, or npm cannot install the packages; in CI the test fails in the second case.
    """
    npm = _program("npm")
    _program("node")
    directory = peer_directory(name, *packages)
    with _installing(directory) as needed:
        if needed:
            _run([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory), *packages],
                 directory)
    return directory


def go_binary(
    module: str, version: str, package: str = ".", prepare: Callable[[Path], None] | None = None,
    env: Mapping[str, str] = {},
) -> Path:
    """Returns a Go program, built from a copy of `module` in `version` of the module proxy. `prepare` may change the
    copy before the build; `package` is the path of the program in the module.

    Skips the test if Go is missing, or the module cannot be fetched or built; in CI the test fails in the second case.
    """
    go = _program("go")
    directory = peer_directory(module.rsplit("/", 1)[-1], module, version, package)
    binary = directory / "program"
    with _installing(directory) as needed:
        if needed:
            _run([go, "mod", "download", f"{module}@{version}"], directory, env)
            cache = _run([go, "env", "GOMODCACHE"], directory, env).strip()
            source = directory / "source"
            shutil.rmtree(source, ignore_errors=True)
            shutil.copytree(Path(cache) / f"{_escaped(module)}@{version}", source)
            for path in [source, *source.rglob("*")]:
                path.chmod(path.stat().st_mode | 0o200)  # modules of the cache are read-only
            if prepare is not None:
                prepare(source)
            _run([go, "build", "-p", "2", "-o", str(binary), package], source, env)
            shutil.rmtree(source)
    return binary


def _escaped(module: str) -> str:
    """Returns a module path as Go's module cache writes it: `!` and the small letter for each capital one."""
    return "".join(f"!{letter.lower()}" if letter.isupper() else letter for letter in module)


@contextmanager
def _installing(directory: Path) -> Iterator[bool]:
    """Holds the lock of a peer. Yields whether it has to be installed; it counts as installed if the block succeeds."""
    done = directory / ".installed"
    with exclusive_lock(directory / ".lock"):
        needed = not done.exists()
        yield needed
        if needed:
            done.touch()


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs the program {name}")
    return path


def _run(command: Sequence[str], directory: Path, env: Mapping[str, str] = {}) -> str:
    done = subprocess.run(command, cwd=directory, env={**os.environ, **env}, capture_output=True, text=True,
                          timeout=INSTALL_SECONDS)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"{' '.join(command[:3])} failed: {done.stderr[-300:]}")
    assert done.returncode == 0, f"{command}: {done.stdout[-1000:]}{done.stderr[-3000:]}"
    return done.stdout
