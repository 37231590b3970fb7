"""Prints the JSON Schemas of LangGraph's and LangChain's types, without their texts. Runs in the peer's environment.

`peer_types.json` is its output; `test_langgraph_server.py` compares the two.
"""

import json
import warnings
from typing import Any

warnings.simplefilter("ignore")

from langchain.agents.middleware import human_in_the_loop as hitl  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langgraph.prebuilt.interrupt import HumanInterrupt, HumanResponse  # noqa: E402
from pydantic import TypeAdapter  # noqa: E402


@tool
def send_mail(to: str, subject: str, delay_seconds: int = 0) -> str:
    """Sends a mail."""
    return ""


def texts_removed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: texts_removed(member) for name, member in value.items()
                if not (name == "description" and isinstance(member, str))}
    return [texts_removed(member) for member in value] if isinstance(value, list) else value


TYPES = {
    "HITLRequest": hitl.HITLRequest, "HITLResponse": hitl.HITLResponse, "HumanInterrupt": HumanInterrupt,
    "HumanResponses": list[HumanResponse], "ToolApprovalRequest": hitl.ToolApprovalRequest,
    "send_mail": hitl._decision_schema(["approve", "edit", "reject", "respond"], "send_mail", send_mail),
}
print(json.dumps({name: texts_removed(TypeAdapter(kind).json_schema()) for name, kind in TYPES.items()},
                 indent=1, sort_keys=True))
