"""Makes `github_api.json` from npm's `@octokit/openapi`: the schemas and examples of the routes that the stub of GitHub
serves. `python make_github_api.py node_modules/@octokit/openapi`.

The package has 394 MB, so the tests use this extract. Texts are left out; `nullable` of OpenAPI 3.0 becomes a type.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_REPO = "/repos/{owner}/{repo}"
_RUN = f"{_REPO}/actions/runs/{{run_id}}"
_ROUTES = (
    ("get", _REPO), ("get", f"{_REPO}/actions/runs"), ("get", _RUN), ("get", f"{_RUN}/jobs"),
    ("get", f"{_RUN}/pending_deployments"), ("post", f"{_RUN}/pending_deployments"), ("get", f"{_RUN}/approvals"),
    ("post", f"{_RUN}/deployment_protection_rule"), ("post", f"{_RUN}/rerun-failed-jobs"),
    ("get", f"{_REPO}/environments/{{environment_name}}/deployment_protection_rules"), ("get", f"{_REPO}/deployments"),
    ("get", f"{_REPO}/installation"), ("post", "/app/installations/{installation_id}/access_tokens"))
_LEFT_OUT = {"description", "example", "examples", "nullable", "title", "deprecated", "x-github", "externalDocs",
             "default"}


class Extract:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.schemas: dict[str, Any] = {}

    def resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in value:
            target: Any = self._document
            for part in value["$ref"][2:].split("/"):
                target = target[part]
            value = target
        return value

    def schema(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.schema(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            name = value["$ref"].rsplit("/", 1)[1]
            if name not in self.schemas:
                self.schemas[name] = None
                self.schemas[name] = self.schema(self._document["components"]["schemas"][name])
            return {"$ref": f"#/$defs/{name}"}
        made = {
            name: {each: self.schema(one) for each, one in member.items()} if name == "properties"
            else self.schema(member) for name, member in value.items() if name not in _LEFT_OUT}
        return {"anyOf": [made, {"type": "null"}]} if value.get("nullable") else made

    def operation(self, verb: str, path: str) -> dict[str, Any]:
        operation = self._document["paths"][path][verb]
        status = next(one for one in operation["responses"] if one.startswith("2"))
        content = self.resolved(operation["responses"][status]).get("content", {}).get("application/json", {})
        examples = list(content.get("examples", {}).values())
        made = {"status": int(status), "example": self.resolved(examples[0])["value"] if examples else None}
        if "schema" in content:
            made["response"] = self.schema(content["schema"])
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        return made | ({"request": self.schema(body["schema"])} if body else {})


def main() -> None:
    package = Path(sys.argv[1])
    version = json.loads((package / "package.json").read_text())["version"]
    extract = Extract(json.loads((package / "generated" / "api.github.com.json").read_text()))
    operations = {f"{verb.upper()} {path}": extract.operation(verb, path) for verb, path in _ROUTES}
    made = {"from": f"@octokit/openapi {version}, api.github.com (MIT)", "operations": operations,
            "$defs": extract.schemas}
    Path(__file__).with_name("github_api.json").write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
