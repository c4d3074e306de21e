"""Why a shape can't be used, in words: what llguidance complains of, with the keyword and its place in the schema."""

from __future__ import annotations

import json
import re
from typing import Any

from edge.engine.shapes.blame import ReasonOf, blame
from edge.engine.shapes.schema import Path, keywords, pointer
from gx.core.errors import GxError

OVERLAP = "oneOf constraints are not supported"
"""What llguidance says of options that may overlap."""
_UNIMPLEMENTED = re.compile(r"Unimplemented keys: (\[.*\])")
_REASON_CHARS = 400


def short(reason: str) -> str:
    """llguidance's complaint without its state, which is pages of its internals."""
    said = reason.partition("\n<state>")[0].strip().replace("min/maxProperties", "minProperties and maxProperties are")
    return said if len(said) <= _REASON_CHARS else said[:_REASON_CHARS] + " ..."


def refusal(path: Path, reason: str, hint: str) -> GxError:
    """A schema that llguidance would take, and get wrong."""
    where = f'"{path[-1]}" (at {pointer(path)})'
    return GxError(f"the output schema can't be used: {where}: {reason}", code="schema", hint=hint)


def schema_error(schema: dict[str, Any], reason: str, reason_of: ReasonOf) -> GxError:
    """llguidance's complaint with the keyword and its place in the schema."""
    if reason.startswith("recursion limit"):
        raise RecursionError(reason)
    found = _UNIMPLEMENTED.search(reason)
    if found is not None:
        keys = json.loads(found.group(1))
        places = [pointer(path) for path, _ in keywords(schema) if path[-1] in keys]
        named = ", ".join(f'"{key}"' for key in keys)
        if places:
            return GxError(
                f"the output schema uses {named} (at {', '.join(places)}), which constrained output doesn't support",
                code="schema",
                hint="leave it out, or express it in another way (anyOf, enum, pattern, maxLength, maxItems)",
            )
        reason = f"what it refers to uses {named}, which constrained output doesn't support"
    blamed = blame(schema, reason_of)
    at = f'"{blamed[0]}" (at {pointer(blamed[1])}): ' if blamed is not None else ""
    hint = "correct the schema"
    if OVERLAP in reason:
        reason = "its options may overlap, so that an answer could fit more than one"
        hint = "write `anyOf`, or tell the options apart: a required field with another `const` in each"
    return GxError(f"the output schema can't be used: {at}{reason}", code="schema", hint=hint)
