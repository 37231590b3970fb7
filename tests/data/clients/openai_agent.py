"""An agent of the OpenAI Agents SDK whose tool calls people approve: `python openai_agent.py URL KEY FOLDER STEP`.

STEP: `run`, or `replay`, which resumes a kept copy of the snapshot. Prints JSON.
"""

import asyncio
import json
import pathlib
import sys

from agents import Agent, Model, ModelResponse, Runner, RunState, Usage, function_tool, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from attn_client import AsyncAttn
from attn_client.adapters.openai_agents import AlreadyUsed, FileStore, decide, run

set_tracing_disabled(True)
url, key, folder, step = sys.argv[1:]
effects = pathlib.Path(folder) / "effects"


class FakeModel(Model):
    """Calls the tool twice, then ends with the tools' output."""

    async def get_response(self, system_instructions, input, *args, **more):
        items = [one for one in input if isinstance(one, dict)]
        outputs = [one["output"] for one in items if one.get("type") == "function_call_output"]
        if outputs:
            text = ResponseOutputText(text=" | ".join(outputs), type="output_text", annotations=[])
            message = ResponseOutputMessage(
                id="m", content=[text], role="assistant", status="completed", type="message")
            return ModelResponse(output=[message], usage=Usage(), response_id=None)
        calls = [ResponseFunctionToolCall(name="refund", call_id=f"call_{n}", type="function_call",
                                          arguments=json.dumps({"order": n})) for n in (17, 18)]
        return ModelResponse(output=calls, usage=Usage(), response_id=None)

    def stream_response(self, *args, **more):
        raise NotImplementedError


@function_tool(needs_approval=True)
def refund(order: int) -> str:
    """Refunds an order."""
    with effects.open("a") as file:
        file.write(f"{order}\n")
    return f"refunded {order}"


async def main() -> None:
    agent = Agent(name="Support", model=FakeModel(), tools=[refund])
    store = FileStore(folder)
    async with AsyncAttn(url, key, source="/agents/openai") as attn:
        if step == "replay":
            state = await RunState.from_string(agent, json.loads(pathlib.Path(folder, "kept").read_text())["state"])
            try:
                await Runner.run(agent, await decide(attn, state, name="refund-17"))
                print(json.dumps("ran again"))
            except AlreadyUsed as error:
                print(json.dumps(str(error)))
            return
        outcome = await run(attn, agent, "Refund them", name="refund-17", store=store)
        print(json.dumps(outcome.final_output))


asyncio.run(main())
