"""The shapes that an answer may be asked to have: values, as a request carries them."""

from __future__ import annotations

from typing import Any

from gx.core.message import Value


class JsonSchema(Value, frozen=True, kw_only=True, tag="json_schema"):
    """A JSON document that fits a schema. Its fields come in the schema's order."""

    schema: dict[str, Any]


class Regex(Value, frozen=True, kw_only=True, tag="regex"):
    """A text that all of a regular expression matches, in the syntax of https://docs.rs/regex, without look-around."""

    pattern: str


class Choice(Value, frozen=True, kw_only=True, tag="choice"):
    """One of some texts."""

    options: tuple[str, ...]


class Lark(Value, frozen=True, kw_only=True, tag="lark"):
    """A text of a context-free grammar, as llguidance writes them: a Lark grammar that begins with `start`."""

    grammar: str


class Gbnf(Value, frozen=True, kw_only=True, tag="gbnf"):
    """A text of a context-free grammar, as llama.cpp writes them: its first rule is `root`."""

    grammar: str


Shape = JsonSchema | Regex | Choice | Lark | Gbnf
"""What can be asked for."""
SUBJECTS: dict[type[Shape], str] = {
    JsonSchema: "output schema", Regex: "regular expression", Choice: "choice",
    Lark: "Lark grammar", Gbnf: "GBNF grammar",
}  # fmt: skip
"""What each is called in an error."""
