"""The published clients: the snippets of their READMEs run, the wheel installs without attn, and the npm package has
types."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients.light_attn import light_attn
from support.clients.people import People, until
from support.peers.environments import npm_environment
from support.processes.installation import UV, install

ROOT = Path(__file__).parents[3]
PYTHON, TYPESCRIPT = ROOT / "clients" / "python", ROOT / "clients" / "typescript"
# Subject of a snippet's question -> the option that the test chooses, and the text that the snippet then prints.
ANSWERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "mail-17": ("approve", {}, "approved by ann"),
    "mail-17-template": ("long", {}, "template: long"),
    "volume-3": ("edit", {"args": {"volume": "pvc-3", "force": True}}, "args: {'force': True, 'volume': 'pvc-3'}"),
    "deploy-9": ("approve", {}, "deploying"),
    "mail-18": ("reject", {}, "rejected by ann"),
    "mail-1": ("approve", {}, "approve by ann"),
    "mail-2": ("reject", {}, "reject by ann"),
}

OLDEST = [Path("/usr/bin/python3.10"), *sorted((Path.home() / ".pyenv" / "versions").glob("3.10.*/bin/python"))]

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


def snippets(path: Path, language: str) -> list[str]:
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in blocks]


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with light_attn() as running:
        yield running


@pytest.fixture(scope="module")
def environment(people: People) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "ATTN": people.url, "TOKEN": people.token("ann"),
            "KEY": people.create_key("/agents/mailer"), "NO_PROXY": "*"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the Python of an environment with only the wheel of the client. Uses Python 3.10 if it is installed."""
    home = tmp_path_factory.mktemp("client")
    install(UV, "build", "--quiet", "--no-config", "--out-dir", home / "dist", PYTHON)
    [wheel] = (home / "dist").glob("*.whl")
    oldest = next((path for path in OLDEST if path.exists()), sys.executable)
    install(UV, "venv", "--quiet", "--no-project", "--python", oldest, home / "env")
    install(UV, "pip", "install", "--quiet", "--python", home / "env" / "bin" / "python", wheel)
    return home / "env" / "bin" / "python"


async def run_answered(people: People, command: list[str | Path], text: str, environment: dict[str, str]) -> str:
    """Runs a snippet, answers the question that it asks, and returns what it printed."""
    subject = next((name for name in sorted(ANSWERS, key=len, reverse=True) if f'"{name}"' in text), None)
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    if subject is not None:
        option, body, _ = ANSWERS[subject]
        asked = {row["source_id"] for row in await people.items("decided")}
        assert subject not in asked
        await people.answer(subject, option, **body)
    out, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, errors.decode()[-3000:]
    if subject is not None:
        assert out.decode().strip().splitlines()[-1] == ANSWERS[subject][2]
        await people.becomes(subject, "applied")
    return out.decode()


def test_the_wheel_has_types_and_imports_nothing_of_attn(alone: Path) -> None:
    listed = subprocess.run([UV, "pip", "list", "--python", alone], capture_output=True, text=True, check=True).stdout
    names = {line.split()[0] for line in listed.splitlines()[2:]}
    assert {"attn-client", "aiohttp"} <= names
    assert not names & {"attn", "httpx", "pydantic"}
    code = "import attn_client, sys, pathlib; print(sys.version_info[:2], pathlib.Path(attn_client.__file__).parent)"
    done = subprocess.run([alone, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    folder = Path(done.stdout.split(") ", 1)[1].strip())
    assert (folder / "py.typed").exists()


@pytest.mark.parametrize("document", ["clients/python/README.md", "docs/connect/python.md"])
async def test_snippets_of_python(people: People, alone: Path, environment: dict[str, str], document: str) -> None:
    texts = snippets(ROOT / document, "python")
    assert texts
    for text in texts:
        out = await run_answered(people, [alone, "-c", text], text, environment)
        if "Feed" in text:
            assert out.startswith("snapshot [")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a project that has the packed package in node_modules."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    home = tmp_path_factory.mktemp("node")
    package = home / "node_modules" / "attn-client"
    shutil.copytree(TYPESCRIPT / "src", package / "src")
    shutil.copy(TYPESCRIPT / "package.json", package)
    return home


@pytest.mark.parametrize("document", ["clients/typescript/README.md", "docs/connect/typescript.md"])
async def test_snippets_of_typescript(
    people: People, installed: Path, environment: dict[str, str], document: str,
) -> None:
    texts = snippets(ROOT / document, "js")
    assert texts
    for number, text in enumerate(texts):
        path = installed / f"{Path(document).stem}-{number}.mjs"
        path.write_text(text)
        out = await run_answered(people, ["node", path], text, environment)
        if "follow" in text:
            assert out.startswith("snapshot ")


ASKS = """
import { Attn, Withdrawn, Unauthorized, EventRejected } from "attn-client";

const shift = Number(process.env.SHIFT);
const real = Date.now;
Date.now = () => real() + shift;
const attn = new Attn({ url: process.env.ATTN, key: process.env.KEY, source: "/agents/mailer" });
const form = { type: "object", properties: { n: { type: "integer" } }, required: ["n"] };
const answers = await Promise.all([
  attn.ask("First?", { subject: "ts-1" }), attn.ask("Second?", { subject: "ts-2", form }),
  attn.ask("Third?", { subject: "ts-3", confirm: false, action: { name: "x", args: { a: 1 }, editable: true } }),
]);
await attn.refused(answers[2], "no such x");
const again = await attn.ask("First?", { subject: "ts-1" });
const errors = [];
for (const [key, title] of [["attn_no", "x"], [process.env.KEY, "x".repeat(600)]]) {
  const other = new Attn({ url: process.env.ATTN, key, source: "/agents/mailer" });
  await other.ask(title, { subject: "ts-4" }).catch((error) => errors.push(error.name));
  other.close();
}
const named = await attn.notify("done");
const listed = [];
for await (const one of attn.decisions({ subject: "ts-2" })) listed.push(one.state);
console.log(JSON.stringify({
  options: answers.map((one) => one.option), form: answers[1].form, args: answers[2].args,
  same: again.decision === answers[0].decision, errors, listed, named: named.startsWith("msg_"),
  withdrawn: [await attn.withdraw(named, "message"), await attn.withdraw("never")],
}));
attn.close();
"""


@pytest.mark.parametrize("days", [-400, 400])
async def test_typescript_against_attn(
    people: People, installed: Path, environment: dict[str, str], tmp_path: Path, days: int,
) -> None:
    """The client's clock is wrong by more than a year. It is killed once while its questions wait."""
    script = ASKS.replace("ts-", f"ts{days}-")
    path = installed / f"asks{days}.mjs"
    path.write_text(script)
    shifted = {**environment, "SHIFT": str(days * 86_400_000)}
    killed = await asyncio.create_subprocess_exec("node", path, env=shifted)
    first = await people.question(f"ts{days}-1")
    killed.kill()
    await killed.wait()
    process = await asyncio.create_subprocess_exec("node", path, env=shifted, stdout=asyncio.subprocess.PIPE)
    await people.answer(f"ts{days}-1", "approve")
    await people.answer(f"ts{days}-2", "answer", form={"n": 3})
    await people.answer(f"ts{days}-3", "edit", args={"a": 2})
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    assert json.loads(out) == {
        "options": ["approve", "answer", "edit"], "form": {"n": 3}, "args": {"a": 2}, "same": True,
        "errors": ["Unauthorized", "EventRejected"], "listed": ["applied"], "named": True, "withdrawn": [True, False]}
    [now] = await people.items("all", source_id=f"ts{days}-1")
    assert now["created_at"] == first["created_at"], "the client opened the question twice"

    async def returned() -> Any:
        return await people.items(source_id=f"ts{days}-3")

    [item] = await until(returned, "the refused answer is back")
    assert item["decision"]["reason"] == "no such x"


def test_types_of_typescript(tmp_path: Path) -> None:
    """The sources have no type errors. A TypeScript program is checked against the types of the package."""
    tsc = npm_environment("typescript", ["typescript@7.0.2"]) / "node_modules" / ".bin" / "tsc"
    package = tmp_path / "node_modules" / "attn-client"
    shutil.copytree(TYPESCRIPT, package, ignore=shutil.ignore_patterns("node_modules", "types"))
    for command in ([tsc, "-p", "."], [tsc, "-p", ".", "--noEmit", "false"], ["node", "copy.mjs", "--types"]):
        done = subprocess.run(command, cwd=package, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    (tmp_path / "use.ts").write_text("""
        import { Attn, follow, type Answer } from "attn-client";
        import { apply, EMPTY } from "attn-client/fold";
        const attn = new Attn({ url: "http://x", key: "k", source: "/s" });
        const answer: Answer = await attn.ask("T", { options: ["approve"], priority: "high" });
        const by: string | null = answer.by;
        for await (const { inbox } of follow({ url: "http://x", token: "t" })) { const n: number = inbox.items.length; }
        apply(EMPTY, { event: "heartbeat", data: null });
        // @ts-expect-error: no such priority
        attn.ask("T", { priority: "soon" });
        export { by };
    """)
    flags = ["--noEmit", "--strict", "--module", "es2022", "--moduleResolution", "bundler", "--target", "es2022",
             "--lib", "es2022,dom,dom.iterable,dom.asynciterable", "--types", ""]
    done = subprocess.run([tsc, *flags, "use.ts"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
