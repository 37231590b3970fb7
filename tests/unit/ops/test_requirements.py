"""The files in `requirements/`: what `make`, CI and the image install."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
BUILD = PROJECT["dependency-groups"]["build"]
DECLARED = {
    "run": PROJECT["project"]["dependencies"],
    "build": BUILD,
    "dev": [*PROJECT["project"]["dependencies"], *(one for extra in EXTRAS.values() for one in extra), *BUILD],
}
PYTHONS = ("3.11", "3.12", "3.13")


def pins(name: str) -> list[tuple[Requirement, list[str]]]:
    """Returns package -> the pinned requirement with its hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    blocks = re.findall(r"^([\w.-]+==[^\n]*?) \\\n((?:    --hash=\S+(?: \\)?\n)+)", text, re.MULTILINE)
    return [(Requirement(pin), re.findall(r"--hash=(\S+)", hashes)) for pin, hashes in blocks]


def versions(name: str, python: str) -> dict[str, str]:
    """Returns package -> the version that is pinned for Linux and this Python."""
    environment = {
        "python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux", "os_name": "posix",
        "platform_system": "Linux", "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }
    applicable = [pin for pin, _ in pins(name) if pin.marker is None or pin.marker.evaluate(environment)]
    names = [canonicalize_name(pin.name) for pin in applicable]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return {name: str(pin.specifier).removeprefix("==") for name, pin in zip(names, applicable, strict=True)}


@pytest.mark.parametrize("name", DECLARED)
def test_every_pin_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert len(pins(name)) == len(re.findall(r"^[^#\s]", text, re.MULTILINE)), "a line is not a pin with hashes"
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for _, hashes in pins(name) for digest in hashes)
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", DECLARED)
def test_every_declared_requirement_is_pinned_within_its_range(name: str, python: str) -> None:
    pinned_versions = versions(name, python)
    for requirement in map(Requirement, DECLARED[name]):
        pinned = pinned_versions.get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{requirement} is not in requirements/{name}.txt: run `make lock`"
        assert requirement.specifier.contains(pinned), f"{requirement} excludes the pinned {pinned}: run `make lock`"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", ["run", "build"])
def test_the_image_has_the_versions_that_the_tests_have(name: str, python: str) -> None:
    assert versions(name, python).items() <= versions("dev", python).items()


def test_the_python_versions_are_those_of_the_project() -> None:
    wanted = Requirement(f"attn{PROJECT['project']['requires-python']}").specifier
    assert [f"3.{minor}" for minor in range(30) if wanted.contains(f"3.{minor}")] == list(PYTHONS)
    fits = re.search(r"not \((.*?)\) <= sys.version_info < \((.*?)\)", (ROOT / "Makefile").read_text())
    assert fits is not None
    assert fits.groups() == (PYTHONS[0].replace(".", ", "), f"3, {int(PYTHONS[-1][2:]) + 1}")
