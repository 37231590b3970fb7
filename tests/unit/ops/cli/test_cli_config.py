"""Configuration of `attn`: flags, variables and files; the secret; tokens; schemas. An invalid value gives one line and
an exit code."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path

import jsonschema
import jwt
import orjson
import pytest
from pydantic import SecretStr
from support.processes.cli import attn_here

from api.contract.json_schema import normalise
from api.edge.services import parse_partitions
from ops import config
from ops.cli.commands.access.token import parse_ttl
from ops.cli.commands.records import schemas as schemas_command
from ops.cli.commands.records.schemas import export
from ops.cli.commands.roles import edge
from ops.cli.data.dead_letters import Summary
from ops.cli.dead_letter_output import show_list, show_summary
from ops.embedded.stack import lock_data_dir
from ops.errors import UserError
from ops.process import identity
from ops.process.identity import ProcessIdentity
from schemas.settings import RENAMED, Settings
from streams.runtime import private_files


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("ATTN_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_flags_over_variables_over_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ATTN_PORT=1001\nATTN_HOST=h1\nATTN_INSTANCE=i1\nOTHER=x\n")
    monkeypatch.setenv("ATTN_PORT", "1002")
    monkeypatch.setenv("ATTN_HOST", "h2")
    settings = config.load_settings(port=1003, host=None)
    assert (settings.port, settings.host, settings.instance) == (1003, "h2", "i1")


def test_an_old_name_of_a_setting_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ATTN_ORIGINS=https://a.example,https://b.example\n")
    monkeypatch.setenv("Attn_Heartbeat", "3")
    settings = config.load_settings()
    assert settings.heartbeat_seconds == 3
    assert settings.websocket_origins == {"https://a.example", "https://b.example"}
    assert settings.deprecated_names == {
        "ATTN_HEARTBEAT": "ATTN_HEARTBEAT_SECONDS", "ATTN_ORIGINS": "ATTN_WEBSOCKET_ORIGINS"}


@pytest.mark.parametrize("name", RENAMED.values())
def test_every_renamed_setting_is_a_setting(name: str) -> None:
    assert name in Settings.model_fields
    assert not RENAMED.keys() & Settings.model_fields.keys()


@pytest.mark.parametrize("new_in_file", [False, True])
def test_the_new_name_of_a_setting_wins(new_in_file: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTN_DRAIN", "7")
    if new_in_file:
        (tmp_path / ".env").write_text("ATTN_DRAIN_SECONDS=5\n")
    else:
        monkeypatch.setenv("ATTN_DRAIN_SECONDS", "5")
    assert config.load_settings().drain_seconds == 5
    assert config.load_settings().deprecated_names == {"ATTN_DRAIN": "ATTN_DRAIN_SECONDS"}


def test_a_wrong_value_under_an_old_name_is_an_error_of_the_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTN_RECONNECT", "soon")
    assert attn_here("edge") == 2
    assert "ATTN_RECONNECT_SECONDS" in capsys.readouterr().err


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ATTN_PORT", "http")
    assert attn_here("up") == 2
    assert capsys.readouterr().err.startswith("attn: ATTN_PORT (--port): Input should be a valid integer")


def test_an_error_names_the_flag_of_a_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTN_LOG_PARTITIONS", "0")
    assert attn_here("topics") == 2
    assert capsys.readouterr().err.startswith("attn: ATTN_LOG_PARTITIONS: Input should be greater")


@pytest.mark.parametrize("hosts", ["127.0.0.1:x", "k1:9092,k2:", "k1:65536", "[::1]:x", ":²"])
def test_kafka_is_hosts_and_ports(hosts: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert attn_here("topics", "--kafka", hosts) == 2
    message = f"attn: ATTN_KAFKA (--kafka): {hosts.split(',')[-1]!r} is not HOST:PORT\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("hosts", ["k1", "k1:9092, k2:9093", "[::1]:9092", "::1", "[::1]"])
def test_kafka_addresses_are_accepted_in_the_form_of_its_client(hosts: str) -> None:
    assert config.load_settings(kafka=hosts).kafka == hosts


@pytest.mark.parametrize("url", ["nonsense", "localhost:8123", "ftp://u:secret@h/attn", "http://h:x", "http://"])
def test_clickhouse_is_a_url(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert attn_here("migrate", "--clickhouse", url) == 2
    err = capsys.readouterr().err
    assert err.startswith("attn: ATTN_CLICKHOUSE (--clickhouse): must be a URL such as https://")
    assert "secret" not in err


@pytest.mark.parametrize("url", [
    "http://h", "http://h:8123/", "https://u:p%40ss@h.example:8443/attn", "http://[::1]:8123/a", "http://u:@h?secure=1"])
def test_urls_that_clickhouse_connect_takes(url: str) -> None:
    assert config.load_settings(clickhouse=url).clickhouse == url


@pytest.mark.parametrize("given", ["x", "9", "3-1", "0-8", "1,"])
def test_invalid_partitions_are_named_in_the_error(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["edge"], ["rebuild", "--check"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ATTN_JWT_SECRET", "s" * 32)
            assert attn_here(*command, "--partitions", given) == 2
        err = capsys.readouterr().err
        assert err == f"attn: partitions {given!r}: must be among 0-7, written as 0-3,7\n"


def test_partitions() -> None:
    assert sorted(parse_partitions("0-2, 7", 8)) == [0, 1, 2, 7]
    assert sorted(parse_partitions("", 2)) == [0, 1]


def test_flags_of_a_rebuild_need_the_flag_rebuild(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--older", "--missing-facts"):
        assert attn_here("history", flag, "keep") == 2
        assert capsys.readouterr().err == "attn: --missing-facts needs --rebuild\n"


def test_help_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert attn_here("emit", "--help") == 0
    output = capsys.readouterr().out
    assert "nothing is sent, and the exit code is 1. With --skip-bad" in output
    assert "[[FILE]]" not in output


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert config.make_secret(settings)
    path = config.secret_path(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) >= 43
    assert not config.make_secret(settings)
    assert config.load_settings(data_dir=tmp_path).jwt_secret == SecretStr(path.read_text().strip())


def test_a_new_data_directory_is_private_and_an_existing_one_is_unchanged(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        existing = tmp_path / "there"
        existing.mkdir(mode=0o755)
        for directory, mode in ((tmp_path / "a" / "data", 0o700), (existing, 0o755)):
            with lock_data_dir(directory):
                assert stat.S_IMODE(directory.stat().st_mode) == mode
        private_files.make_private_dir(tmp_path / "b" / "broker")
        assert stat.S_IMODE((tmp_path / "b" / "broker").stat().st_mode) == 0o700
    finally:
        os.umask(old_mask)


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_an_empty_secret_is_none(blank: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Anyone could sign with an empty secret. `.env.example` has `ATTN_JWT_SECRET=`, to be filled in."""
    for name in ("JWT_SECRET", "JWKS_URL", "JWT_AUDIENCE", "JWT_ISSUER"):
        monkeypatch.setenv(f"ATTN_{name}", blank)
    loaded = config.load_settings(data_dir=tmp_path / "data")
    assert (loaded.jwt_secret, loaded.jwks_url, loaded.jwt_audience, loaded.jwt_issuer) == (None, None, None, None)
    assert Settings(jwt_secret=SecretStr(blank)).jwt_secret is None
    with pytest.raises(UserError, match="no token verification is configured"):
        edge(data_dir=tmp_path / "data")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://id.test/keys", "id.test/keys", "HTTPS//x"])
def test_the_key_sets_url_is_http_or_https(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTN_JWKS_URL", url)
    with pytest.raises(UserError, match="ATTN_JWKS_URL"):
        config.load_settings()


def test_a_reject_reason_sends_no_control_characters_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n[red]x[/red] é"
    row = {"at": "", "topic": "plans", "partition": 0, "offset": 1, "reason": evil, "value": evil, "retried": False}
    show_list([row], 1, as_json=False)
    show_summary([Summary("plans", "json", 1, 1, 0, 0, evil)], as_json=False)
    show_list([row], 1, as_json=True)
    output = capsys.readouterr().out
    assert not set(output) & {chr(code) for code in (*range(32), *range(0x7F, 0xA0)) if code != 10}
    assert json.loads(output.splitlines()[-1]) == row


def test_times_are_not_truncated_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = {"at": "2026-05-20T08:14:22.123456Z", "topic": "run-failures", "partition": 0, "offset": 123456,
           "reason": "data.title: " + "x" * 200, "value": "v" * 200, "retried": True}
    show_list([row], 1, as_json=False)
    show_summary([Summary("run-failures", "envelope", 1, 1, 10**15, 2 * 10**15, "r" * 200)], as_json=False)
    output = capsys.readouterr().out
    for time in ("2026-05-20 08:14:22", "2001-09-09 01:46:40", "2033-05-18 03:33:20"):
        assert all(f" {part} " in output for part in time.split())


def test_a_configured_secret_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.make_secret(Settings(data_dir=tmp_path))
    monkeypatch.setenv("ATTN_JWT_SECRET", "mine")
    assert config.load_settings(data_dir=tmp_path).jwt_secret == SecretStr("mine")
    other = Settings(data_dir=tmp_path / "other")
    other.data_dir.mkdir()
    assert not config.make_secret(other)
    monkeypatch.delenv("ATTN_JWT_SECRET")
    monkeypatch.setenv("ATTN_JWKS_URL", "https://keys")
    assert config.load_settings(data_dir=tmp_path).jwt_secret is None


def test_the_kafka_address_of_a_running_up_is_used_and_that_of_a_dead_one_is_not(tmp_path: Path) -> None:
    config.write_runtime_file(Settings(data_dir=tmp_path, kafka="127.0.0.1:5"))
    assert config.load_settings(data_dir=tmp_path).kafka == "127.0.0.1:5"
    assert config.load_settings(data_dir=tmp_path, kafka="k:1").kafka == "k:1"
    note = json.loads((tmp_path / "up.json").read_text())
    (tmp_path / "up.json").write_text(json.dumps({**note, "started": "0"}))
    assert config.load_settings(data_dir=tmp_path).kafka == Settings().kafka
    (tmp_path / "up.json").write_text("{")
    assert config.load_settings(data_dir=tmp_path).kafka == Settings().kafka


def test_a_token_has_the_given_claims(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "s" * 40
    monkeypatch.setenv("ATTN_JWT_SECRET", secret)
    assert attn_here("token", "--workspace", "ws", "--user", "u", "--role", "owner", "--name", "Ü", "--ttl", "7d") == 0
    out = capsys.readouterr().out
    claims = jwt.decode(out.strip(), secret, algorithms=["HS256"])
    assert (claims["sub"], claims["workspace_id"], claims["role"], claims["name"]) == ("u", "ws", "OWNER", "Ü")
    assert claims["exp"] - claims["iat"] == 7 * 86400


def test_a_short_secret_is_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTN_JWT_SECRET", "short")
    assert attn_here("token", "--workspace", "ws", "--user", "u", "--role", "VIEWER") == 0
    assert capsys.readouterr().out.count(".") == 2


@pytest.mark.parametrize(("arguments", "message"), [
    (["--workspace", "w", "--user", "u", "--role", "KING"], "'KING' is not one of OWNER"),
    (["--workspace", " ", "--user", "u", "--role", "OWNER"], "must not be blank"),
    (["--workspace", "w", "--user", "u", "--role", "OWNER", "--ttl", "soon"], "'soon' is not a duration"),
    (["--workspace", "w", "--user", "u"], "Missing option '--role'"),
])
def test_token_reports_invalid_arguments(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTN_JWT_SECRET", "s" * 40)
    assert attn_here("token", *arguments) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert not output.out


def test_no_secret_to_sign_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert attn_here("token", "--workspace", "w", "--user", "u", "--role", "OWNER") == 1
    assert "no secret to sign with: set ATTN_JWT_SECRET" in capsys.readouterr().err
    assert attn_here("edge") == 1
    assert "no token verification is configured" in capsys.readouterr().err


def test_ttl() -> None:
    assert [parse_ttl(text) for text in ("90", "90s", "2m", "12H", " 7d ")] == [90, 90, 120, 43200, 604800]
    for wrong in ("", "0", "-5", "1.5h", "12w", "h"):
        with pytest.raises(UserError):
            parse_ttl(wrong)


@pytest.mark.parametrize("arguments", [["list"], ["retry"], ["export", "-"], ["summary"], ["resume-topic", "plans"]])
def test_options_of_dead_letters_go_after_the_sub_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert attn_here("dead-letters", "--topic", "plans", *arguments) == 2
    assert "options go after the sub-command" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [
    ["--retry", "--summary"], ["--export", "-", "--go-on", "plans"], ["--retry", "--resume-topic", "plans"]])
def test_one_action_of_dead_letters_at_a_time(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert attn_here("dead-letters", *flags) == 2
    assert capsys.readouterr().err == (
        "attn: use one of --retry, --export, --summary and --resume-topic at a time\n")


@pytest.mark.parametrize("arguments", [["resume-topic", "none"], ["--resume-topic", "none"], ["--go-on", "none"]])
def test_only_a_source_topic_is_resumed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert attn_here("dead-letters", *arguments) == 2
    assert capsys.readouterr().err.startswith("attn: 'none' is not a source topic")


@pytest.mark.parametrize(("arguments", "call"), [
    (["--retry", "--topic", "plans", "--limit", "3"], ["retry", "--topic", "plans", "--limit", "3"]),
    (["--export", "-", "--since", "2h"], ["export", "-", "--since", "2h"]),
    (["--summary", "--reason", "json"], ["summary", "--reason", "json"]),
    (["--all", "--json"], ["list", "--all", "--json"]),
], ids=["retry", "export", "summary", "list"])
def test_a_flag_of_dead_letters_does_the_same_as_the_sub_command(
    arguments: list[str], call: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    async def stop(_: Settings, chosen: object, *more: object) -> None:
        seen.append((chosen, [value for value in more if isinstance(value, int | bool | None)]))
        raise UserError("enough")

    monkeypatch.setattr("time.time", lambda: 1.8e9)
    for name in ("_retry", "_export", "_summarize", "_newest"):
        monkeypatch.setattr(f"ops.cli.commands.operations.dead_letters.{name}", stop)
    assert attn_here("dead-letters", *arguments) == attn_here("dead-letters", *call) == 1
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_exported_schemas_are_schemas_and_describe_events() -> None:
    schemas = export()
    assert {"log.json", "facts.json", "views/item.json", "views/position.json"} <= schemas.keys()
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
        orjson.dumps(schema)
    event = {
        "specversion": "1.0", "id": "e1", "source": "/s", "type": "waitpoint.created", "subject": "wp1",
        "time": "2026-05-20T08:14:22Z", "workspaceid": "ws_01", "data": {"title": "Go?", "anything": 1},
    }
    check = jsonschema.Draft202012Validator(schemas["sources/waitpoint.created.json"])
    assert check.is_valid(event)
    assert not check.is_valid({**event, "data": {}})


def test_schemas_do_not_depend_on_the_version_of_msgspec_or_python() -> None:
    """Python 3.13 and msgspec 0.23 remove the indentation of docstrings differently, and order `anyOf` differently."""
    null, item, run = {"type": "null"}, {"$ref": "#/$defs/Item"}, {"$ref": "#/$defs/Run"}
    older = {"$defs": {"Row": {"description": "One row.\n\n    Its text\n    goes on.", "anyOf": [null, run, item]}}}
    newer = {"$defs": {"Row": {"description": "One row.\n\nIts text\ngoes on.\n", "anyOf": [run, item, null]}}}
    assert normalise(older) == normalise(newer)
    assert normalise(older)["$defs"]["Row"] == {
        "description": "One row. Its text goes on.", "anyOf": [item, run, null]}
    for name, schema in export().items():
        assert name.startswith("sources/") or schema == normalise(schema), name


def test_stale_schemas_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("export", "documents"):  # five cases need the same files, so they are generated once
        monkeypatch.setattr(schemas_command, name, cache(getattr(schemas_command, name)))
    out = tmp_path / "json"
    assert attn_here("schemas", "--check", "--out", str(out)) == 1
    assert "out of date in" in capsys.readouterr().err
    assert attn_here("schemas", "--out", str(out)) == 0
    assert attn_here("schemas", "--check", "--out", str(out)) == 0
    (out / "log.json").write_text("{}")
    (out / "views" / "gone.json").write_text("{}")
    capsys.readouterr()
    assert attn_here("schemas", "--check", "--out", str(out)) == 1
    assert "log.json, views/gone.json" in capsys.readouterr().err
    assert attn_here("schemas", "--out", str(out)) == 0
    assert not (out / "views" / "gone.json").exists()


def test_a_reused_pid_is_not_the_recorded_process(tmp_path: Path) -> None:
    me = identity.identify(os.getpid())
    assert me is not None
    assert identity.is_alive(me)
    assert not identity.is_alive(ProcessIdentity(me.pid, "before"))
    identity.write(tmp_path / "p.pid", me)
    assert identity.read(tmp_path / "p.pid") == me
    assert identity.read(tmp_path / "none.pid") is None
    (tmp_path / "p.pid").write_text("17")
    assert identity.read(tmp_path / "p.pid") is None


def test_a_command_imports_its_own_module_only() -> None:
    """`attn token` starts without the modules of the other commands: importing all of them costs 1 s of CPU."""
    done = subprocess.run(
        [sys.executable, "-P", "-c",
         "import sys; from ops.cli.main import main\n"
         "sys.argv = ['attn', 'token', '--help']\n"
         "try: main()\n"
         "except SystemExit: pass\n"
         "print([name for name in ('aiokafka', 'faust', 'uvicorn', 'clickhouse_connect') if name in sys.modules])"],
        capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
