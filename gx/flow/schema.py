"""The published JSON Schema of a recipe, for editors: the same table that the parser reads with.

It knows one file at a time, and nothing of what one part of it says of another: names, templates and cycles are the
parser's own. Whatever this schema refuses, the parser refuses too.
"""

from __future__ import annotations

from typing import Any

from gx.flow.grammar import RECIPE


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema (draft-07) of a recipe."""
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "gx recipe"} | RECIPE.schema()
