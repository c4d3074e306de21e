"""A choice needs options: whoever asks for one of anything else is told where."""

from __future__ import annotations

import pytest

from gx.core.errors import RecipeError
from gx.flow.parse import parse_recipe

RECIPE = """\
version: 1
name: sort
models: {{m: smollm2}}
agents:
  a:
    model: m
    output: {output}
    choose: {choose}
steps:
  - {{id: s, for_each: inputs, agent: a, prompt: "{{{{ item.text }}}}"}}
"""
ENUMS = "{type: object, properties: {category: {enum: [a, b]}, urgent: {enum: [true, false]}}}"


@pytest.mark.parametrize("output", ["{enum: [a, b]}", ENUMS])
def test_enums_can_be_chosen_from(output: str) -> None:
    recipe = parse_recipe(RECIPE.format(output=output, choose="calibrated"))
    assert recipe.agents["a"].choose == "calibrated"


@pytest.mark.parametrize(
    "output", ["{type: string}", "{type: object, properties: {a: {enum: [x]}, b: {type: string}}}", "{type: object}"]
)
def test_anything_else_cannot_and_the_place_is_told(output: str) -> None:
    with pytest.raises(RecipeError, match="an `output` to choose from") as caught:
        parse_recipe(RECIPE.format(output=output, choose="scored"))
    assert (caught.value.line, caught.value.col) == (8, 13)


def test_there_are_two_ways_to_choose() -> None:
    with pytest.raises(RecipeError, match="calibrated"):
        parse_recipe(RECIPE.format(output=ENUMS, choose="calibrate"))


@pytest.mark.parametrize("logprobs", [0, 3])
def test_a_choice_writes_no_tokens_to_tell_of_and_the_place_is_told(logprobs: int) -> None:
    recipe = RECIPE.format(output=ENUMS, choose="scored") + "\n"
    recipe = recipe.replace("    model: m\n", f"    model: m\n    sampling: {{seed: 1, logprobs: {logprobs}}}\n")
    with pytest.raises(RecipeError, match="expected no `logprobs` beside `choose`, got") as caught:
        parse_recipe(recipe)
    assert (caught.value.line, caught.value.col) == (7, 35)
    parse_recipe(recipe.replace("    choose: scored\n", ""))
