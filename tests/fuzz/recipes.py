"""Mutated recipes and inputs: gx ends in results or in a message with a place; never in a traceback, never not at all.

Every case is a recipe and an input, one or both of them spoilt. In this process it is parsed, planned, read to its last
row and rendered, under a time limit; some of those that can run are then run by the real command on a tiny model.
Cases follow from the seed and their number alone.

`python -m tests.fuzz.recipes --cases 20000 --executed 200` prints what came out, and exits 1 if something was found.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gx import output
from gx.core.errors import InputError, RecipeError, UsageError
from gx.core.recipe import Recipe
from gx.flow.parse import load_recipe, parse_recipe, resolve_params
from gx.flow.plan import Plan, make_plan
from gx.flow.yamltree import read_yaml
from gx.run.inputs import Row, open_inputs
from gx.run.rehearsal import Rehearsal
from tests.fuzz import mutations
from tests.fuzz.samples import Sample, samples
from tests.nodes import LINGER_S, end_nodes
from tests.tiny_model import write_tiny_model

GX = (sys.executable, "-P", "-m", "gx.cli.main")
CASE_S = 30
RUN_S = 60
ROWS = 3
MOST_TASKS = 24
_PLACE = re.compile(rb"recipe\.yaml:\d+:\d+: ")


class Found(Exception):
    """What must not happen, and did."""


class Slow(BaseException):
    """The time limit of a case passed; no `except Exception` on the way may swallow it."""


class Case(NamedTuple):
    """A recipe and an input as they are given to gx, in files of these names."""

    recipe: bytes
    name: str
    rows: bytes


class Ready(NamedTuple):
    """A case that can run: its plan, and whether its own text may run as it is."""

    case: Case
    plan: Plan


def case_of(seed: int, number: int, texts: list[Sample], inputs: dict[str, bytes]) -> Case:
    """The case of that number: the recipe spoilt, the input spoilt, or both."""
    chance = random.Random(f"{seed}/{number}")
    sample = chance.choice(texts)
    recipe, name = sample.recipe, chance.choice(sample.inputs)
    rows = inputs[name]
    what = chance.choice(("recipe", "recipe", "recipe", "rows", "both"))
    if what != "rows":
        if chance.random() < 0.35:
            recipe = mutations.spoil_tree(chance, recipe)
        else:
            words = [word.encode("utf-8", "surrogatepass") for word in mutations.WORDS]
            recipe = mutations.spoil_text(chance, recipe, words)
    if what != "recipe":
        rows = mutations.spoil_text(chance, rows, mutations.ROWS)
        if chance.random() < 0.05:
            name = chance.choice(("rows", "rows.csv", "rows.json", "rows.txt", "rows.jsonl"))
    return Case(recipe, name, rows)


# ── in this process ──────────────────────────────────────────────────────────────────────────────────────────────────


def probe(case: Case, folder: Path) -> tuple[str, Ready | None]:
    """What comes of a case, in a word, and the case if it can run. :raises Found: if it isn't what was promised."""
    (folder / "recipe.yaml").write_bytes(case.recipe)
    (folder / case.name).write_bytes(case.rows)
    plan: Plan | None = None
    try:
        with _at_most(CASE_S):
            recipe = load_recipe(folder / "recipe.yaml")
            plan = make_plan(recipe, resolve_params(recipe, {}))
            rows = list(_read(folder, case))
            _rehearse(plan, rows)
    except RecipeError as error:
        _check_place(error, case)
        return "recipe refused", None
    except UsageError as error:
        _claim(plan is None and "`" in error.message, f"a usage error that names nothing: {error.message}")
        return "parameter missing", None
    except InputError as error:
        _claim(case.name in error.message, f"an input error without the input's name: {error.message}")
        return "input refused", Ready(case, plan) if plan is not None else None
    except Slow:
        raise Found(f"it took longer than {CASE_S} s:\n{traceback.format_exc()}") from None
    except Exception as error:
        raise Found(f"{type(error).__name__} came out:\n{traceback.format_exc()}") from error
    bad = sum(row.error is not None for row in rows)
    return f"planned, {'some' if bad else 'no'} rows bad", Ready(case, plan)


def _read(folder: Path, case: Case) -> Iterator[Row]:
    """The rows, each checked: a bad one has its line and a reason."""
    for place, row in enumerate(open_inputs(case.name, base_dir=folder, stdin=io.BytesIO()).rows()):
        _claim(row.index == place, f"row {place} has the index {row.index}")
        _claim((row.value is None) == (row.error is not None), f"row {place} has both a value and an error, or neither")
        if row.error is not None:
            _claim(row.line is not None and bool(row.error.strip()), f"row {place} is bad and doesn't say where or why")
        else:
            _claim(isinstance(msgspec.json.decode(row.value or b""), dict), f"row {place} is no object")
        yield row


def _rehearse(plan: Plan, rows: list[Row]) -> None:
    """Render what can be rendered before anything has run."""
    usable = [row for row in rows if row.error is None][:ROWS]
    for step in plan.steps:
        if step.step.reduce is None and step.step.for_each in (None, "inputs") and len(step.combos) <= MOST_TASKS:
            Rehearsal(plan, step, usable, dict.fromkeys(plan.recipe.models, "0" * 64))


def _check_place(error: RecipeError, case: Case) -> None:
    """A recipe's error points into the recipe, and can be shown."""
    if error.line is None or error.col is None:
        _claim("`" in error.message, f"a recipe error without a place: {error.message}")
        return
    _claim(error.file.endswith("recipe.yaml"), f"a recipe error of the file {error.file!r}")
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", case.recipe.decode("utf-8-sig", "replace"))
    _claim(1 <= error.line <= len(lines), f"line {error.line} of {len(lines)}: {error.message}")
    width = len(lines[error.line - 1]) + 1
    _claim(1 <= error.col <= width + 1, f"col {error.col} in a line of {width - 1} characters: {error.message}")
    _claim(bool(error.message.strip()), "a recipe error without a message")
    with contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")):
        output.show_error(error)


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise Slow

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ── by the command ───────────────────────────────────────────────────────────────────────────────────────────────────


def runnable(ready: Ready) -> Case | None:
    """The case as it may be run: on the tiny model, with short answers and quick retries; `None` if it is too much."""
    plan, recipe = ready.plan, ready.plan.recipe
    if sum(len(step.combos) for step in plan.steps) * ROWS > MOST_TASKS:
        return None
    if _is_quick(recipe):
        return ready.case
    tree = read_yaml(ready.case.recipe.decode("utf-8-sig"), file="recipe.yaml").plain()
    tree["models"] = dict.fromkeys(tree["models"], "./tiny.gguf")
    for agent in tree["agents"].values():
        agent["sampling"] = agent.get("sampling", {}) | {"max_tokens": 12}
    for step in tree["steps"]:
        step.pop("retry", None)
    text = json.dumps(tree)
    try:
        parse_recipe(text)
    except RecipeError:
        return None
    return ready.case._replace(recipe=text.encode())


def _is_quick(recipe: Recipe) -> bool:
    return (
        all(model.source == "./tiny.gguf" for model in recipe.models.values())
        and all(agent.sampling.max_tokens <= 32 for agent in recipe.agents.values())
        and all(step.retry.limit <= 1 and step.retry.backoff_s <= 1 for step in recipe.steps)
    )


def execute(case: Case, folder: Path, recipe: Recipe | None) -> int:
    """Run a case by the command; its exit status. Without a `recipe` it must be refused.

    :raises Found: if it isn't what was promised.
    """
    workspace = folder / "ws"
    end_nodes(workspace)  # of the case before
    shutil.rmtree(workspace, ignore_errors=True)
    (folder / "recipe.yaml").write_bytes(case.recipe)
    (folder / case.name).write_bytes(case.rows)
    homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    command = [*GX, "run", "recipe.yaml", "-i", case.name, "--limit", str(ROWS)]
    env = os.environ | homes | {"GX_WORKSPACE": str(workspace), "GX_THREADS": "1"}
    env["GX_NODE_LINGER_S"] = str(LINGER_S)
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Found(f"`gx run` did not end within {RUN_S} s; stderr: {error.stderr!r}") from None
    said = f"exit {done.returncode}, stderr:\n{done.stderr.decode('utf-8', 'replace')}"
    _claim(b"Traceback" not in done.stderr, f"a traceback: {said}")
    allowed = {2} if recipe is None else {0, 2, 3}
    if recipe is not None:
        allowed |= {4} if recipe.budget.tokens is not None else set()
        allowed |= {5} if recipe.deadline_s is not None else set()
    _claim(done.returncode in allowed, f"{said}, expected one of {sorted(allowed)}")
    if done.returncode == 2:
        _claim(b"error: " in done.stderr, f"no message: {said}")
        _claim(recipe is not None or bool(_PLACE.search(done.stderr)), f"no place: {said}")
    for line in done.stdout.splitlines():
        record: dict[str, Any] = json.loads(line)
        if "custom_id" not in record:
            _claim(isinstance(record["index"], int), f"a record without its row's number: {record}")
            _claim(("output" in record) != ("error" in record), f"neither output nor error, or both: {record}")
    return done.returncode


def _claim(is_kept: bool, otherwise: str) -> None:
    if not is_kept:
        raise Found(otherwise)


# ── all of it ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Outcome(NamedTuple):
    """How many cases came to what; what was found, as (case number, text)."""

    probed: Counter[str]
    executed: Counter[str]
    found: list[tuple[int, str]]


def fuzz(
    folder: Path, *, cases: int, executed: int, seed: int, tell: Callable[[str], None] = lambda line: None
) -> Outcome:
    """Probe `cases` cases and run `executed` of them, spread evenly, and a tenth as many of those that were refused."""
    if not (folder / "tiny.gguf").exists():
        write_tiny_model(folder / "tiny.gguf", context=512)
    texts, inputs = samples()
    for sample in texts:  # one that is refused as it stands would make nonsense of all its cases
        word, ready = probe(Case(sample.recipe, sample.inputs[0], inputs[sample.inputs[0]]), folder)
        _claim(ready is not None, f"a sample can't run: {word}")
    outcome = Outcome(Counter(), Counter(), [])
    every = max(1, cases // max(1, executed))
    run = refused = 0
    for number in range(cases):
        case = case_of(seed, number, texts, inputs)
        try:
            word, ready = probe(case, folder)
            outcome.probed[word] += 1
            if ready is not None and run <= number // every and run < executed and (able := runnable(ready)):
                run += 1
                outcome.executed[f"exit {execute(able, folder, ready.plan.recipe)}"] += 1
                tell(f"{number + 1:,} cases, {run} executed, {len(outcome.found)} findings")
            elif word == "recipe refused" and refused < executed // 10 and refused <= number // (10 * every):
                refused += 1
                outcome.executed[f"refused: exit {execute(case, folder, None)}"] += 1
        except Found as found:
            outcome.found.append((number, str(found)))
            kept = folder / f"found-{number}"
            kept.mkdir()
            (kept / "recipe.yaml").write_bytes(case.recipe)
            (kept / case.name).write_bytes(case.rows)
        (folder / case.name).unlink(missing_ok=True)
    end_nodes(folder / "ws")
    return outcome


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.recipes", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--executed", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"seed {asked.seed}: {asked.cases:,} cases, {asked.executed} of them executed", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="gx-fuzz-"))
    outcome = fuzz(folder, cases=asked.cases, executed=asked.executed, seed=asked.seed, tell=_tell)
    for title, counted in (("probed", outcome.probed), ("executed", outcome.executed)):
        print(f"{title}: {', '.join(f'{count:,} {word}' for word, count in counted.most_common())}")
    for number, text in outcome.found:
        print(f"\ncase {number}, kept in {folder / f'found-{number}'}:\n{text}")
    if outcome.found:
        sys.exit(f"{len(outcome.found)} findings; again with --seed {asked.seed}")
    shutil.rmtree(folder)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
