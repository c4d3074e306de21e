"""Runs that their rules steer, as a user has them: the real `gx` command, a node of its own, a real bench."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests import nodes
from tests.integration.project import ENDLESS, RECIPE, SLOW, Project

RECIPES = Path(__file__).parents[2] / "recipes"
ASKS = """\
rules:
  - id: unsure
    query: SELECT count(*) >= 0 FROM tasks WHERE run = $run AND status = 'succeeded'
    do: {ask: Are they any good}
"""
"""It is asked while the bench comes up: on no machine can the rows be done before that."""


def test_a_run_that_waits_for_a_person_is_left_with_6_and_goes_on_once_it_is_answered(
    folder: Project, tiny: Path
) -> None:
    folder.keep().write(SLOW + ASKS, tiny)
    left = folder.run()
    assert left.status == 6, left.err
    (run,) = {line.split()[1] for line in left.err.splitlines() if line.startswith("run ") and ":" not in line}
    assert f"rule unsure asks: Are they any good\nanswer with: gx answer {run} continue | stop" in left.err
    assert f"waiting for a person. Answer with: gx answer {run}" in left.err
    again = folder.run()
    assert again.status == 6 and f"run {run} goes on" in again.err
    (asked,) = folder.run("answer", run).records
    assert (asked["question"], asked["choices"]) == ("unsure-1", ["continue", "stop"])
    wrong = folder.run("answer", run, "contineu")
    assert wrong.status == 2 and "did you mean `continue`?" in wrong.err
    assert folder.run("answer", run, "continue").status == 0
    done = folder.run()
    assert done.status == 0, done.err
    assert len(done.records) == 20
    assert folder.ask("SELECT count(*) FROM events WHERE type = 'rule.fired'") == [(1,)]
    folder.assert_nothing_was_computed_twice()


def test_waiting_for_a_detached_run_that_asks_a_person_ends_with_6(folder: Project, tiny: Path) -> None:
    folder.keep().write(SLOW + ASKS, tiny)
    detached = folder.start("run", "recipe.yaml", "-i", "rows.jsonl", "--detach")
    out, _ = detached.process.communicate(timeout=180)
    run = out.decode().strip()
    waited = folder.run("wait", run)
    assert waited.status == 6 and f"answer with: gx answer {run} continue | stop" in waited.err
    assert folder.run("answer", run, "continue").status == 0
    assert folder.run("wait", run).status == 0


def test_the_answer_stop_ends_a_run_that_nobody_is_attached_to(folder: Project, tiny: Path) -> None:
    folder.keep().write(SLOW + ASKS, tiny)
    assert folder.run().status == 6
    ((run,),) = folder.ask("SELECT DISTINCT run FROM runs")
    assert folder.run("answer", run, "stop").status == 0
    assert folder.ask("SELECT status FROM runs") == [("stopped",)]
    why = folder.run("why", run, "--json")
    assert "It was stopped by a rule: answered stop to: Are they any good" in why.records[0]["answer"]


def test_a_rule_that_fired_does_not_fire_again_for_the_next_node(folder: Project, long: Path) -> None:
    rule = "rules: [{id: gentle, query: 'SELECT $run IS NOT NULL', do: {concurrency: 1}, cooldown: 100ms}]\n"
    folder.keep().write(ENDLESS + rule, long).start()
    fired = "select count(*) as n from events where type = 'rule.fired'"
    assert nodes.until(lambda: folder.node is not None)
    assert nodes.until(lambda: folder.ask_live(fired)[0]["n"])
    first = folder.kill_node()
    assert nodes.until(lambda: folder.node not in (None, first))
    leased = "select count(*) as n from events where type = 'task.leased' and data->>'$.lease.epoch' = '2'"
    assert nodes.until(lambda: folder.ask_live(leased)[0]["n"])
    assert folder.ask_live(fired)[0]["n"] == 1


def test_a_typo_in_a_query_is_shown_where_it_stands_before_anything_runs(folder: Project, tiny: Path) -> None:
    folder.keep().write(RECIPE + ASKS.replace("status =", "stats ="), tiny)
    done = folder.run()
    assert done.status == 2
    assert "recipe.yaml:10:65: error: the query of rule `unsure` can't be asked" in done.err
    assert 'Referenced column "stats" not found' in done.err
    assert folder.run("validate", "recipe.yaml").status == 2


def test_the_bundled_recipe_sends_what_is_left_to_the_agent_that_writes_less(folder: Project) -> None:
    shutil.copytree(RECIPES / "triage", folder.folder / "triage")
    shutil.copy(RECIPES / "watchful.yaml", folder.folder)
    plan = folder.run("run", "watchful.yaml", "--dry-run")
    assert "rule cut-off, at most every 60 s, when its query turns true: route step sort to agent brief" in plan.err
    done = folder.start("run", "watchful.yaml", "--limit", "24").end(timeout_s=280)
    assert done.status == 3, done.err
    assert "note: rule cut-off fired: route step sort to agent brief" in done.err
    fields = [set(r["output"]) for r in sorted(done.records, key=lambda r: r["index"]) if r["status"] == "succeeded"]
    assert fields[-1] == {"category"}
    ((run, rows),) = folder.ask(
        "SELECT e.run, decode(b.bytes) FROM events e JOIN blobs b ON b.digest = e.data->>'$.rows'"
        " WHERE e.type = 'rule.fired' AND e.data->>'$.rule' = 'cut-off'"
    )
    (row,) = json.loads(rows)["rows"]
    assert row["many"] is True and row["cut_off"] > 0.2 * row["attempts"]
    (told,) = folder.run("why", run, "--json").records
    assert "step sort was routed to agent brief by rule cut-off" in [line["text"] for line in told["lines"]]
