"""`attn connect github`: wrong options end with code 2 and one line that names the option and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.peers.github_connector import PRIVATE
from support.processes.cli import attn_here

from streams.runtime.source_keys import ENTROPY_BYTES, new_key

REPOSITORY = ("--repository", "acme/shop")


@pytest.mark.parametrize(("arguments", "token", "error"), [
    (REPOSITORY, "", "no credentials of GitHub: set GITHUB_TOKEN"),
    (("--repository", "acme"), "t", "--repository: 'acme' is not OWNER/NAME"),
    (("--repository", "../shop"), "t", "--repository: '../shop' is not OWNER/NAME"),
    ((*REPOSITORY, "--url", "http://github.example.com"), "t", "must be https: the token is sent to it"),
    ((*REPOSITORY, "--url", "https://a:b@github.com"), "t", "must have no user"),
    ((*REPOSITORY, "--app", "Iv1.a"), "t", "--app and --app-key-file belong together"),
    ((*REPOSITORY, "--app", "Iv1.a", "--app-key-file", "{home}/no.pem"), "t", "has no private key of a GitHub App"),
    ((*REPOSITORY, "--app", "Iv1.a", "--app-key-file", "{home}/bad.toml"), "t", "has no private key of a GitHub App"),
    ((*REPOSITORY, "--options", "{home}/bad.toml"), "t", "ask_run: Extra inputs are not permitted"),
    ((*REPOSITORY, "--lookback", "1 day"), "t", "--lookback: '1 day' is not a duration such as 30s"),
    ((*REPOSITORY, "--grace", "x"), "t", "--grace: 'x' is not a duration"),
])
def test_wrong_options_are_named(
    arguments: tuple[str, ...], token: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.toml").write_text("ask_run = true\n")
    (tmp_path / "app.pem").write_text(PRIVATE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTN_KEY", new_key(b"k" * ENTROPY_BYTES).text)
    monkeypatch.setenv("GITHUB_TOKEN", token)
    named = [argument.format(home=tmp_path) for argument in arguments]
    assert attn_here("connect", "github", *named, "--data-dir", str(tmp_path)) == 2
    out, err = capfd.readouterr()
    assert error in " ".join(err.split()), err
    assert "Traceback" not in err + out
