"""Answers of a shape: JSON Schema, regular expressions, choices and grammars, through llguidance.

`grammars` compiles a `shape`; a `constraint` follows one answer through it, and `numerals` the numbers in it. Of JSON
Schema llguidance takes most, and says of the rest that it is wrong, mostly not where: `blame` finds the keyword, and
`refusals` says it. What it takes and gets wrong is in `gaps`, what it can't see through in `references`; `schema` is
the tree that these walk.
"""

from edge.engine.shapes.constraint import Constraint
from edge.engine.shapes.grammars import Grammars, context_free
from edge.engine.shapes.shape import Choice, Gbnf, JsonSchema, Lark, Regex, Shape

__all__ = ["Choice", "Constraint", "Gbnf", "Grammars", "JsonSchema", "Lark", "Regex", "Shape", "context_free"]
