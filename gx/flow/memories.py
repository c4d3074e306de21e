"""What was found in the memory, as a template has it, and as an answer can cite it.

`memories` is a list of entries, the best first; each has a short `id` ("m1"), its `text` and where that is from. A part
of an output schema that says `x-from: memories.id` stands for one of those that were found, so a citation that isn't
among them can't be written. It knows neither the search nor the log.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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
_DEFINED = ("$defs", "definitions")
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
    made = _narrowed(schema, _Found(memories, _void(schema, memories)))
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


class _Found(NamedTuple):
    """What was found, and the references to definitions of the schema that no value fits for it."""

    memories: Sequence[Mapping[str, Any]]
    void: frozenset[str] = frozenset()


def _void(schema: Schema, memories: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The definitions that nothing fits, as they are referred to; one may be so because it refers to another one."""
    found = _Found(memories)
    while True:
        void = {
            f"#/{name}/{key}"
            for name in _DEFINED
            for key, part in schema.get(name, {}).items()
            if isinstance(part, dict) and _narrowed(part, found) is None
        }
        if void == found.void:
            return found.void
        found = _Found(memories, frozenset(void))


def _narrowed(schema: Schema, found: _Found) -> Schema | None:
    """`None` for a schema that no value fits."""
    if FROM in schema:
        name = str(schema[FROM]).partition(".")[2]
        values = [value for value in dict.fromkeys(entry[name] for entry in found.memories) if value]
        kept = {key: part for key, part in schema.items() if key in ("title", "description")}
        return kept | {"enum": values} if values else None
    if schema.get("$ref") in found.void:
        return None
    made = dict(schema)
    for name in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(name), list):
            made[name] = [one for one in (_part(option, found) for option in options) if one is not None]
            if not made[name]:
                return None
    if isinstance(parts := schema.get("allOf"), list):
        made["allOf"] = [_part(part, found) for part in parts]
        if None in made["allOf"]:
            return None
    if _has_list(schema) and (made := _list(made, found)).get("minItems", 0) > made.get("maxItems", math.inf):
        return None
    if isinstance(fields := schema.get("properties"), dict):
        made["properties"] = _fitting(fields, found)
        if any(key in fields and key not in made["properties"] for key in schema.get("required", ())):
            return None
    for name in _DEFINED:
        if isinstance(fields := schema.get(name), dict):
            made[name] = _fitting(fields, found)
    if isinstance(fields := schema.get("patternProperties"), dict):
        made["patternProperties"] = dict.fromkeys(fields, False) | _fitting(fields, found)
    for name in ("additionalProperties", "additionalItems"):
        if isinstance(rest := schema.get(name), dict):
            made[name] = _narrowed(rest, found) or False
    return made


def _has_list(schema: Schema) -> bool:
    return isinstance(schema.get("items"), dict | list) or isinstance(schema.get("prefixItems"), list)


def _list(schema: Schema, found: _Found) -> Schema:
    """A schema of lists: one ends before the first element that nothing fits."""
    if isinstance(schema.get("items"), list):  # as drafts before 2020-12 write `prefixItems`
        schema = {key: part for key, part in schema.items() if key != "items"} | {"prefixItems": schema["items"]}
    firsts = [_part(part, found) for part in schema.get("prefixItems", ())]
    rest = _part(schema.get("items", True), found)
    if None not in firsts and rest is not None:
        return schema | ({"prefixItems": firsts} if firsts else {}) | ({"items": rest} if "items" in schema else {})
    firsts = firsts[: firsts.index(None)] if None in firsts else firsts
    most = min(len(firsts), schema.get("maxItems", len(firsts)))
    kept = {key: part for key, part in schema.items() if key not in ("items", "prefixItems")}
    return kept | ({"prefixItems": firsts} if firsts else {}) | {"maxItems": most}


def _fitting(fields: Mapping[str, Any], found: _Found) -> dict[str, Any]:
    """The schemas of names, without those that nothing fits."""
    parts = {key: _part(part, found) for key, part in fields.items()}
    return {key: part for key, part in parts.items() if part is not None}


def _part(schema: Any, found: _Found) -> Any:
    return _narrowed(schema, found) if isinstance(schema, dict) else schema


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
