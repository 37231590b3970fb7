"""`attn schemas`: writes the JSON Schemas of attn's topics, and the OpenAPI and AsyncAPI documents of the edge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import schemas as package
from api.contract import json_schema
from ops.errors import UserError
from schemas import facts, log, views
from schemas.asking import decision_event
from schemas.settings import Settings
from schemas.sources import MODELS

__all__ = ["documents", "export", "schemas"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_HOME = Path(package.__file__).parent / "json"


def schemas(
    out: Annotated[Path, typer.Option("--out", help="Directory to write to.", show_default=False)] = _HOME,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is out of date.")] = False,
) -> None:
    """Write the JSON Schemas of all topics, and the OpenAPI and AsyncAPI documents."""
    generated = {name: json.dumps(schema, indent=2, sort_keys=True) + "\n"
                 for name, schema in (export() | documents()).items()}
    existing = {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*.json"))}
    stale = sorted(name for name in generated.keys() | existing.keys()
                   if generated.get(name) != existing.get(name))
    if check:
        if stale:
            raise UserError(f"out of date in {out}: {', '.join(stale)}; run `attn schemas`")
        typer.echo(f"{len(generated)} schemas are current", err=True)
        return
    for name in stale:
        if name not in generated:
            (out / name).unlink()
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(generated[name])
    typer.echo(f"{len(generated)} schemas in {out}, {len(stale)} changed", err=True)


def export() -> dict[str, dict[str, Any]]:
    """Returns the schemas by file name."""
    exported = {f"sources/{name}.json": model.model_json_schema() for name, model in MODELS.items()}
    exported["log.json"] = _of("attn.log: a pack of events, commands and the clock", log.Pack)
    exported["facts.json"] = _of("attn.facts: accepted facts and outcomes of commands", facts.Fact | facts.Outcome)
    exported["decisions.json"] = _of("decisions: CloudEvents of decisions", decision_event.DecisionEvent)
    for name in views.__all__:
        row = getattr(views, name)
        if name.endswith("Row") and isinstance(row, type):
            exported[f"views/{name.removesuffix('Row').lower()}.json"] = _of(f"attn.views: {name}", row)
    return {name: {"$schema": _DIALECT, **schema} for name, schema in exported.items()}


def documents() -> dict[str, dict[str, Any]]:
    """Returns the documents that an edge serves at /openapi.json and /asyncapi.json."""
    # Imported here: other commands do not need the packages of the edge.
    from api.contract.asyncapi import asyncapi
    from api.edge.services import Edge
    from api.http.app import create_app

    return {
        "openapi.json": create_app(Edge(Settings(_env_file=None))).openapi(),
        "asyncapi.json": asyncapi(),
    }


def _of(title: str, kind: Any) -> dict[str, Any]:
    return {"title": title, **json_schema.schema(kind)}
