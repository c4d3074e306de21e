"""A grammar that no answer can be constrained to is refused where it stands."""

from __future__ import annotations

import json
import sys

import pytest

from gx.core.errors import RecipeError
from gx.flow.parse import fingerprint_source, parse_recipe

RECIPE = """\
version: 1
name: n
models: {m: x}
agents:
  a:
    grammar: GRAMMAR
steps:
  - {id: s, agent: a, prompt: p}
"""
LARK, GBNF = 'start: "yes" | "no"', 'root ::= "yes" | "no"'


def recipe(grammar: str, more: str = "") -> str:
    return RECIPE.replace("GRAMMAR", json.dumps(grammar) + more)


@pytest.mark.parametrize(
    "grammar",
    [
        LARK,
        GBNF,
        "start: /[a-z]+/\n",
        "start[max_tokens=9]: /.*/",
        '# all\nroot ::= [a-z]+ "\\n"\n',
    ],
)
def test_both_syntaxes_are_taken_as_they_are_written(grammar: str) -> None:
    assert parse_recipe(recipe(grammar)).agents["a"].grammar == grammar


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("start: word", "its line 1, column 8: unknown name"),
        ('begin: "a"', "can't be used: .*start"),
        ('root ::= "a', "GBNF can't be read"),
        ("root ::= word", "GBNF can't be read"),
        ('root ::= start "-"\nstart ::= [0-9]+', "GBNF can't be read: Rule 'start' already exists"),
        ("yes or no", "can't be used"),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "GBNF can't be read"),
    ],
)
def test_what_is_no_grammar_is_refused_at_its_place(grammar: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason) as caught:
        parse_recipe(recipe(grammar))
    assert (caught.value.line, caught.value.col) == (6, 14) and "Lark" in caught.value.hint
    assert len(caught.value.message) < 400


def test_an_answer_has_one_shape() -> None:
    with pytest.raises(RecipeError, match="`output` or a `grammar`, got both"):
        parse_recipe(recipe(LARK, "\n    output: {type: string}"))
    with pytest.raises(RecipeError, match="no `stop` beside a `grammar`"):
        parse_recipe(recipe(LARK, "\n    sampling: {stop: x}"))
    with pytest.raises(RecipeError, match="`output` to choose from"):
        parse_recipe(recipe(LARK, "\n    choose: scored"))


def test_another_grammar_makes_another_recipe() -> None:
    made = [fingerprint_source(parse_recipe(recipe(grammar))) for grammar in (LARK, GBNF)]
    assert made[0] != made[1]


def test_where_nothing_is_computed_the_grammar_is_left_to_whoever_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert parse_recipe(recipe("start: word")).agents["a"].grammar == "start: word"
