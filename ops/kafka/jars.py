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
JAVA = 17  # what a broker of Kafka 4 needs
_PATIENCE = 900.0  # seconds; some 45 MB, perhaps over a slow line


def java() -> str:
    """The `java` that runs Kafka. UserError: there is none, or it is too old."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise UserError(f"Apache Kafka needs Java {JAVA}, and there is no java (Debian: openjdk-17-jre-headless)")
    said = _version_of(found)
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA:
        first = said.splitlines()[0] if said else "no answer to -version"
        raise UserError(f"Apache Kafka needs Java {JAVA} or newer; {found} is: {first}")
    return found


@once
def _version_of(program: str) -> str:
    return subprocess.run([program, "-version"], capture_output=True, text=True, check=False, timeout=60).stderr


def cache() -> Path:
    """Where jars are kept, by what pom.xml says: another version of Kafka is another directory."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "attn" / "kafka"


def directory() -> Path:
    return cache() / hashlib.sha256(POM.read_bytes()).hexdigest()[:16]


def missing() -> str | None:
    """Why Kafka can't run on this machine as it is, or None. Looks only: nothing is fetched."""
    try:
        java()
    except UserError as error:
        return str(error)
    if not directory().is_dir() and shutil.which("mvn") is None:
        return "its jars are not resolved yet, and there is no mvn (Debian: maven)"
    return None


def resolve() -> Path:
    """The directory of the jars; Maven fetches them when it is not there. May run in many processes at once.

    UserError: no Maven, or it can't get them; its own words are in the error.
    """
    found = directory()
    if found.is_dir():
        return found
    found.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(found.with_suffix(".lock")):
        if not found.is_dir():
            _fetch(found)
    return found


def _fetch(into: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise UserError("Apache Kafka's jars are fetched by Maven, and there is no mvn (Debian: maven)")
    log.info("fetching Apache Kafka by Maven, once", into=str(into))
    draft = Path(tempfile.mkdtemp(prefix=f"{into.name}.", dir=into.parent))
    try:
        command = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={draft}"]
        done = subprocess.run(
            command, cwd=draft, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=_PATIENCE,
        )
        if done.returncode or not any(draft.glob("kafka_*.jar")):
            raise UserError("Maven could not fetch Apache Kafka: " + _words(done.stdout + done.stderr))
        draft.chmod(0o755)
        draft.rename(into)
    except subprocess.TimeoutExpired:
        raise UserError(f"Maven has not fetched Apache Kafka within {_PATIENCE:.0f} s") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _words(said: str) -> str:
    errors = [line.removeprefix("[ERROR] ") for line in said.splitlines() if line.startswith("[ERROR] ")]
    return " ".join(errors[:2]) or said.strip()[-500:] or "it said nothing"
