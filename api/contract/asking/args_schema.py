"""Checks the arguments of an `edit` by the ask's `action.args_schema` (JSON Schema), as a process of its own.

A source may send any schema: one of a few hundred bytes can take 2^500 steps, by nested references or a backtracking
pattern. `api.commands.args_checker` therefore runs this module as a child process with limits, and kills it after a
deadline. The process reads one request a line, `{"schema", "args"}` with JSON texts, and writes one answer a line:
`{"errors": {path: reason}}`, or `{"unusable": reason}` if the schema cannot be evaluated. It ends with its input.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

from jsonschema import ValidationError
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry

__all__ = ["check"]

MAX_ERRORS, MAX_REASON = 20, 300
_MEMORY = 1 << 30  # bytes of address space


def check(schema_text: str, args_text: str) -> dict[str, Any]:
    """Returns the answer to a request. Paths are `args`, `args.NAME`, `args.NAME.0.OTHER`, at most 20."""
    try:
        # Decimal: `multipleOf` and bounds compare the digits that were sent.
        schema, args = (json.loads(text, parse_float=Decimal) for text in (schema_text, args_text))
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
        # This registry has no way to fetch a schema: a reference to another document fails.
        found = kind(schema, registry=Registry()).iter_errors(args)
        errors = {path: reason[:MAX_REASON] for error in islice(found, MAX_ERRORS) for path, reason in _named(error)}
    except Exception as error:  # SchemaError, Unresolvable, RecursionError, re.error, and what an odd schema causes
        return {"unusable": f"{type(error).__name__}: {getattr(error, 'message', error)}"[:MAX_REASON]}
    return {"errors": errors}


def _named(error: ValidationError) -> Iterator[tuple[str, str]]:
    path = ".".join(["args", *map(str, error.absolute_path)])
    if error.validator == "required" and isinstance(error.instance, dict):
        for name in error.validator_value:
            if name not in error.instance:
                yield f"{path}.{name}", "required"
    else:
        yield path, _reason_of(error)


def _reason_of(error: ValidationError) -> str:
    """Returns the reason without the value, which may be large."""
    wanted = error.validator_value
    if error.validator == "type":
        return f"must be of type {', '.join(wanted) if isinstance(wanted, list) else wanted}"
    if error.validator == "enum":
        return f"must be one of {json.dumps(wanted, default=str, ensure_ascii=False)}"
    if isinstance(wanted, str | int | Decimal) and not isinstance(wanted, bool):
        return f"does not fit {error.validator} {wanted}"
    return f"does not fit {error.validator}" if error.validator else "is not allowed"


def main() -> None:
    """Answers requests until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(check(request["schema"], request["args"])), flush=True)


if __name__ == "__main__":
    main()
