"""Personas: as files, as mappings, what is wrong with them, and several of them on one row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gx.core.errors import RecipeError
from gx.core.message import Message
from gx.core.recipe import Example, Recipe
from gx.flow.parse import fingerprint_source, load_recipe, parse_recipe, plan_recipe, read_recipe
from gx.flow.persona import opening
from gx.flow.privacy import steps_private
from gx.flow.remodel import with_models

RECIPE = """\
version: 1
name: n
params: {product: Notes}
models: {m: x}
agents:
  reader:
    persona: ./personas/careful.yaml
    sampling: {max_tokens: 9}
    output:
      type: object
      required: [mood, why]
      properties: {mood: {enum: [good, bad]}, why: {type: string}}
steps:
  - {id: read, for_each: inputs, agent: reader, prompt: "{{ item.text }}"}
"""
CAREFUL = """\
name: A careful reader
text: You read reviews of {{ params.product }}.
traits:
  - says nothing that the text doesn't say
  - asks what {{ params.product }} would lose
examples:
  - input: It broke.
    output: {why: broken, mood: bad}
  - input: {text: Fine}
    output: {mood: good, why: "\\"fine\\""}
sampling: {temperature: 0.7, max_tokens: 99}
"""


def write(folder: Path, recipe: str = RECIPE, **personas: str) -> Path:
    """A recipe in a folder, with files of personas beside it."""
    (folder / "personas").mkdir(exist_ok=True)
    for name, text in personas.items():
        (folder / "personas" / f"{name}.yaml").write_text(text)
    (folder / "recipe.yaml").write_text(recipe)
    return folder / "recipe.yaml"


def refused(path: Path) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return caught.value


def chat(recipe: Recipe, agent: str, **params: str) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in opening(recipe.agents[agent], params, {})]


def test_a_file_is_a_system_message_with_its_traits_and_a_pair_of_messages_for_each_example(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, careful=CAREFUL))
    assert chat(recipe, "reader", product="Tents") == [
        (
            "system",
            "You read reviews of Tents.\n\nTraits:\n- says nothing that the text doesn't say\n"
            "- asks what Tents would lose",
        ),
        ("user", "It broke."),
        ("assistant", '{"mood": "bad", "why": "broken"}'),  # in the order in which answers are written
        ("user", '{"text": "Fine"}'),
        ("assistant", '{"mood": "good", "why": "\\"fine\\""}'),
    ]


def test_the_agents_own_sampling_stands_above_that_of_its_persona(tmp_path: Path) -> None:
    sampling = load_recipe(write(tmp_path, careful=CAREFUL)).agents["reader"].sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.7, 9)


def test_traits_with_names_keep_them_and_a_mapping_in_the_recipe_says_the_same_as_a_file(tmp_path: Path) -> None:
    persona = "{text: You judge., traits: {tone: dry, asks for: numbers}}"
    inside = parse_recipe(RECIPE.replace("./personas/careful.yaml", persona))
    beside = load_recipe(write(tmp_path, careful=persona))
    assert inside == beside
    assert chat(beside, "reader") == [("system", "You judge.\n\nTraits:\n- tone: dry\n- asks for: numbers")]


@pytest.mark.parametrize("text", ["Be brief.", "You write app.yaml for me", "a.yaml or b.yaml", "yaml", "x.yaml\ny"])
def test_a_text_that_is_no_files_name_is_the_persona_itself(text: str) -> None:
    recipe = parse_recipe(RECIPE.replace("./personas/careful.yaml", json.dumps(text)))
    assert recipe.agents["reader"].persona == text and not recipe.agents["reader"].examples


@pytest.mark.parametrize("name", ["personas/careful.yaml", "./personas/careful.yaml", "'./personas/with space.yml'"])
def test_a_name_that_ends_in_yaml_is_a_file_beside_the_recipe(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, RECIPE.replace("./personas/careful.yaml", name), careful=CAREFUL)
    (tmp_path / "personas" / "with space.yml").write_text(CAREFUL)
    assert load_recipe(path).agents["reader"].persona.startswith("You read reviews")


def test_answers_of_an_agent_without_a_schema_are_texts_and_so_are_its_examples() -> None:
    given = "{text: t, examples: [{input: a, output: b}, {input: c, output: {d: 1}}]}"
    recipe = parse_recipe(RECIPE.replace("./personas/careful.yaml", given).partition("    output:")[0] + STEP)
    assert recipe.agents["reader"].examples == (Example(input="a", output="b"), Example(input="c", output='{"d": 1}'))
    of_texts = "{text: t, examples: [{input: a, output: b}]}\n    output: {enum: [b, c]}"
    recipe = parse_recipe(RECIPE.replace("./personas/careful.yaml", of_texts).partition("    sampling:")[0] + STEP)
    assert recipe.agents["reader"].examples == (Example(input="a", output='"b"'),)  # an answer to a schema is JSON


STEP = 'steps:\n  - {id: read, for_each: inputs, agent: reader, prompt: "{{ item.text }}"}\n'

# ── one text with its files ──────────────────────────────────────────────────────────────────────────────────────


def test_what_is_read_is_one_text_that_needs_no_file_any_more(tmp_path: Path) -> None:
    path = write(tmp_path, careful=CAREFUL)
    text, before = read_recipe(path), load_recipe(path)
    (tmp_path / "personas" / "careful.yaml").unlink()
    assert text.startswith(RECIPE) and CAREFUL in text
    assert parse_recipe(text) == before
    path.write_text(text)
    assert read_recipe(path) == text and load_recipe(path) == before


def test_a_recipe_without_files_is_read_as_it_stands(tmp_path: Path) -> None:
    plain = RECIPE.replace("./personas/careful.yaml", "Be brief.")
    assert read_recipe(write(tmp_path, plain)) == plain


def test_two_agents_share_a_file_which_is_there_once(tmp_path: Path) -> None:
    two = RECIPE.replace("agents:\n  reader:", "agents:\n  reader: &r").replace(
        "steps:", "  other: {<<: *r, private: true}\nsteps:"
    )
    path = write(tmp_path, two, careful=CAREFUL)
    agents = load_recipe(path).agents
    assert agents["reader"].examples == agents["other"].examples != ()
    assert read_recipe(path).count("A careful reader") == 1


def test_a_persona_that_changed_makes_another_recipe_and_a_comment_in_it_none(tmp_path: Path) -> None:
    first = load_recipe(write(tmp_path, careful=CAREFUL))
    commented = load_recipe(write(tmp_path, careful="# mine\n" + CAREFUL))
    changed = load_recipe(write(tmp_path, careful=CAREFUL.replace("It broke", "It burst")))
    assert fingerprint_source(first) == fingerprint_source(commented) != fingerprint_source(changed)


def test_a_model_is_replaced_in_a_recipe_with_its_files(tmp_path: Path) -> None:
    text = with_models(read_recipe(write(tmp_path, careful=CAREFUL)), {"m": "./y.gguf"}, file="recipe.yaml")
    assert parse_recipe(text).models["m"].source == "./y.gguf" and CAREFUL in text


def test_a_text_that_comes_without_its_files_says_which_is_missing() -> None:
    with pytest.raises(RecipeError, match=r"careful\.yaml") as caught:
        parse_recipe(RECIPE)
    assert caught.value.line == 7


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("persona", "place", "words", "hint"),
    [
        ("txt: x\n", "1:1", "expected a key of a persona, got `txt`", "text"),
        ("traits: [a]\n", "1:1", "expected a persona with `text`, got none", ""),
        ("- a\n", "1:1", "expected a persona (a mapping with `text`), got a list", ""),
        ("You are careful.\n", "1:1", "got the text", "text:"),
        ("", "1:1", "expected a persona, got an empty file", "text"),
        ("text: [\n", "2:1", "this isn't YAML", ""),
        ("text: t\npersona: ./other.yaml\n", "2:1", "got `persona`", ""),
        ("text: You sell {{ params.prodct }}.\n", "1:26", "got `params.prodct`", "product"),
        ("text: t\ntraits: {a: 'likes {{ item.x }}'}\n", "2:23", "got `item`", "params"),
        ("text: t\ntraits: []\n", "2:9", "at least 1", ""),
        ("text: t\ntraits: Dry.\n", "2:9", "got the text 'Dry.'", ""),
        ("text: t\nexamples:\n  - {input: a}\n", "3:5", "expected an example with `output`, got none", ""),
        ("text: t\nexamples:\n  - {input: '', output: b}\n", "3:13", "expected", ""),
        ("text: t\nsampling: {temperature: 9}\n", "2:25", "at most 2", ""),
        ("text: t\nprivate: sometimes\n", "2:10", "expected true or false", ""),
    ],
)
def test_what_is_wrong_in_a_persona_is_said_at_its_place_in_its_file(
    tmp_path: Path, persona: str, place: str, words: str, hint: str
) -> None:
    error = refused(write(tmp_path, careful=persona))
    assert words in error.message and hint in error.hint, error
    assert (Path(error.file).name, f"{error.line}:{error.col}") == ("careful.yaml", place)


def test_an_example_that_no_answer_could_be_names_its_place_and_that_of_the_schema(tmp_path: Path) -> None:
    wrong = CAREFUL.replace("mood: bad", "mood: awful")
    error = refused(write(tmp_path, careful=wrong))
    assert (Path(error.file).name, error.line, error.col) == ("careful.yaml", 8, 33)
    assert "'awful'" in error.message and "`reader`" in error.message
    assert f"{tmp_path / 'recipe.yaml'}:10:7" in error.message
    text = refused(write(tmp_path, careful=CAREFUL.replace("{why: broken, mood: bad}", '\'{"mood": "bad"}\'')))
    assert "mapping" in text.hint


@pytest.mark.parametrize(
    "schema",
    [
        "{type: string, pattern: '\\p{Lu}+'}",
        "{$ref: '#'}",
        "{type: array, prefixItems: [{type: string}, {type: integer}]}",
    ],
)
def test_what_only_the_engine_can_decide_of_an_example_is_left_to_it(tmp_path: Path, schema: str) -> None:
    output = "[a, 1]" if "array" in schema else "a"
    recipe = RECIPE.partition("    sampling:")[0] + f"    output: {schema}\n" + STEP
    path = write(tmp_path, recipe, careful=f"text: t\nexamples: [{{input: a, output: {output}}}]\n")
    assert load_recipe(path).agents["reader"].examples


def test_a_file_that_is_not_there_is_said_at_its_name_in_the_recipe(tmp_path: Path) -> None:
    error = refused(write(tmp_path, crafty=CAREFUL, carefull=CAREFUL))
    assert (Path(error.file).name, error.line, error.col) == ("recipe.yaml", 7, 14)
    assert "no such file" in error.message and "carefull.yaml" in error.hint


@pytest.mark.parametrize("name", ["/etc/careful.yaml", "~/careful.yaml", "./careful.md", "'{{ params.product }}.yaml'"])
def test_a_name_that_can_be_no_persona_is_refused(tmp_path: Path, name: str) -> None:
    error = refused(write(tmp_path, RECIPE.replace("./personas/careful.yaml", name)))
    assert error.line == 7 and error.hint


def test_a_link_that_leads_out_of_the_folder_is_refused_and_one_within_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text(CAREFUL)
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in", bold=CAREFUL)
    link = path.parent / "personas" / "careful.yaml"
    link.symlink_to(path.parent / "personas" / "bold.yaml")
    assert load_recipe(path).agents["reader"].examples
    link.unlink()
    link.symlink_to(tmp_path / "outside.yaml")
    error = refused(path)
    assert "leads out of" in error.message and error.line == 7
    path.write_text(RECIPE.replace("./personas/careful.yaml", "../outside.yaml"))
    assert load_recipe(path).agents["reader"].examples  # what the recipe says openly may be shared with others


def test_a_link_to_itself_a_folder_and_what_is_no_text_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    file = tmp_path / "personas" / "careful.yaml"
    file.symlink_to(file)
    assert refused(path).line == 7
    file.unlink()
    file.mkdir()
    assert "a folder" in refused(path).message
    file.rmdir()
    file.write_bytes(b"text: \xff\n")
    assert "UTF-8" in refused(path).message
    file.write_text("text: " + "x" * 2_000_000)
    assert "at most" in refused(path).message


# ── privacy ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_with_a_private_persona_is_private(tmp_path: Path) -> None:
    path = write(tmp_path, careful="private: true\n" + CAREFUL)
    assert load_recipe(path).agents["reader"].private
    plan = plan_recipe(read_recipe(path), {})
    assert steps_private(plan)["read"].reason == "agent reader is private"


# ── several agents on one row ────────────────────────────────────────────────────────────────────────────────────

SEVERAL = """\
version: 1
name: n
models: {m: x}
agents:
  careful: {persona: You are careful.}
  bold: {persona: You are bold.}
  judge: {}
steps:
  - {id: opinions, for_each: inputs, agents: [careful, bold], prompt: "{{ item.text }}"}
  - id: verdict
    for_each: inputs
    needs: opinions
    agent: judge
    prompt: "{% for who, said in answers.opinions.items() %}{{ who }}: {{ said }} {% endfor %}"
"""


def test_agents_is_a_matrix_of_agents() -> None:
    by_hand = SEVERAL.replace(
        "agents: [careful, bold]", "matrix: {agent: [careful, bold]}, agent: '{{ matrix.agent }}'"
    )
    assert parse_recipe(SEVERAL) == parse_recipe(by_hand)
    assert plan_recipe(SEVERAL, {}).step("opinions").agents == ("careful", "bold")


@pytest.mark.parametrize(
    ("old", "new", "words", "line"),
    [
        ("[careful, bold]", "[careful, blod]", "got `blod`", 9),
        ("[careful, bold]", "[careful, careful]", "every item once", 9),
        ("[careful, bold]", "[]", "at least 1", 9),
        ("agents: [careful, bold]", "agents: [careful], agent: bold", "got both", 9),
        ("agents: [careful, bold], ", "", "expected a step with `agent`", 9),
        ("agents: [careful, bold]", "agents: [careful], matrix: {agent: [1]}", "`agents`", 9),
        ("for_each: inputs\n    needs", "needs", "`answers`", 13),
        ("needs: opinions\n    ", "", "got `answers.opinions`", 13),
        ("answers.opinions", "answers.opinion", "got `answers.opinion`", 14),
        ("judge: {}", "judge: {choose: calibrated, output: {enum: [a, b]}}", "no `answers` beside", 14),
    ],
)
def test_what_is_wrong_with_several_agents_is_said(old: str, new: str, words: str, line: int) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(SEVERAL.replace(old, new, 1))
    assert words in caught.value.message, caught.value
    assert caught.value.line == line


def test_answers_about_a_row_are_as_private_as_what_they_were_made_from() -> None:
    plan = plan_recipe(SEVERAL.replace("name: n\n", "name: n\nprivate: [text]\n", 1), {})
    assert "made by opinions" in steps_private(plan)["verdict"].reason


def test_a_message_of_a_persona_is_the_same_for_each_task() -> None:
    recipe = parse_recipe(SEVERAL)
    assert opening(recipe.agents["bold"], {}, {}) == (Message(role="system", content="You are bold."),)
    assert opening(recipe.agents["judge"], {}, {}) == ()
