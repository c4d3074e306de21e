"""A persona: who an agent is, as it opens each of its chats.

It may be a text, or a mapping with traits, examples and sampling, which may be a file of its own (`gx.flow.packed`). To
a model it is always the same: one system message, the text with the traits under it, and then a pair of messages for
each example, as if the model had answered so before. These are alike in every chat of the agent, so an engine that
shares prefixes computes them once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gx.core.message import Message, Sampling
from gx.core.recipe import Agent, Example
from gx.flow import memories, templates
from gx.flow.scope import Scope, check_template
from gx.flow.source import Node

Read = str | Mapping[str, Any]
"""What the grammar reads where a persona stands."""


def composed(read: Read) -> str:
    """The template of the system message: the text, then, under `Traits:`, a line for each trait."""
    if isinstance(read, str):
        return read
    text: str = read["text"]
    traits = read.get("traits")
    if traits is None:
        return text
    lines = [f"{name}: {what}" for name, what in traits.items()] if isinstance(traits, dict) else traits
    return "\n".join([text.rstrip(), "", "Traits:", *(f"- {line}" for line in lines)])


def examples(read: Read, schema: Any) -> tuple[Example, ...]:
    """Its examples as messages say them. An answer to a `schema` is JSON, in the order and layout of a real one."""
    if isinstance(read, str):
        return ()
    return tuple(
        Example(
            input=_text(one["input"]),
            output=_text(one["output"]) if schema is None else _json(_in_order(one["output"], schema)),
        )
        for one in read.get("examples", ())
    )


def sampling(read: Read, own: Mapping[str, Any]) -> Sampling:
    """How its agent's tokens are drawn: what is the agent's `own` stands above what the persona says."""
    return Sampling(**{**({} if isinstance(read, str) else read.get("sampling", {})), **own})


def is_private(read: Read) -> bool:
    """Whether it never leaves this machine, and so neither does a turn that begins with it."""
    return not isinstance(read, str) and bool(read.get("private", False))


def opening(agent: Agent, params: Mapping[str, Any], matrix: Mapping[str, Any]) -> tuple[Message, ...]:
    """The messages that each chat of the agent begins with. :raises TemplateFailure: if they can't be rendered."""
    text = templates.render(agent.persona, {"params": params, "matrix": matrix}) if agent.persona else ""
    made = [Message(role="system", content=text)] if text.strip() else []
    for one in agent.examples:
        made += [Message(role="user", content=one.input), Message(role="assistant", content=one.output)]
    return tuple(made)


def check_persona(node: Node, agent: Agent, scope: Scope) -> None:
    """Check the persona of the agent at `node`. :raises RecipeError: at a template or an example that can't be."""
    persona = node.at("persona")
    if "persona" not in node.value:
        return
    if persona.kind != "mapping":
        check_template(persona, scope)
        return
    traits = persona.at("traits")
    stated = [] if traits is persona else list(traits.value.values() if traits.kind == "mapping" else traits.value)
    for template in (persona.at("text"), *stated):
        check_template(template, scope)
    if agent.output is not None and "examples" in persona.value:
        for example in persona.at("examples").value:
            _check_fits(example.at("output"), agent, node.at("output"))


def _check_fits(output: Node, agent: Agent, schema: Node) -> None:
    """Whether an answer of the agent could be this one. What was found in a memory may be any text here.

    A pattern that only the engine reads, or a schema without an end, isn't decided here.
    """
    from jsonschema import Draft201909Validator, Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    wanted = memories.unsearched(agent.output)
    validator = Draft202012Validator if '"prefixItems"' in json.dumps(wanted) else Draft201909Validator
    try:
        error: Any = best_match(validator(wanted).iter_errors(output.plain()))
    except (re.error, RecursionError, Unresolvable):
        return
    if error is None:
        return
    place = f"{schema.source.file}:{schema.line}:{schema.col}"
    is_quoted = output.kind == "text" and output.value.lstrip().startswith(("{", "["))
    hint = "write it as a mapping, without quotes around it" if is_quoted else "change the example, or the schema"
    expected = f"expected an output that agent `{agent.name}` could give ({place}), got one that can't be"
    raise output.at(*error.absolute_path).error(f"{expected}: {error.message}", hint)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # laid out as a constrained answer is


def _in_order(value: Any, schema: Any) -> Any:
    """The value with its fields in the schema's order, as an answer has them; others come after."""
    if not isinstance(schema, dict):
        return value
    if isinstance(value, list):
        return [_in_order(item, schema.get("items")) for item in value]
    if not isinstance(value, dict):
        return value
    fields: dict[str, Any] = schema.get("properties") or {}
    names = [name for name in fields if name in value] + [name for name in value if name not in fields]
    return {name: _in_order(value[name], fields.get(name)) for name in names}
