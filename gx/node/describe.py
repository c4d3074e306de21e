"""The node's API as an OpenAPI 3.1 document, made of the table of its routes and the types that they take and give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gx import __version__
from gx.node.problem import Problem
from gx.node.wire import Frame

if TYPE_CHECKING:
    from gx.node.endpoints import Endpoint


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document. Schemas are JSON Schema of the very types that requests are decoded to."""
    types = {
        kind for one in endpoints for kind in (one.takes, one.gives) if isinstance(kind, type) and kind is not bytes
    }
    ordered = [*sorted(types - {dict}, key=lambda kind: kind.__name__), Frame, Problem]
    schemas, parts = msgspec.json.schema_components(
        ordered, schema_hook=_schema_of, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, Any] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "gx node", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": parts},
    }


def _operation(one: Endpoint, by_type: dict[Any, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", one.path)
    ]
    parameters += [{"name": name, "in": "query", "schema": {"type": kind}} for name, kind in one.query]
    lines = {"application/x-ndjson": {"schema": by_type[Frame] if one.path.endswith("watch") else {"type": "object"}}}
    value = {"application/json": {"schema": by_type.get(one.gives, {"type": "object"})}}
    problem = {"description": "Refused", "content": {"application/json": {"schema": by_type[Problem]}}}
    made: dict[str, Any] = {
        "operationId": one.handle.__name__.strip("_"),
        "summary": one.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", "content": lines if one.gives is bytes else value},
            **{str(status): problem for status in (400, 404, 409, 422, 503)},
        },
    }
    if one.takes is bytes:
        made["requestBody"] = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}
    elif one.takes is not None:
        is_required = any(field.required for field in msgspec.structs.fields(one.takes))
        content = {"application/json": {"schema": by_type[one.takes]}}
        made["requestBody"] = {"content": content, "required": is_required}
    return made


def _schema_of(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string"}
    return {"type": "object"}
