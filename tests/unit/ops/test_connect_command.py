"""`attn connect` rejects invalid arguments before it starts, and shows no secret in its errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.processes.cli import attn_here

from streams.runtime.source_keys import ENTROPY_BYTES, new_key

KEY = new_key(b"k" * ENTROPY_BYTES).text
URL = ("--url", "http://127.0.0.1:9093")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ATTN_KEY", "ATTN_KEY_FILE", "ATTN_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Returns the error of a command that must end with 1 or 2."""
    assert attn_here("connect", "alertmanager", *arguments) in (1, 2)
    return capsys.readouterr().err


def test_there_is_no_option_with_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--key" in error_of(capsys, *URL, "--key", KEY)
    assert KEY not in error_of(capsys, *URL)


@pytest.mark.parametrize("text", ["", "attn_x", KEY[:-1], KEY[:-1] + ("0" if KEY[-1] != "0" else "1"), KEY + KEY])
def test_an_invalid_key_is_refused_without_being_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str,
) -> None:
    monkeypatch.setenv("ATTN_KEY", text)
    shown = error_of(capsys, *URL)
    assert "key" in shown
    assert not text or text not in shown
    file = tmp_path / "key"
    file.write_text(text + "\n")
    monkeypatch.delenv("ATTN_KEY")
    shown = error_of(capsys, *URL, "--key-file", str(file))
    assert "key" in shown
    assert not text or text not in shown


def test_a_key_file_that_is_missing_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert str(tmp_path / "none") in error_of(capsys, *URL, "--key-file", str(tmp_path / "none"))


@pytest.mark.parametrize("url", [
    "127.0.0.1:9093", "ftp://h", "http://", "http://user:hunter2@h:9093", "http://h/?a=b", "http://h/#x", ""])
def test_an_invalid_address_or_one_with_a_password_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str,
) -> None:
    monkeypatch.setenv("ATTN_KEY", KEY)
    shown = error_of(capsys, "--url", url)
    assert shown.startswith("attn: --url: ")
    assert "hunter2" not in shown


@pytest.mark.parametrize(("text", "named"), [
    ('per = "group"', "per"), ("ask = false", "ask"), ("colour = 1", "colour"), ("per = ", "options"),
    ('priorities = {critical = "huge"}', "priorities"), ("\udcff", "options"),
], ids=["group", "no-ask", "unknown", "no-toml", "value", "no-utf8"])
def test_options_that_do_not_fit_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, named: str,
) -> None:
    monkeypatch.setenv("ATTN_KEY", KEY)
    file = tmp_path / "options.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert named in error_of(capsys, *URL, "--options", str(file))


@pytest.mark.parametrize("option", ["--grace", "--longest-silence"])
@pytest.mark.parametrize("text", ["5", "soon", "-5m", "1.5h"])
def test_a_duration_has_a_unit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, text: str,
) -> None:
    monkeypatch.setenv("ATTN_KEY", KEY)
    assert option in error_of(capsys, *URL, f"{option}={text}")


@pytest.mark.parametrize("text", [b"", b"Bearer a\nBearer b", b"Bearer \x00", b"\xff"])
def test_an_authorization_has_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: bytes,
) -> None:
    monkeypatch.setenv("ATTN_KEY", KEY)
    file = tmp_path / "authorization"
    file.write_bytes(text)
    shown = error_of(capsys, *URL, "--authorization-file", str(file))
    assert "--authorization-file" in shown
    assert "Bearer a" not in shown
