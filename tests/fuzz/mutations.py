"""How recipes and inputs are spoilt: on the level of their text, and on that of their structure.

It knows YAML, Jinja and JSON Schema only as lists of oddities. Everything follows from the `random.Random` it is given.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import yaml

WORDS = [
    # YAML
    "*a", "&a ", "&a [*a]", "<<: *a", "!!python/object:os.system ", "!!binary ", "!!int ", "!x ", "---\n", "...\n",
    "%YAML 3.1\n", "? ", ": ", "- ", "|+9\n", ">-\n", "|\n", "# ", "\t", "@", "`", "~", "null", "yes", "on", "true",
    "0x1F", "0o17", "017", "1e400", "-1", "0", ".inf", "-.inf", ".nan", "1_000", "12:30:45", "2031-01-01", "9" * 400,
    '"', "'", '"\\ud800"', '"\\x00"', '"\\U0010ffff"', "{", "}", "[", "]", "[[[[", "{a: b", "\r", "\r\n", "\n\n",
    "\u2028", "\x85", "\ufeff", "\u202e", "🦆", "é", " ", "   ", "a: a: a", "[]", "{}", "''", "x" * 300,
    # what a recipe holds
    "inputs", "steps", "item", "items", "version", "needs: [triage, report]", "for_each: inputs", "reduce: notes",
    "when: false", "when: always()", "when: item.plan == 'pro'", "when: steps", "budget: {tokens: 1}",
    "budget: {tokens: 40}", "deadline: 1ms", "deadline: 1s", "timeout: 1ms", "timeout: 10ms",
    "retry: {limit: 1, backoff: 1ms}", "sampling: {top_k: 0}", "sampling: {temperature: 2, top_p: 0.1, min_p: 1}",
    "stop: ['']", "stop: [e, ' ']", "matrix: {a: [1, 2]}", "matrix: {a: []}", "combine: '{{ items }}'",
    "continue_on_error: true", "model: small", "context: 16", "context: 64", "swarm: x", "tool: x", "burst: {}",
    "output: triage", "params: {a: {type: integer}}", "params: {a: 1}",
    # Jinja
    "{{", "}}", "{%", "%}", "{#", "#}", "{{ }}", "{{ item }}", "{{ item.nothing }}", "{{ item['text'] }}",
    "{{ items }}", "{{ items[0].nothing }}", "{{ input }}", "{{ params.product }}", "{{ params }}", "{{ steps }}",
    "{{ steps.notes }}", "{{ index }}", "{{ item.text.__class__.__mro__ }}", "{{ item.text.format(item) }}",
    "{{ 9 ** 9 ** 9 }}", "{{ 'x' * 99999999 }}", "{{ 1 / 0 }}", "{{ 1 // 0.0 }}", "{{ 7 % 0 }}",
    "{{ '%99999999d' % 1 }}", "{{ item.text[::0] }}", "{{ [1] | slice(0) | list }}", "{{ 'ab' | batch(0) | list }}",
    "{{ 'x' | wordwrap(0) }}", "{{ item | tojson }}", "{{ item.text | indent(-1) }}", "{{ 'x'.zfill(99999999999) }}",
    "{{ 'x'.ljust(999999999999999999999) }}", "{{ [[]] | sum }}", "{{ item | sort }}",
    "{{ items | map(attribute='x') | list }}", "{{ item | groupby('x') }}", "{{ item | xmlattr }}", "{{ x }}",
    "{{ self }}", "{{ range(9) }}", "{{ cycler() }}", "{{ item | nothing }}", "{{ item is nothing }}", "{{ item() }}",
    "{{ -item }}", "{{ item < 1 }}", "{{ item.text | int ** 2 }}", "{{ item.text.encode('utf-16').decode('utf-8') }}",
    "{{ '\\ud800' }}", "{% for x in items %}", "{% endfor %}",
    "{% for x in item recursive %}{{ loop(item) }}{% endfor %}", "{% if %}",
    "{% for a in item.text %}{% for b in item.text %}{{ a }}{% endfor %}{% endfor %}", "{% raw %}", "{% endraw %}",
    "{% include 'x' %}", "{% extends 'x' %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% set item = 1 %}",
    "{% block a %}{% endblock %}", "{% call x() %}{% endcall %}", "{% filter upper %}x{% endfilter %}",
    "{{ " + "(" * 200, "{{ " + "-" * 3000 + "1 }}", "{{ [" + "[" * 90 + "]" * 90 + "] }}", "{% do item %}",
    "{{ loop }}", "{{ caller() }}",
    # JSON Schema
    "output: {}", "output: {type: string}", "output: {type: objekt}", "output: {$ref: '#'}", "output: {enum: []}",
    "output: {enum: [a, 1, null, {b: [2]}]}", "output: {const: null}", "output: {type: array, minItems: 999999}",
    "output: {not: {}}", "output: {type: string, minLength: 5, maxLength: 2}",
    "output: {type: string, maxLength: 999999999}", "output: {oneOf: []}", "output: {type: string, pattern: '('}",
    "output: {type: string, pattern: '(?=a)b'}", "output: {type: integer, multipleOf: 0}",
    "output: {type: string, pattern: '(a*)*{1000}'}", "output: {type: number, minimum: 2, maximum: 1}",
    "output: {type: boolean}", "output: {type: object, required: [a]}",
    "output: {allOf: [{type: string}, {type: integer}]}", "output: {if: {}, then: {}}",
    "output: {type: array, items: {$ref: '#'}}", "output: {type: string, format: date-time}", "output: {type: object}",
    "output: {properties: {a: {type: [string, 'null']}}, patternProperties: {'^b': {}}}", "output: {anyOf: [{}, {}]}",
    "output: {x-guidance: {whitespace_flexible: 7}}", "output: {type: object, properties: {a: true, b: false}}",
    "additionalProperties: 3",
]  # fmt: skip

ROWS = [
    b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\r", b"\r\n", b"\n\n\n", b"\n", b"\x1a",
    b"\\", b'"', b"'", b",", b"\t", b"{", b"}", b"[", b"]", b":", b"null", b"true", b"NaN", b"-Infinity", b"1e999",
    b"9" * 5000, b"-0", b"[" * 3000, b'{"a":' * 2000, b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'{"id": null}',
    b'{"id": [1]}', b'{"id": true}', b'{"id": ""}', b'{"id": 1e99}', b'{"id": "row-1"}\n{"id": "row-1"}\n', b"{}",
    b"[]", b'"text"', b"17", b'{"text": {"text": []}}', b'{"text": null}', b'{"text": 3}', b'{"id": "x\\ny"}',
    b'{"custom_id": "a", "body": {"messages": []}}',
    b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}}',
    b'{"custom_id": "a", "body": {"messages": [{"role": "tool", "content": 1}]}}', b'{"custom_id": "a", "body": 7}',
    b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": -1}}',
    b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": 1}}}',
    b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "hi"}], "response_format": []}}',
    b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "hi"}], "stop": [1]}}',
    b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "hi"}], "temperature": 9, "tools": [1]}}',
    b'{"custom_id": "a", "body": {"messages": [7]}}', b'{"custom_id": 5, "body": {"messages": {"role": 1}}}',
    "{“id”: 1}".encode(), "🦆".encode(), b"\xe2\x80\xa8", b"x" * 5000, "id,text\n".encode("utf-16"), b"id,id\n",
    b'"a\nb",c\n', b'a"b,c\n',
]  # fmt: skip

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3.5, 1e308, 10**30, "", " ", "x", "inputs", "{{ item }}", "{{ x }}", "{{",
    "always()", "1s", "1ms", "0s", "1x", "a b", "../x", "-", [], {}, [[]], [None], ["x", "x"], {"x": "x"}, {"": None},
    "é", "\u2028", "\x00", {"type": "string"}, {"type": "object", "properties": {}}, ["notes", "digest"], "x" * 5000,
    {"tokens": 1}, "tiny", "small",
]  # fmt: skip


def spoil_text(chance: random.Random, text: bytes, words: list[bytes]) -> bytes:
    """One to four changes to the text: bytes, lines and words."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        text = chance.choice(_TEXT)(chance, text, words)
    return text


def spoil_tree(chance: random.Random, text: bytes) -> bytes:
    """The same document with one to four changes to its structure, as YAML or as JSON."""
    tree = yaml.safe_load(text)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        places = list(_places(tree))
        holder, key = chance.choice(places)
        chance.choice(_TREE)(chance, holder, key, places)
    try:
        if chance.random() < 0.3:
            return json.dumps(tree, ensure_ascii=chance.random() < 0.5, indent=chance.choice((None, 2))).encode()
        flow = chance.choice((None, False))
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=flow).encode()
    except (ValueError, RecursionError, yaml.YAMLError):  # a tree that holds itself
        return text


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _flip(chance: random.Random, text: bytes, words: list[bytes]) -> bytes:
    if not text:
        return b"\n"
    at = chance.randrange(len(text))
    return text[:at] + bytes([text[at] ^ (1 << chance.randrange(8))]) + text[at + 1 :]


def _cut(chance: random.Random, text: bytes, words: list[bytes]) -> bytes:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at + chance.choice((1, 3, 10, 100)) :]


def _end(chance: random.Random, text: bytes, words: list[bytes]) -> bytes:
    return text[: chance.randrange(len(text) + 1)]


def _insert(chance: random.Random, text: bytes, words: list[bytes]) -> bytes:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(words) + text[at:]


def _replace_value(chance: random.Random, text: bytes, words: list[bytes]) -> bytes:
    """A word in the place of what stands behind a colon or a comma."""
    marks = [at for at, byte in enumerate(text) if byte in b":,["]
    if not marks:
        return _insert(chance, text, words)
    at = chance.choice(marks) + 1
    end = min((found for stop in b"\n,]}" if (found := text.find(bytes([stop]), at)) >= 0), default=len(text))
    return text[:at] + b" " + chance.choice(words) + text[end:]


def _lines(change: Callable[[random.Random, list[bytes], int], None]) -> Callable[..., bytes]:
    def changed(chance: random.Random, text: bytes, words: list[bytes]) -> bytes:
        lines = text.splitlines(keepends=True) or [b""]
        change(chance, lines, chance.randrange(len(lines)))
        return b"".join(lines)

    return changed


def _drop(chance: random.Random, lines: list[bytes], at: int) -> None:
    del lines[at : at + chance.choice((1, 1, 2, 5))]


def _double(chance: random.Random, lines: list[bytes], at: int) -> None:
    lines[at:at] = lines[at : at + chance.choice((1, 1, 3))] * chance.choice((1, 1, 50))


def _swap(chance: random.Random, lines: list[bytes], at: int) -> None:
    other = chance.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def _indent(chance: random.Random, lines: list[bytes], at: int) -> None:
    line = lines[at]
    lines[at] = chance.choice((b"  " + line, b" " + line, b"\t" + line, line.lstrip(), line[2:]))


def _add_line(chance: random.Random, lines: list[bytes], at: int) -> None:
    """A line of the dictionary, at the depth of the line before."""
    depth = len(lines[at]) - len(lines[at].lstrip())
    word = chance.choice(WORDS).encode("utf-8", "surrogatepass")
    lines.insert(at + chance.randrange(2), b" " * depth + word + b"\n")


_TEXT: list[Callable[..., bytes]] = [
    _flip, _cut, _end, _insert, _insert, _insert, _replace_value, _replace_value, _replace_value, _lines(_drop),
    _lines(_double), _lines(_swap), _lines(_indent), _lines(_add_line), _lines(_add_line),
]  # fmt: skip


# ── structure ────────────────────────────────────────────────────────────────────────────────────────────────────────

Place = tuple[Any, Any]


def _places(tree: Any) -> list[Place]:
    """Every (holder, key) of a tree of mappings and lists."""
    found: list[Place] = []
    waiting, seen = [tree], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        pairs: list[Place] = list(node.items()) if isinstance(node, dict) else []
        pairs += enumerate(node) if isinstance(node, list) else []
        found.extend((node, key) for key, _ in pairs)
        waiting.extend(child for _, child in pairs)
    return found or [([tree], 0)]


def _set(chance: random.Random, holder: Any, key: Any, places: list[Place]) -> None:
    holder[key] = json.loads(json.dumps(chance.choice(VALUES)))


def _remove(chance: random.Random, holder: Any, key: Any, places: list[Place]) -> None:
    del holder[key]


def _rename(chance: random.Random, holder: Any, key: Any, places: list[Place]) -> None:
    if isinstance(holder, dict):
        other = chance.choice([name for _, name in places])
        holder[chance.choice((other, f"{key}s", str(key)[:-1], 7, None, "é", " "))] = holder.pop(key)


def _exchange(chance: random.Random, holder: Any, key: Any, places: list[Place]) -> None:
    other, name = chance.choice(places)
    if key in holder if isinstance(holder, dict) else key < len(holder):
        holder[key], other[name] = other[name], holder[key]


def _copy(chance: random.Random, holder: Any, key: Any, places: list[Place]) -> None:
    other, name = chance.choice(places)
    copied = json.loads(json.dumps(holder[key], default=str)) if not isinstance(holder[key], set) else None
    if isinstance(other, dict):
        other[chance.choice((name, str(key), "x"))] = copied
    else:
        other.insert(name, copied)


def _wrap(chance: random.Random, holder: Any, key: Any, places: list[Place]) -> None:
    holder[key] = chance.choice(([holder[key]], {str(key): holder[key]}, [holder[key]] * 3, str(holder[key])))


def _deepen(chance: random.Random, holder: Any, key: Any, places: list[Place]) -> None:
    for _ in range(chance.choice((3, 40, 60))):
        holder[key] = [holder[key]]


_TREE: list[Callable[..., None]] = [_set, _set, _set, _remove, _rename, _exchange, _copy, _copy, _wrap, _deepen]
