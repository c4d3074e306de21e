"""A recipe's rules become values, or an error that points at what is wrong, their queries' columns among it."""

from __future__ import annotations

import pytest

from gx.core import recipe as r
from gx.core.errors import RecipeError
from gx.flow.parse import fingerprint_source, parse_recipe
from gx.run.rulecheck import check_queries

RECIPE = """\
version: 1
name: n
models: {m: x, other: y}
agents: {a: {model: m}, b: {model: m}}
steps:
  - {id: s, agent: a, prompt: x, matrix: {k: [1, 2]}}
  - {id: t, agent: a, reduce: s, prompt: x}
rules:
  - id: one
    query: |
      SELECT count(*) > 3
      FROM tasks WHERE run = $run
    do: DO
"""


def rule(do: str, *, more: str = "") -> r.Rule:
    return parse_recipe(RECIPE.replace("DO", do) + more).rules[0]


def refusal(do: str, old: str = "", new: str = "", more: str = "") -> RecipeError:
    text = RECIPE.replace("DO", do).replace(old, new) + more
    with pytest.raises(RecipeError) as caught:
        check_queries(parse_recipe(text), text, file="recipe.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("{pause: s}", r.Pause(step="s")),
        ("{continue: s}", r.Continue(step="s")),
        ("{concurrency: 0}", r.Limit(concurrency=0)),
        ("{route: {step: s, agent: b}}", r.Route(step="s", agent="b")),
        ("{route: {step: s, model: other}}", r.Route(step="s", model="other")),
        ("{burst: much to do}", r.Burst(reason="much to do")),
        ("{stop: enough}", r.Stop(reason="enough")),
        ("{ask: Well}", r.Ask(text="Well")),
        ("{ask: {text: Well, choices: [less, stop]}}", r.Ask(text="Well", choices=("less", "stop"))),
    ],
)
def test_each_action_becomes_its_value(text: str, action: r.Action) -> None:
    assert rule(text).do == action
    assert rule(text).cooldown_s == 10
    assert rule(text, more="    cooldown: 2m\n").cooldown_s == 120


@pytest.mark.parametrize(
    ("do", "place", "says", "hint"),
    [
        ("{stpo: x}", (13, 10), "`stpo`", "did you mean `stop`?"),
        ("{}", (13, 9), "one action", "pause, continue"),
        ("{stop: x, pause: s}", (13, 19), "`stop` and `pause`", "one more rule"),
        ("{pause: ss}", (13, 17), "`ss`", "did you mean `s`?"),
        ("{route: {step: u, agent: a}}", (13, 24), "`u`", "the steps are: s, t"),
        ("{route: {step: s, agent: c}}", (13, 34), "`c`", "the agents are: a, b"),
        ("{route: {step: s, model: othr}}", (13, 34), "`othr`", "did you mean `other`?"),
        ("{route: {step: s, agent: a, model: m}}", (13, 37), "`agent` or `model`", "brings its own model"),
        ("{route: {step: t, agent: b}}", (13, 24), "without `reduce`", "route the step that it reduces"),
        ("{ask: {text: Well, choices: [a, b]}}", (13, 37), "`stop` among the choices", ""),
    ],
)
def test_an_action_that_cannot_be_done_is_an_error_at_its_place(
    do: str, place: tuple[int, int], says: str, hint: str
) -> None:
    error = refusal(do)
    assert (error.line, error.col) == place
    assert says in error.message
    assert hint in error.hint


def test_a_query_is_asked_of_an_empty_log_and_what_it_misspells_is_shown_where_it_stands() -> None:
    error = refusal("{stop: x}", "count(*)", "count(stats)")
    assert (error.line, error.col) == (11, 20)
    assert '"stats" not found' in error.message and "status" in error.hint
    assert refusal("{stop: x}", "tasks", "task").line == 12


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("run = $run", "true", "about `$run`"),
        ("$run", "$run AND id = $other", "parameters: other"),
        ("tasks", "read_csv('x')", "read_csv is not allowed"),
        ("SELECT count(*) > 3\n      FROM", "DELETE FROM", "expected a question"),
        ("$run", "$run; SELECT 1", "one statement, got 2"),
    ],
)
def test_a_query_reads_the_views_of_one_run_and_nothing_else(old: str, new: str, says: str) -> None:
    assert says in refusal("{stop: x}", old, new).message


def test_rule_ids_differ_and_a_cooldown_is_a_duration() -> None:
    again = "  - {id: one, query: SELECT $run, do: {stop: x}}\n"
    assert "given twice: first at line 9, col 9" in refusal("{stop: x}", more=again).message
    assert "a duration such as" in refusal("{stop: x}", more="    cooldown: soon\n").message


def test_rules_are_part_of_a_recipes_identity_down_to_what_they_do() -> None:
    none = parse_recipe(RECIPE.partition("rules:")[0])
    pauses, goes_on = (parse_recipe(RECIPE.replace("DO", do)) for do in ("{pause: s}", "{continue: s}"))
    assert len({fingerprint_source(recipe) for recipe in (none, pauses, goes_on)}) == 3


def test_an_agent_that_a_step_is_routed_to_may_use_that_steps_matrix() -> None:
    text = RECIPE.replace("b: {model: m}", 'b: {model: m, persona: "{{ matrix.k }}"}')
    parse_recipe(text.replace("DO", "{route: {step: s, agent: b}}"))
    with pytest.raises(RecipeError, match=r"matrix\.k"):
        parse_recipe(text.replace("DO", "{stop: x}"))
