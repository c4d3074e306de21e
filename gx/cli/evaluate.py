"""`gx eval`: a recipe's results against labels. It runs as `gx run` does; the figures are `gx.run.evaluate`'s."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gx import output
from gx.cli.place import WorkspaceOpt
from gx.cli.run import FormatOpt, InputsOpt, RecipeArg, SetOpt
from gx.core.errors import InputError, UsageError
from gx.core.ids import canonical
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.core.recipe import Recipe
    from gx.flow.plan import Plan
    from gx.node.client import Started, Submission
    from gx.run.evaluate import Evaluation, Prediction
    from gx.run.record import Record

HELP = """\
Run a recipe and compare its results with labels: accuracy by field, and for enums precision, recall, F1 and the
confusion table.

Labels are JSON lines or CSV with an `id` and one column for each field of the output; for a text output, a column
`label` or `output`. Corrected records of `gx run` are labels too. What is finished is answered from the log, so a
second evaluation is immediate. A result that failed is wrong.

\b
Examples:
\b
    gx eval recipe.yaml --labels labels.jsonl --limit 20
    gx eval recipe.yaml --labels labels.csv --set tone=formal --json | jq .accuracy
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("eval", help=HELP)(evaluate)


def evaluate(
    recipe: RecipeArg,
    labels: Annotated[str, typer.Option("--labels", metavar="FILE", help="JSON lines or CSV; - is stdin.")],
    inputs: InputsOpt = None,
    fmt: FormatOpt = None,
    params: SetOpt = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="N rows drawn at random, the same ones every time.")] = None,
    step: Annotated[str | None, typer.Option(help="Compare this step's results instead of the output step's.")] = None,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="A and a are equal.")] = False,
    as_json: Annotated[bool | None, typer.Option("--json/--plain", help="JSON or tables on stdout.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")] = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """The verb itself; its help text is HELP."""
    from gx import settings
    from gx.cli import running
    from gx.cli.run import submission
    from gx.flow.parse import plan_recipe
    from gx.node.workspace import Workspace
    from gx.run.evaluate import compare

    output.set_mode(as_json=as_json, quiet=quiet)
    asked = submission(recipe, inputs=inputs, fmt=fmt, params=params, limit=limit, sample=sample)
    plan = plan_recipe(asked.recipe_text, asked.params, file=asked.recipe_file)
    chosen = plan.recipe.output if step is None else step
    if chosen != plan.recipe.output:
        asked = _with_output(asked, plan.recipe, chosen)
    found = settings.load(workspace=workspace)
    if labels == "-" and inputs == "-":
        raise UsageError("--labels and --inputs can't both be stdin")
    wanted = read_labels(labels, found.max_row_bytes)
    gathered: dict[bytes, list[Prediction]] = {}

    def gather(records: list[Record], _started: Started) -> None:
        for record in records:
            matrix, prediction = _prediction(record)
            gathered.setdefault(canonical(matrix), []).append(prediction)

    end = running.execute(asked, found, Workspace.find(found.workspace), on_records=gather, with_input=False)
    is_over = end.error is None and not end.left
    for matrix, predictions in in_order(gathered):
        schema = schema_of(plan, chosen, matrix)
        made = compare(predictions, wanted, schema=schema, ignore_case=ignore_case)
        if is_over:
            _check(made, predictions)
        _show(made, {"run": end.run, "step": chosen} | ({"matrix": matrix} if matrix else {}))
    raise typer.Exit(running.finish(end) if gathered or not is_over else _nothing(running.finish(end)))


def read_labels(spec: str, max_row_bytes: int) -> dict[str, dict[str, Any]]:
    """The labels by id. :raises InputError: if a row is no object with an `id`."""
    from gx.run.inputs import open_inputs

    source = open_inputs(spec, base_dir=Path.cwd(), stdin=sys.stdin.buffer, max_row_bytes=max_row_bytes)
    found: dict[str, dict[str, Any]] = {}
    for row in source.rows():
        place = f"{spec}:{row.line}" if row.line is not None else spec
        if row.value is None:
            raise InputError(f"{place}: {row.error}", hint="labels are JSON lines or CSV")
        value = msgspec.json.decode(row.value)
        if "id" not in value:
            raise InputError(f"{place}: expected a label with an `id`, got {', '.join(value) or 'nothing'}")
        found[row.id] = value
    if not found:
        raise InputError(f"{spec}: expected labels, got none")
    return found


def _with_output(asked: Submission, recipe: Recipe, step: str) -> Submission:
    """The same submission with another output step; its recipe becomes JSON, which is YAML too."""
    from gx.flow.packed import read_tree
    from gx.flow.source import suggest

    ids = [s.id for s in recipe.steps]
    if step not in ids:
        raise UsageError(f"--step: there is no step `{step}`", hint=suggest(step, ids, "steps"))
    plain = read_tree(asked.recipe_text, file=asked.recipe_file).plain() | {"output": step}
    return msgspec.structs.replace(asked, recipe_text=json.dumps(plain, ensure_ascii=False))


def _prediction(record: Record) -> tuple[dict[str, Any], Prediction]:
    from gx.run.evaluate import Prediction

    row = record.as_dict()
    is_failed = "error" in row and row["status"] != "skipped"  # a skipped row has nothing, as was asked for
    error = f"{row['error']['code']}: {row['error']['message']}" if is_failed else None
    return row.get("matrix", {}), Prediction(id=row["id"], output=row.get("output"), error=error)


def in_order(gathered: dict[bytes, list[Prediction]]) -> list[tuple[dict[str, Any], list[Prediction]]]:
    """The predictions of each combination of the matrix, which is given as JSON: numbers by size, then all else."""
    found = [(msgspec.json.decode(combo), predictions) for combo, predictions in gathered.items()]
    return sorted(found, key=lambda one: [(name, *_rank(value)) for name, value in sorted(one[0].items())])


def _rank(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else 0, str(value)


def schema_of(plan: Plan, step_id: str, matrix: dict[str, Any]) -> dict[str, Any] | None:
    """The output schema of the agent that this combination of the step's matrix runs with."""
    return plan.recipe.agents[plan.step(step_id).agent_of(matrix)].output


def _check(made: Evaluation, predictions: list[Prediction]) -> None:
    """:raises UsageError: if labels and results have nothing in common."""
    if not made.rows:
        ids = f"results have ids such as {', '.join(p.id for p in predictions[:3])}"
        raise UsageError(
            "no label has the id of a result", hint=f"{ids}; labels such as {', '.join(made.unmatched_ids[:3])}"
        )
    if not made.fields:
        columns = ", ".join(made.ignored_columns) or "nothing but ids"
        raise UsageError(f"the labels have no column of the output; they have {columns}", hint="name columns as fields")


def _nothing(code: ExitCode) -> ExitCode:
    output.note("there are no results to compare")
    return code


# ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _show(made: Evaluation, about: dict[str, Any]) -> None:
    if made.ignored_columns:
        output.note(f"note: columns that no output has were ignored: {', '.join(made.ignored_columns)}")
    if output.wants_json():
        output.emit([about | msgspec.to_builtins(made)], as_json=True)
        return
    matrix = "".join(f"{name}={value}: " for name, value in about.get("matrix", {}).items())
    failed = f"; {made.failed:,} failed" if made.failed else ""
    _say(f"{matrix}{made.exact:,} of {made.rows:,} rows right in every field ({_percent(made.accuracy)}){failed}")
    for count, ids, what in (
        (made.unlabelled, made.unlabelled_ids, "results without a label"),
        (made.unmatched, made.unmatched_ids, "labels without a result"),
    ):
        if count:
            _say(f"{count:,} {what}: {', '.join(ids)}{', …' if count > len(ids) else ''}")
    fields = [
        {"field": f.field, "rows": f.rows, "right": f.correct, "accuracy": _percent(f.accuracy), "macro F1": f.macro_f1}
        for f in made.fields
    ]
    _table("", fields)
    for field in made.fields:
        if field.values:
            scores = [msgspec.structs.asdict(score) | {"rows": score.support} for score in field.values]
            _table(f"{field.field}:", scores, ["value", "rows", "precision", "recall", "f1"])
            met = {name for row in field.confusion.values() for name in row}
            known = [score.value for score in field.values if score.value in met]
            columns = [*known, *sorted(met.difference(known))]
            cells = [{"label ↓ output →": row} | field.confusion[row] for row in field.confusion]
            _table(f"{field.field}, labels in rows and outputs in columns:", cells, ["label ↓ output →", *columns])
    wrong = [
        {"id": w.id, "field": name, "label": pair["label"], "output": w.error or pair["output"]}
        for w in made.wrong
        for name, pair in w.fields.items()
    ]
    _table("wrong, for example:", wrong)


def _table(heading: str, rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    if rows:
        _say(f"\n{heading}" if heading else "")
        output.emit(rows, columns=columns, as_json=False)


def _say(line: str) -> None:
    output.write(line + "\n")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
