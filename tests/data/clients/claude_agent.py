"""Claude Agent SDK and its real command line against a model on loopback: `python claude_agent.py URL KEY FOLDER STEP`.

STEP: `callback`, which waits in the permission callback; `defer`, which ends while a person thinks; `resume`, which
continues the deferred session. Prints JSON.
"""

import asyncio
import json
import pathlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, DeferredToolUse, HookMatcher, ResultMessage

from attn_client import AsyncAttn
from attn_client.adapters.claude_agent import Deferral, can_use_tool

url, key, folder, step = sys.argv[1:]
work = pathlib.Path(folder)
CALL = {"type": "tool_use", "id": "toolu_1", "name": "Bash",
        "input": {"command": "echo asked > made.txt", "description": "Make a file"}}
ASKS = {"type": "tool_use", "id": "toolu_2", "name": "AskUserQuestion", "input": {"questions": [{
    "question": "Which region?", "header": "Region", "multiSelect": False,
    "options": [{"label": "eu", "description": "Europe"}, {"label": "us", "description": "America"}]}]}}


class FakeModel(BaseHTTPRequestHandler):
    """Calls a tool, then repeats its result as a text."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        content = (body.get("messages") or [{}])[-1].get("content")
        parts = content if isinstance(content, list) else []
        results = [part for part in parts if isinstance(part, dict) and part.get("type") == "tool_result"]
        has_tools = any(tool.get("name") == "Bash" for tool in body.get("tools", ()))
        call = ASKS if "ask" in str(content) and step == "callback-ask" else CALL
        block = call if has_tools and not results else {"type": "text", "text": json.dumps(results)}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model"),
                   "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
        stop = "tool_use" if block["type"] == "tool_use" else "end_turn"
        if not body.get("stream"):
            self.answer("application/json", json.dumps({**message, "content": [block], "stop_reason": stop}))
            return
        is_text = block["type"] == "text"
        delta = ({"type": "text_delta", "text": block["text"]} if is_text
                 else {"type": "input_json_delta", "partial_json": json.dumps(block["input"])})
        events = [
            ("message_start", {"message": {**message, "content": [], "stop_reason": None}}),
            ("content_block_start", {"index": 0, "content_block": {**block, **(
                {"text": ""} if is_text else {"input": {}})}}),
            ("content_block_delta", {"index": 0, "delta": delta}), ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 1}}),
            ("message_stop", {})]
        self.answer("text/event-stream", "".join(
            f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n" for name, data in events))

    def answer(self, kind, text):
        raw = text.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


async def run(prompt, **options):
    """Returns the result of one run."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeModel)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = ClaudeAgentOptions(
        cwd=folder, setting_sources=[], max_turns=3, env={
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{server.server_port}", "ANTHROPIC_API_KEY": "none",
            "HOME": folder, "DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}, **options)
    async with ClaudeSDKClient(given) as client:
        await client.query(prompt)
        async for message in client.receive_response():
            if isinstance(message, ResultMessage):
                return message
    raise AssertionError("the run ended without a result")


async def main() -> None:
    async with AsyncAttn(url, key, source="/agents/claude") as attn:
        deferral = Deferral(attn, "night-17")
        hooks = {"PreToolUse": [HookMatcher(matcher="Bash", hooks=[deferral.hook])]}
        if step.startswith("callback"):
            result = await run("ask me" if "ask" in step else "go", can_use_tool=can_use_tool(attn, work.name))
        elif step == "defer":
            result = await run("go", hooks=hooks, can_use_tool=deferral.can_use_tool)
            saved = {"session": result.session_id, "deferred": vars(result.deferred_tool_use)}
            (work / "saved").write_text(json.dumps(saved))
        else:
            saved = json.loads((work / "saved").read_text())
            await deferral.wait(DeferredToolUse(**saved["deferred"]))
            result = await run(
                "continue", hooks=hooks, can_use_tool=deferral.can_use_tool, resume=saved["session"])
    made = work / "made.txt"
    print(json.dumps({"result": result.result, "made": made.read_text().strip() if made.exists() else None}))


asyncio.run(main())
