"""Personas from a shell: several of them on each row, all answers kept, and what a changed or missing file does."""

from __future__ import annotations

from pathlib import Path

from tests.integration.project import Project, texts

RECIPE = """\
version: 1
name: panel
models: {m: ./model.gguf}
agents:
  careful: &reader
    persona: ./personas/careful.yaml
    output: {type: object, required: [mood], properties: {mood: {enum: [good, bad]}}}
  bold: {<<: *reader, persona: ./personas/bold.yaml}
  judge: {persona: You judge., sampling: {max_tokens: 4}}
steps:
  - {id: opinions, for_each: inputs, agents: [careful, bold], prompt: "{{ item.text }}"}
  - id: verdict
    for_each: inputs
    needs: opinions
    agent: judge
    prompt: "{% for who, said in answers.opinions.items() %}{{ who }}: {{ said.mood }} {% endfor %}"
output: opinions
"""
PERSONA = """\
text: You are NAME.
traits: [brief]
examples: [{input: It broke., output: {mood: bad}}]
sampling: {temperature: 1}
"""


def panel(folder: Project, model: Path, rows: int = 3) -> Project:
    folder.keep().write(RECIPE, model, rows)
    (folder.folder / "personas").mkdir()
    for name in ("careful", "bold"):
        persona(folder, name).write_text(PERSONA.replace("NAME", name))
    return folder


def said(folder: Project, *words: str) -> str:
    """What a command says on stdout, once it has ended well."""
    out, err = folder.start(*words).process.communicate(timeout=180)
    assert not err.count(b"error"), err
    return out.decode()


def persona(folder: Project, name: str) -> Path:
    return folder.folder / "personas" / f"{name}.yaml"


def test_each_row_has_an_answer_of_each_persona_and_the_next_step_has_all_of_them(folder: Project, tiny: Path) -> None:
    panel(folder, tiny)
    done = folder.run()
    assert done.status == 0, done.err
    answered = {(record["id"], record["matrix"]["agent"]): record["output"]["mood"] for record in done.records}
    assert len(done.records) == 6 and len(answered) == 6

    asked = "select id, matrix->>'agent' as who, output->>'mood' as mood from results where step = 'opinions'"
    told = folder.run("sql", asked, "--json").records
    assert {(row["id"], row["who"]): row["mood"] for row in told} == answered

    tasks = folder.run("sql", "select task, id, step, matrix->>'agent' as who from tasks", "--json").records
    shown = {}
    for row in (row for row in tasks if row["id"] == "row-01"):
        (shown[row["who"] or "judge"],) = folder.run("show", row["task"], "--json").records
    assert [(m["role"], m["content"]) for m in shown["bold"]["prompt"]] == [
        ("system", "You are bold.\n\nTraits:\n- brief"),
        ("user", "It broke."),
        ("assistant", '{"mood": "bad"}'),
        ("user", texts(2)[1]["text"]),
    ]
    both = " ".join(f"{who}: {answered['row-01', who]}" for who in ("careful", "bold"))
    assert shown["judge"]["prompt"][-1]["content"].strip() == both
    assert "bold" in said(folder, "show", shown["bold"]["task"], "--plain").partition("You are")[0]


def test_a_changed_persona_computes_anew_what_used_it_and_nothing_else(folder: Project, tiny: Path) -> None:
    panel(folder, tiny)
    assert folder.run().status == 0
    careful = persona(folder, "careful")
    careful.write_text("# another comment\n" + careful.read_text())
    assert all(record["cached"] for record in folder.run().records)
    bold = persona(folder, "bold")
    bold.write_text(bold.read_text().replace("It broke.", "It burst."))
    again = folder.run()
    assert {(record["matrix"]["agent"], record["cached"]) for record in again.records} == {
        ("careful", True), ("bold", False)
    }  # fmt: skip
    folder.assert_nothing_was_computed_twice()


def test_a_run_that_was_killed_goes_on_with_the_personas_that_it_began_with(folder: Project, tiny: Path) -> None:
    panel(folder, tiny, rows=40)
    run = said(folder, "run", "recipe.yaml", "-i", "rows.jsonl", "--detach").strip()
    folder.kill_node()
    for name in ("careful", "bold"):
        persona(folder, name).unlink()
    said(folder, "resume", run)
    said(folder, "wait", run)
    assert folder.ask_live("select count(*) as n from results where step = 'opinions'") == [{"n": 80}]
    assert folder.ask_live("select count(*) as n from tasks") == [{"n": 120}]
    folder.rest()
    folder.assert_nothing_was_computed_twice()


def test_what_is_wrong_in_a_persona_is_a_bad_recipe_and_said_at_its_line(folder: Project, tiny: Path) -> None:
    panel(folder, tiny)
    persona(folder, "bold").write_text("text: You are bold.\ntrait: [brief]\n")
    for words in (("run", "recipe.yaml", "-i", "rows.jsonl", "--dry-run"), ("validate", "recipe.yaml"), ()):
        done = folder.run(*words)
        assert done.status == 2 and "personas/bold.yaml:2:1" in done.err and "`traits`" in done.err, done.err


def test_gx_init_copies_the_personas_of_a_recipe_that_comes_with_gx(folder: Project) -> None:
    assert folder.run("init", "recipe.yaml", "--from", "second-opinion").status == 0
    names = sorted(path.name for path in (folder.folder / "personas").iterdir())
    assert names == ["calm.yaml", "careful.yaml", "money.yaml"]
    assert folder.run("validate", "recipe.yaml").status == 0
