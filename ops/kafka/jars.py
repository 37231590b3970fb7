"""Fetches the jars of Apache Kafka with Maven (`pom.xml`), once per machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache as once
from pathlib import Path

import structlog

from ops.errors import UserError
from ops.process.file_lock import exclusive_lock

__all__ = ["POM", "cache", "directory", "java", "missing", "resolve"]

log = structlog.get_logger("attn.kafka")

POM = Path(__file__).with_name("pom.xml")
JAVA = 17  # the oldest version that runs a broker of Kafka 4
_TIMEOUT = 900.0  # seconds for about 45 MB over a slow line


def java() -> str:
    """Returns the path of the `java` that runs Kafka. Raises UserError if there is none, or if it is too old."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    program = program or shutil.which("java")
    if program is None:
        raise UserError(f"Apache Kafka needs Java {JAVA}, and there is no java (Debian: openjdk-17-jre-headless)")
    output = _version_of(program)
    version = re.search(r'version "(\d+)', output)
    if version is None or int(version[1]) < JAVA:
        first = output.splitlines()[0] if output else "no answer to -version"
        raise UserError(f"Apache Kafka needs Java {JAVA} or newer; {program} is: {first}")
    return program


@once
def _version_of(program: str) -> str:
    return subprocess.run([program, "-version"], capture_output=True, text=True, check=False, timeout=60).stderr


def cache() -> Path:
    """Returns the directory that holds one directory of jars for each version of pom.xml."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "attn" / "kafka"


def directory() -> Path:
    """Returns the directory of the jars of this pom.xml, by its checksum: another version has another directory."""
    return cache() / hashlib.sha256(POM.read_bytes()).hexdigest()[:16]


def missing() -> str | None:
    """Returns the reason why Kafka cannot run on this machine, or None if it can. Downloads nothing."""
    try:
        java()
    except UserError as error:
        return str(error)
    if not directory().is_dir() and shutil.which("mvn") is None:
        return "its jars are not resolved yet, and there is no mvn (Debian: maven)"
    return None


def resolve() -> Path:
    """Returns the directory of the jars; Maven fetches them first if it does not exist.

    A file lock lets many processes call this at once. Raises UserError if there is no Maven, or if Maven fails; the
    error has Maven's own text.
    """
    jars = directory()
    if jars.is_dir():
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(jars.with_suffix(".lock")):
        if not jars.is_dir():
            _fetch(jars)
    return jars


def _fetch(into: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise UserError("Apache Kafka's jars are fetched by Maven, and there is no mvn (Debian: maven)")
    log.info("fetching Apache Kafka by Maven, once", into=str(into))
    draft = Path(tempfile.mkdtemp(prefix=f"{into.name}.", dir=into.parent))
    try:
        command = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={draft}"]
        result = subprocess.run(
            command, cwd=draft, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=_TIMEOUT,
        )
        if result.returncode or not any(draft.glob("kafka_*.jar")):
            raise UserError("Maven could not fetch Apache Kafka: " + _error_text(result.stdout + result.stderr))
        draft.chmod(0o755)
        draft.rename(into)
    except subprocess.TimeoutExpired:
        raise UserError(f"Maven has not fetched Apache Kafka within {_TIMEOUT:.0f} s") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _error_text(output: str) -> str:
    """Returns the first 2 error lines of Maven's output, or its last 500 characters if it has no error line."""
    errors = [line.removeprefix("[ERROR] ") for line in output.splitlines() if line.startswith("[ERROR] ")]
    return " ".join(errors[:2]) or output.strip()[-500:] or "it wrote no output"
