"""Whether an agent's `grammar` is one that an answer can be constrained to: in Lark, or in llama.cpp's GBNF.

llguidance says so, by which answers are constrained: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
Where it isn't installed, as on a machine that computes nothing itself, whoever computes says it.
"""

from __future__ import annotations

import re

from gx.core.grammars import is_gbnf
from gx.flow.source import Node

_HINT = (
    "Lark begins with `start: …`, GBNF with `root ::= …`; llguidance has the syntax: "
    "https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md"
)


def check_grammar(node: Node) -> None:
    """Check the grammar at `node`, a text. :raises RecipeError: there, if it is none."""
    try:
        from llguidance import LLMatcher
        from llguidance.gbnf_to_lark import gbnf_to_lark
    except ImportError:
        return
    lark: str = node.value
    if is_gbnf(lark):
        try:
            lark = gbnf_to_lark(lark)
        except Exception as error:  # noqa: BLE001 - it raises nothing more precise
            raise node.error(f"expected a grammar, got one whose GBNF can't be read: {error}", _HINT) from None
    reason: str = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(lark))
    if reason:
        what = re.sub(r"^at (\d+)\((\d+)\)", r"its line \1, column \2", reason.strip().splitlines()[0])
        raise node.error(f"expected a grammar, got one that can't be used: {what}", _HINT)
