"""A LangGraph agent whose interrupts people answer in attn: `python langgraph_agent.py URL KEY CASE`. Prints JSON."""

import asyncio
import json
import operator
import sys
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel, field_validator

from attn_client import AsyncAttn
from attn_client.adapters.langgraph import invoke

calls: list[Any] = []


class FakeModel(GenericFakeChatModel):
    def bind_tools(self, tools, **more):
        return self


@tool
def send_mail(to: str, subject: str) -> str:
    """Sends a mail."""
    calls.append([to, subject])
    return "sent"


@tool
def ask_user(question: str) -> str:
    """Asks the user."""
    calls.append(["ask_user"])
    return "never"


def agent(mode: str):
    wanted = [
        {"name": "send_mail", "args": {"to": "a@example.com", "subject": "1"}, "id": "call_1", "type": "tool_call"},
        {"name": "send_mail", "args": {"to": "b@example.com", "subject": "2"}, "id": "call_2", "type": "tool_call"},
        {"name": "send_mail", "args": {"to": "c@example.com", "subject": "3"}, "id": "call_3", "type": "tool_call"},
        {"name": "ask_user", "args": {"question": "Who?"}, "id": "call_4", "type": "tool_call"},
    ]
    model = FakeModel(messages=iter([AIMessage("", tool_calls=wanted), AIMessage("done")]))
    return create_agent(model, [send_mail, ask_user], checkpointer=InMemorySaver(), middleware=[
        HumanInTheLoopMiddleware({"send_mail": {"allowed_decisions": ["approve", "edit", "reject"]},
                                  "ask_user": {"allowed_decisions": ["respond"]}}, interrupt_mode=mode)])


class State(TypedDict):
    out: Annotated[list, operator.add]


class Size(BaseModel):
    nodes: int

    @field_validator("nodes")
    @classmethod
    def is_odd(cls, value):
        if value % 2 == 0:
            raise ValueError("a cluster has an odd number of nodes")
        return value


def twice(state):
    return {"out": [interrupt("Continue?"), interrupt("Continue?")]}


def typed(state):
    return {"out": [interrupt({"question": "How large?"}, response_schema=Size).nodes]}


def inbox(state):
    request = {"action_request": {"action": "pay", "args": {"amount": 5}}, "description": "Pay it",
               "config": {"allow_ignore": True, "allow_respond": True, "allow_edit": True, "allow_accept": True}}
    return {"out": [interrupt([request])[0]]}


def graph(*nodes):
    built = StateGraph(State)
    for node in nodes:
        built.add_node(node.__name__, node)
        built.add_edge(START, node.__name__)
    return built.compile(checkpointer=InMemorySaver())


async def main() -> None:
    url, key, case = sys.argv[1:]
    config = {"configurable": {"thread_id": case}}
    async with AsyncAttn(url, key, source="/agents/langgraph") as attn:
        if case in ("batched", "per_call"):
            result = await invoke(attn, agent(case), {"messages": [("user", "go")]}, config)
            shown = [[one.type, one.content, getattr(one, "status", None)] for one in result["messages"][2:]]
        else:
            nodes = {"twice": [twice], "typed": [typed], "inbox": [inbox]}[case]
            shown = (await invoke(attn, graph(*nodes), {"out": []}, config))["out"]
    print(json.dumps({"calls": sorted(calls), "result": shown}))


asyncio.run(main())
