"""Graphs that a real LangGraph server runs for the tests of `attn connect langgraph`.

Each graph records every effect as one line of the file `EFFECTS`, so that a test can count effects. Nothing here is
part of attn.
"""

from __future__ import annotations

import json
import operator
import os
import time
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from pydantic import BaseModel, Field, TypeAdapter, field_validator
from typing_extensions import TypedDict


def effect(*what: Any) -> None:
    """Appends one effect to the file."""
    with open(os.environ["EFFECTS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


# One question of any value, with any schema. The thread's input has both.
class AnyState(TypedDict, total=False):
    key: str
    value: Any
    response_schema: Any
    answer: Any


def ask_any(state: AnyState) -> AnyState:
    answer = interrupt(state["value"], response_schema=state.get("response_schema"))
    effect("any", state.get("key"), answer)
    return {"answer": answer}


any_value = StateGraph(AnyState).add_node("ask", ask_any).add_edge(START, "ask").add_edge("ask", END).compile()


# Two questions in one node: the id of the first one must never answer the second one.
class TwoState(TypedDict, total=False):
    key: str
    answers: list[Any]


def ask_twice(state: TwoState) -> TwoState:
    first = interrupt("deploy to staging?")
    second = interrupt("DROP prod database?")
    effect("two", state.get("key"), first, second)
    return {"answers": [first, second]}


two_questions = StateGraph(TwoState).add_node("ask", ask_twice).add_edge(START, "ask").add_edge("ask", END).compile()


# Two questions in two nodes.
class ChainState(TypedDict, total=False):
    key: str
    answers: Annotated[list[Any], operator.add]


def ask_first(state: ChainState) -> ChainState:
    answer = interrupt("deploy to staging?")
    effect("first", state.get("key"), answer)
    return {"answers": [answer]}


def ask_second(state: ChainState) -> ChainState:
    answer = interrupt("DROP prod database?")
    effect("second", state.get("key"), answer)
    return {"answers": [answer]}


two_nodes = (
    StateGraph(ChainState).add_node("first", ask_first).add_node("second", ask_second)
    .add_edge(START, "first").add_edge("first", "second").add_edge("second", END).compile()
)


# Several questions pending at once, in parallel branches.
class Branch(TypedDict):
    key: str
    name: str


class FanState(TypedDict, total=False):
    key: str
    names: list[str]
    answers: Annotated[list[Any], operator.add]


def ask_branch(state: Branch) -> FanState:
    answer = interrupt(f"restart {state['name']}?")
    effect("branch", state["key"], state["name"], answer)
    return {"answers": [[state["name"], answer]]}


def fan_out(state: FanState) -> list[Send]:
    return [Send("ask", {"key": state["key"], "name": name}) for name in state["names"]]


parallel = (
    StateGraph(FanState).add_node("start", lambda state: {}).add_node("ask", ask_branch)
    .add_edge(START, "start").add_conditional_edges("start", fan_out, ["ask"]).add_edge("ask", END).compile()
)


# A typed question. Its validator is stricter than the JSON Schema that clients see, so a fitting form may be refused.
class Window(BaseModel):
    name: str = Field(title="Name", min_length=3, max_length=20)
    nodes: int = Field(ge=1, le=9)
    public: bool = False

    @field_validator("name")
    @classmethod
    def _no_test(cls, value: str) -> str:
        if value == "forbidden":
            raise ValueError("this name is reserved")
        return value


def ask_typed(state: AnyState) -> AnyState:
    window = interrupt({"question": "Which cluster?"}, response_schema=Window)
    effect("typed", state.get("key"), window.model_dump())
    return {"answer": window.model_dump()}


typed = StateGraph(AnyState).add_node("ask", ask_typed).add_edge(START, "ask").add_edge("ask", END).compile()


# HumanInterrupt as agent-inbox documents it: a list with one request, answered by a list with one response.
class HumanResponse(TypedDict):
    type: str
    args: Any


def ask_human(state: AnyState) -> AnyState:
    [response] = TypeAdapter(list[HumanResponse]).validate_python(interrupt([state["value"]]))
    effect("human", state.get("key"), response)
    return {"answer": response}


human_interrupt = StateGraph(AnyState).add_node("ask", ask_human).add_edge(START, "ask").add_edge("ask", END).compile()


# A node that works for a while after the answer, so that a process can be killed in between.
def ask_then_work(state: AnyState) -> AnyState:
    answer = interrupt("start the long work?")
    effect("slow", state.get("key"), answer)
    time.sleep(float(state.get("value") or 3))
    return {"answer": answer}


slow = StateGraph(AnyState).add_node("ask", ask_then_work).add_edge(START, "ask").add_edge("ask", END).compile()


# A question inside of a subgraph.
nested = StateGraph(AnyState).add_node("inner", any_value).add_edge(START, "inner").add_edge("inner", END).compile()


# A run that fails before and after the question.
def ask_then_fail(state: AnyState) -> AnyState:
    answer = interrupt("continue?")
    if answer != "right":
        raise RuntimeError(f"cannot continue with {answer!r}")
    effect("fragile", state.get("key"), answer)
    return {"answer": answer}


fragile = StateGraph(AnyState).add_node("ask", ask_then_fail).add_edge(START, "ask").add_edge("ask", END).compile()


# LangChain's agent with HumanInTheLoopMiddleware. The human message is a JSON list of the tool calls to make.
@tool
def send_mail(to: str, subject: str, delay_seconds: int = 0) -> str:
    """Sends a mail."""
    effect("send_mail", to, subject, delay_seconds)
    return f"sent to {to}"


@tool
def drop_table(name: str) -> str:
    """Drops a table."""
    effect("drop_table", name)
    return f"dropped {name}"


@tool
def ask_user(question: str) -> str:
    """Asks the user."""
    effect("ask_user", question)
    return "nobody answered"


class FakeModel(GenericFakeChatModel):
    """Calls the tools that the human message names, then says what the tools returned."""

    messages: Any = iter(())

    def bind_tools(self, tools: Any, **options: Any) -> FakeModel:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            results = [message for message in messages if isinstance(message, ToolMessage)]
            answer = AIMessage("; ".join(f"{message.status}: {message.content}" for message in results))
        else:
            assert isinstance(last, HumanMessage)
            calls = json.loads(str(last.content))
            answer = AIMessage("", tool_calls=[
                {"name": call["name"], "args": call["args"], "id": f"call_{number}", "type": "tool_call"}
                for number, call in enumerate(calls)])
        return ChatResult(generations=[ChatGeneration(message=answer)])


RULES: dict[str, Any] = {
    "send_mail": True,
    "drop_table": {"allowed_decisions": ["approve", "reject"], "description": "Drops a table of *production*"},
    "ask_user": {"allowed_decisions": ["respond"]},
}
TOOLS = [send_mail, drop_table, ask_user]

batched = create_agent(FakeModel(), TOOLS, middleware=[HumanInTheLoopMiddleware(interrupt_on=RULES)])
per_call = create_agent(
    FakeModel(), TOOLS, middleware=[HumanInTheLoopMiddleware(interrupt_on=RULES, interrupt_mode="per_call")])
