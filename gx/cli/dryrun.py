"""`gx run --dry-run`: the plan, the first prompts, the estimated cost. The estimates are `gx.run.dryrun`'s."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gx import output
from gx.core.errors import LogError, ModelError, WorkspaceError
from gx.core.words import duration
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.core.recipe import Recipe
    from gx.flow.plan import Plan
    from gx.node.client import Submission
    from gx.node.workspace import Workspace
    from gx.run.dryrun import Forecast, Past
    from gx.run.log import EventLog
    from gx.run.rehearsal import Survey
    from gx.settings import Settings

SHOWN_LINES, SHOWN_CHARS = 12, 1200
"""Of a prompt on a terminal; --json has all of it."""


def dry_run(asked: Submission, settings: Settings, workspace: Workspace) -> int:
    """Show what the run would do; the exit code. :raises GxError: if it couldn't begin."""
    from gx.flow.privacy import has_private
    from gx.run.rules import words_of

    plan, made = forecasts(asked, settings, workspace)
    recipe = plan.recipe
    _show(made, has_labels=has_private(recipe) or recipe.burst is not None)
    for rule in recipe.rules:
        often = f"at most every {rule.cooldown_s:g} s"
        output.note(f"rule {rule.id}, {often}, when its query turns true: {words_of(rule.do)}")
    budget = asked.budget_tokens if asked.budget_tokens is not None else recipe.budget.tokens
    tokens = sum(step.tokens_in + step.tokens_out for step in made)
    if budget is not None and tokens > budget:
        output.note(f"note: the budget of {budget:,} tokens would stop the run before its end")
    output.note("nothing was run")
    return ExitCode.ok


def forecasts(asked: Submission, settings: Settings, workspace: Workspace) -> tuple[Plan, list[Forecast]]:
    """The plan of what is asked for, and what each of its steps is expected to take. :raises GxError: as `dry_run`."""
    from gx.flow.parse import plan_recipe
    from gx.run.dryrun import CONTEXT_TOKENS, Forecaster, absent_fields, past
    from gx.run.rulecheck import check_queries

    plan = plan_recipe(asked.recipe_text, asked.params, file=asked.recipe_file)
    check_queries(plan.recipe, asked.recipe_text, file=asked.recipe_file)
    recipe = plan.recipe
    models = _models(recipe, settings, Path(asked.recipe_folder))
    rows = _survey(asked, plan, settings)
    for name in absent_fields(recipe.private, rows):
        output.note(f"note: no row that was looked at has the private field `{name}`")
    with _log(workspace) as log:

        def in_log(keys: Collection[str]) -> Collection[str]:
            return () if log is None or asked.fresh else log.find_results(keys, before_seq=log.last_seq)

        def before(model: str, step: str | None) -> Past | None:
            return past(log, model, recipe=recipe.name, step=step) if log is not None and model else None

        forecaster = Forecaster(
            plan,
            rows,
            models=models,
            contexts={n: m.context or settings.context_tokens or CONTEXT_TOKENS for n, m in recipe.models.items()},
            find_past=before,
            find_results=in_log,
        )
        made = list(forecaster.steps())
    return plan, made


def _models(recipe: Recipe, settings: Settings, base_dir: Path) -> dict[str, str]:
    """The SHA-256 of each model that is here; a missing one is noted. :raises ModelError: if one is damaged."""
    from gx import wiring

    found: dict[str, str] = {}
    for name in wiring.used_models(recipe):
        try:
            only = msgspec.structs.replace(recipe, models={name: recipe.models[name]})
            found[name] = wiring.resolve_models(only, settings, base_dir)[name].digest
        except ModelError as error:
            if error.code != "model.missing":
                raise
            output.note(f"note: {error.message}; {error.hint}")
    return found


def _survey(asked: Submission, plan: Plan, settings: Settings) -> Survey:
    """The rows that the run would read. :raises GxError: if they can't be."""
    from gx.node.wanted import source_of
    from gx.run.inputs import take
    from gx.run.rehearsal import Survey, survey

    stdin = sys.stdin.buffer.raw if asked.inputs == "-" else None  # type: ignore[union-attr]
    source = source_of(asked, plan, settings, stdin=stdin)
    if source is None:
        return Survey()
    found = survey(take(source.rows(), limit=asked.limit, sample=asked.sample, seed=0))
    for warning in source.warnings:
        output.note(f"note: {warning}")
    if found.unusable:
        output.note(f"note: {found.unusable:,} of {found.rows:,} rows can't be used, and would be failed records")
    return found


@contextmanager
def _log(workspace: Workspace) -> Iterator[EventLog | None]:
    """The log, where there is one that can be read now: it is asked for estimates only."""
    from gx.cli.history import LEAVING_S
    from gx.node.start import send_home

    opened = workspace.shared(wait_s=LEAVING_S)
    try:
        send_home(workspace.folder)
        log = opened.__enter__()
    except (WorkspaceError, LogError) as error:
        if error.code not in ("workspace.empty", "log.missing"):
            output.note(f"note: earlier runs are not considered: {error.message}")
        yield None
        return
    try:
        yield log
    finally:
        opened.__exit__(None, None, None)


# ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _show(made: list[Forecast], *, has_labels: bool) -> None:
    if output.wants_json():
        output.emit((_row(step) for step in made), as_json=True)
        return
    lines = [line for step in made for line in _lines(step, has_labels=has_labels)]
    if len(made) > 1:
        times = [step.seconds for step in made]
        known = [s for s in times if s is not None]
        time = f", {_time(sum(known))}" if len(known) == len(times) else ""
        tokens_in, tokens_out = sum(s.tokens_in for s in made), sum(s.tokens_out for s in made)
        lines.append(f"in all: about {tokens_in:,} tokens in, {tokens_out:,} out{time}")
    output.write("\n".join(lines) + "\n")


def _row(step: Forecast) -> dict[str, Any]:
    messages = [{"role": m.role, "content": m.content} for m in step.prompt]
    return msgspec.structs.asdict(step) | {"prompt": messages}


def _lines(step: Forecast, *, has_labels: bool) -> list[str]:
    agents, models = ", ".join(step.agents), ", ".join(step.models)
    lines = [f"step {step.step}: {step.count}; agent {agents} on {models}"]
    if step.reused:
        lines.append(f"  about {step.reused:,} of them are in the log already")
    lines.append("  prompt, before its results are there:" if step.is_template else "  first prompt:")
    for message in step.prompt:
        lines += [f"    {message.role}: {line}" if n == 0 else f"      {line}" for n, line in _cut(message.content)]
    if step.problem:
        lines.append(f"    can't be rendered{' for some rows' if step.prompt else ''}: {step.problem}")
    if has_labels:
        reads = ", ".join(step.reads) or "no field"
        lines.append(
            f"  private:    {f'yes: {step.private}' if step.private else f'no; it may leave, made from {reads}'}"
        )
    lines.append(f"  tokens in:  about {step.tokens_in:,} ({step.tokens_in_basis})")
    lines.append(f"  tokens out: about {step.tokens_out:,} ({step.tokens_out_basis})")
    time = "unknown" if step.seconds is None else _time(step.seconds)
    return [*lines, f"  time:       {time} ({step.seconds_basis})", ""]


def _cut(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of a prompt that a terminal shows, control characters made visible."""
    lines = text[:SHOWN_CHARS].splitlines() or [""]
    shown = ["".join(c if c.isprintable() or c == "\t" else json.dumps(c)[1:-1] for c in line) for line in lines]
    left = len(text) - len("\n".join(lines[:SHOWN_LINES]))
    yield from enumerate(shown[:SHOWN_LINES])
    if left > 1:
        yield SHOWN_LINES, f"… and {left:,} more characters"


def _time(seconds: float) -> str:
    return f"about {duration(seconds)}"
