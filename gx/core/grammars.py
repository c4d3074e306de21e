"""In which of two syntaxes a context-free grammar is written: Lark, as llguidance has it, or llama.cpp's GBNF."""

from __future__ import annotations

import re

_RULE = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)


def is_gbnf(grammar: str) -> bool:
    """Whether it has a rule as GBNF writes them, `name ::= …`; in Lark they are `name: …`."""
    return _RULE.search(grammar) is not None
