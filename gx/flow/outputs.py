"""Whether an agent's `output` is a JSON Schema that an answer can be constrained to.

A structural check with places, cheap enough for every parse. What llguidance 1.9 can't decode is refused by name; it
has the last word on the rest (options of `oneOf` that overlap, properties that are counted, patterns with an error).
Reference: JSON Schema draft-07 and 2020-12, the parts that describe values.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from gx.core.errors import RecipeError
from gx.flow.source import Node, suggest

TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
_OF_NAMES = ("properties", "patternProperties", "definitions", "$defs")
_OF_ONE = ("additionalProperties", "additionalItems")
_OF_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_SIZES = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_LEAST, _MOST = -(2**63), 2**64 - 1
"""The integers that msgpack has, in which a schema travels to the bench."""
_OTHERS = (
    "type", "enum", "const", "items", "required", "pattern", "format", "$ref", "title", "description", "default",
    "examples", "example", "deprecated", "readOnly", "$schema", "$id", "$comment",
)  # fmt: skip
_IN_WORDS = "leave it out, and say it in the persona or the prompt"
_CHOICE = "write the cases as `anyOf`, each with its own `properties` and `required`"
_LISTED = "write `additionalProperties: false`, or list the fields in `properties`"
_ITEMS = "describe every element in `items`, or the first ones in `prefixItems`"
_REF = "refer to a part of this schema with `$ref: '#/$defs/name'`"
_REFUSED = {
    "not": "say what is allowed with `enum`, `anyOf` or `pattern`",
    "if": _CHOICE, "then": _CHOICE, "else": _CHOICE,
    "dependencies": _CHOICE, "dependentRequired": _CHOICE, "dependentSchemas": _CHOICE,
    "propertyNames": "give the names a pattern with `patternProperties`",
    "unevaluatedProperties": _LISTED, "unevaluatedItems": _ITEMS,
    "uniqueItems": _IN_WORDS, "contains": _ITEMS, "minContains": _ITEMS, "maxContains": _ITEMS,
    "$dynamicRef": _REF, "$dynamicAnchor": _REF, "$recursiveRef": _REF, "$recursiveAnchor": _REF,
}  # fmt: skip
"""Keywords that generation can't be constrained by, and what to write instead."""
_KNOWN = (*_OF_NAMES, *_OF_ONE, *_OF_MANY, *(name for pair in _SIZES for name in pair), *_BOUNDS, *_OTHERS, *_REFUSED)
_FORMATS = (
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid", "unknown",
)  # fmt: skip
_REGEX = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:<[=!]|[=!>#]|P=)", re.DOTALL)
_NO_REGEX = (
    (("(?=", "(?!", "(?<=", "(?<!"), "look-around"),
    (("\\b", "\\B"), "a word boundary"),
    ((*(f"\\{digit}" for digit in range(1, 10)), "\\k", "(?P="), "a back-reference"),
    (("(?>",), "an atomic group"),
    (("(?#",), "a comment"),
    (("\\Z",), "`\\Z`"),
)
"""What other regular expressions have and those of llguidance (https://docs.rs/regex/latest/regex/#syntax) have not."""


def check_output(root: Node) -> None:
    """Check the schema at `root`, a mapping. :raises RecipeError: at the part of it that can't be."""
    _check(root, root)
    _check_integers(root)


_OPEN = ("additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref")


def is_choice(schema: Any) -> bool:
    """Whether a schema leaves nothing but choices: an enum, or an object of enums."""
    if not isinstance(schema, dict):
        return False
    fields = [schema] if "enum" in schema else list((schema.get("properties") or {}).values())
    return bool(fields) and all(isinstance(field, dict) and field.get("enum") for field in fields)


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` on objects that name their properties and don't say.

    To JSON Schema such an object may have any other field too; somebody who lists the fields of an answer means these.
    """
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for name in ("properties", "$defs", "definitions"):
        if isinstance(made.get(name), dict):
            made[name] = {key: closed(part) for key, part in made[name].items()}
    for name in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(made.get(name), list):
            made[name] = [closed(part) for part in made[name]]
    if "items" in made:
        made["items"] = closed(made["items"])
    if "properties" in made and not any(name in made for name in _OPEN):
        made["additionalProperties"] = False
    return made


def _check(node: Node, root: Node) -> None:
    if node.kind == "boolean":
        return
    if node.kind != "mapping":
        raise node.error(f"expected a JSON Schema (a mapping), got {node}", "write `{type: string}`, for example")
    for key, key_node in node.keys.items():
        close = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.8)
        if key not in _KNOWN and close:
            raise key_node.error(f"expected a keyword of JSON Schema, got `{key}`", f"did you mean `{close[0]}`?")
        if key in _REFUSED:
            raise _undecodable(key_node, f"`{key}`", _REFUSED[key])
    parts: dict[str, Node] = node.value
    if "type" in parts:
        _check_type(parts["type"])
    for key in _OF_NAMES:
        if key in parts:
            for child in _mapping(parts[key]).values():
                _check(child, root)
    for key in (*_OF_ONE, *_OF_MANY, "items"):
        if key not in parts:
            continue
        if key in _OF_MANY or (key == "items" and parts[key].kind == "list"):
            for child in _list(parts[key], "JSON Schemas"):
                _check(child, root)
        else:
            _check(parts[key], root)
    if "enum" in parts:
        _list(parts["enum"], "values")
    _check_sizes(parts)
    _check_required(parts)
    if "pattern" in parts:
        if parts["pattern"].kind != "text":
            raise parts["pattern"].error(f"expected a regular expression, got {parts['pattern']}")
        _check_pattern(parts["pattern"])
    for key_node in parts["patternProperties"].keys.values() if "patternProperties" in parts else ():
        _check_pattern(key_node)
    _check_format(parts)
    if "$ref" in parts:
        _check_ref(parts["$ref"], root)


def _undecodable(node: Node, what: str, hint: str) -> RecipeError:
    got = f"expected what an answer can be constrained to, got {what}, which generation doesn't support"
    return node.error(got, hint)


def _check_pattern(node: Node) -> None:
    for token in _REGEX.findall(str(node.value)):
        for refused, name in _NO_REGEX:
            if token in refused:
                raise _undecodable(node, f"a pattern with {name}", "write a pattern without it")


def _check_format(parts: dict[str, Node]) -> None:
    if "format" not in parts or parts["format"].value in _FORMATS:
        return
    types = parts["type"].plain() if "type" in parts else ["string"]
    if "string" in types:  # of anything else it says nothing
        hint = suggest(str(parts["format"].value), _FORMATS, "formats")
        raise _undecodable(parts["format"], f"the format {parts['format'].value!r}", hint)


def _check_type(node: Node) -> None:
    for child in _list(node, "types") if node.kind == "list" else [node]:
        if child.kind != "text" or child.value not in TYPES:
            hint = 'write "null" in quotes' if child.kind == "null" else suggest(str(child.value), TYPES, "types")
            raise child.error(f"expected a type of JSON Schema, got {child}", hint)


def _check_sizes(parts: dict[str, Node]) -> None:
    for low, high in _SIZES:
        for key in (low, high):
            if key in parts and (parts[key].kind != "integer" or parts[key].value < 0):
                raise parts[key].error(f"expected a whole number, at least 0, got {parts[key]}")
        if low in parts and high in parts and parts[low].value > parts[high].value:
            raise parts[low].error(f"expected `{low}` to be at most `{high}`, got {parts[low]} and {parts[high]}")
    for key in _BOUNDS:
        if key in parts and parts[key].kind not in ("integer", "number"):
            raise parts[key].error(f"expected a number, got {parts[key]}")
    if "minimum" in parts and "maximum" in parts and parts["minimum"].value > parts["maximum"].value:
        got = f"{parts['minimum']} and {parts['maximum']}"
        raise parts["minimum"].error(f"expected `minimum` to be at most `maximum`, got {got}", "change one of them")


def _check_integers(node: Node) -> None:
    """Wherever they stand: as a bound, in an enum, or within a value."""
    if node.kind == "integer" and not _LEAST <= node.value <= _MOST:
        hint = "write a long id as a text, in quotes, with `type: string`; leave out a bound that is so far away"
        raise node.error(f"expected a whole number of at most 64 bits, got {node}", hint)
    for child in node.value.values() if node.kind == "mapping" else node.value if node.kind == "list" else ():
        _check_integers(child)


def _check_required(parts: dict[str, Node]) -> None:
    if "required" not in parts:
        return
    if parts["required"].kind != "list":
        raise parts["required"].error(f"expected a list of property names, got {parts['required']}")
    is_closed = "additionalProperties" in parts and parts["additionalProperties"].value is False
    names = _mapping(parts["properties"]) if "properties" in parts else {}
    for child in parts["required"].value:
        if child.kind != "text":
            raise child.error(f"expected the name of a property, got {child}")
        if is_closed and child.value not in names and "patternProperties" not in parts:
            raise child.error(
                f"expected a property of this schema, got {child}", suggest(child.value, names, "properties")
            )


def _check_ref(node: Node, root: Node) -> None:
    if node.kind != "text" or not node.value.startswith("#"):
        raise node.error(f"expected a reference within this schema, such as #/$defs/name, got {node}")
    target = root
    for part in node.value[1:].strip("/").split("/") if node.value.strip("#/") else []:
        name = part.replace("~1", "/").replace("~0", "~")
        step: str | int = int(name) if target.kind == "list" and name.isascii() and name.isdigit() else name
        found = target.at(step)
        if found is target:
            raise node.error(f"expected a reference to a part of this schema, got {node}", f"there is no `{name}`")
        target = found


def _mapping(node: Node) -> dict[str, Node]:
    if node.kind != "mapping":
        raise node.error(f"expected a mapping of names and JSON Schemas, got {node}")
    value: dict[str, Node] = node.value
    return value


def _list(node: Node, what: str) -> list[Node]:
    if node.kind != "list" or not node.value:
        raise node.error(f"expected a list of {what}, got {node if node.kind != 'list' else 'an empty one'}")
    value: list[Node] = node.value
    return value
