"""What was found in the memory, as a template has it, and as an answer can cite it.

`memories` is a list of entries, the best first; each has a short `id` ("m1"), its `text` and where that is from. A part
of an output schema that says `x-from: memories.id` stands for one of those that were found, so a citation that isn't
among them can't be written. It knows neither the search nor the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gx.core.errors import GxError
from gx.flow import templates
from gx.flow.withheld import Withheld, guard

NAME = "memories"
FROM = "x-from"
CITED = ("memories.id", "memories.file", "memories.path", "memories.source", "memories.uid")
"""What `x-from` may name."""
BEFORE_PROMPT = """\
{% if memories %}What is known already:
{% for memory in memories %}[{{ memory.id }}]{% if memory.source %} ({{ memory.source }}){% endif %} {{ memory.text }}
{% endfor %}{% endif %}"""
"""Stands before a prompt that doesn't name `memories`."""
Schema = dict[str, Any]


class NothingFound(GxError):
    """An answer must cite what was found, and nothing was."""

    code = "memory.nothing"


def before(prompt: str, memories: Any) -> str:
    """What is put before the text of a prompt; empty where the prompt names what was found, or nothing was."""
    if NAME in templates.names_in(prompt):
        return ""
    block = templates.render(BEFORE_PROMPT, {NAME: memories}).strip()
    return f"{block}\n\n" if block else ""


def cited(schema: Any) -> Iterator[str]:
    """What the parts of a schema that say `x-from` name there, in order."""
    if isinstance(schema, dict):
        if FROM in schema:
            yield str(schema[FROM])
        for part in schema.values():
            yield from cited(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from cited(part)


def narrowed(schema: Schema, memories: Any) -> Schema:
    """The schema with the values that were found in the places that say `x-from`.

    Where nothing was found, lists of them are empty, and fields that may be left out are.

    :raises NothingFound: if an answer needs one all the same. :raises PrivateRead: if a value is withheld.
    """
    if not any(cited(schema)):
        return schema
    guard((memories,))
    guard(tuple(memories))
    made = _narrowed(schema, memories)
    if made is None:
        raise NothingFound(
            "the answer must cite what was found in the memory, and nothing was found",
            hint="add documents or memories to the namespace, or let the list of citations be empty",
        )
    return made


def unsearched(schema: Any) -> Any:
    """The schema with any text in the places that say `x-from`: what it is before anything is searched for."""
    if isinstance(schema, dict):
        return {"type": "string"} if FROM in schema else {key: unsearched(part) for key, part in schema.items()}
    return [unsearched(part) for part in schema] if isinstance(schema, list) else schema


def _narrowed(schema: Schema, memories: Sequence[Mapping[str, Any]]) -> Schema | None:
    """`None` for a schema that no value fits."""
    if FROM in schema:
        name = str(schema[FROM]).partition(".")[2]
        values = [value for value in dict.fromkeys(entry[name] for entry in memories) if value]
        kept = {key: part for key, part in schema.items() if key in ("title", "description")}
        return kept | {"enum": values} if values else None
    made = dict(schema)
    if isinstance(items := schema.get("items"), dict):
        made["items"] = _narrowed(items, memories)
        if made["items"] is None:
            if schema.get("minItems", 0):
                return None
            made = {key: part for key, part in made.items() if key != "items"} | {"maxItems": 0}
    for name in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(name), list):
            made[name] = [one for one in (_part(option, memories) for option in options) if one is not None]
            if not made[name]:
                return None
    if isinstance(fields := schema.get("properties"), dict):
        parts = {key: _part(part, memories) for key, part in fields.items()}
        if any(parts.get(key, True) is None for key in schema.get("required", ())):
            return None
        made["properties"] = {key: part for key, part in parts.items() if part is not None}
    return made


def _part(schema: Any, memories: Sequence[Mapping[str, Any]]) -> Any:
    return _narrowed(schema, memories) if isinstance(schema, dict) else schema


def file_of(path: str) -> str:
    """The name of a document without its folders, which are nobody's business where a prompt travels."""
    return path.rpartition("/")[2]


def source_of(path: str, heading: str, page: int | None, by: str) -> str:
    """Where a memory is from, in a few words: a document with its heading or page, or who wrote it."""
    file = file_of(path) or by
    place = heading or (f"page {page}" if page is not None else "")
    return f"{file}: {place}" if path and place not in ("", file) else file


def withheld(path: str = NAME) -> Withheld:
    """What stands for what was found, where a question or an answer to it is private."""
    return Withheld(path)
