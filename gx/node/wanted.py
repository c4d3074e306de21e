"""What a submission comes to, before anything is written: its plan, its models' files, its input, its fingerprint.

It reads files, and may take a while. Invariant: what can't be used is refused here, and leaves nothing behind.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple, cast

import msgspec

from gx import __version__, wiring
from gx.core import ids
from gx.core.errors import UsageError
from gx.core.recipe import Recipe
from gx.core.terms import Terms
from gx.flow import parse
from gx.flow.plan import Plan
from gx.node import reranking, wire
from gx.node.client import Submission
from gx.node.names import as_meant
from gx.node.upload import Upload
from gx.run.inputs import Source, open_inputs
from gx.run.rulecheck import check_queries
from gx.settings import NONE, Settings


class Wanted(NamedTuple):
    """What a submission comes to, before anything is written."""

    plan: Plan
    models: dict[str, wiring.LocalModel]
    source: Source | None
    fingerprint: str | None


def read(asked: wire.Asked, upload: Upload | None) -> Wanted:
    """What was asked for, read and checked: it may take a while, as a large input's digest does."""
    wanted, settings = as_meant(asked.submission), asked.settings
    plan = parse.plan_recipe(wanted.recipe_text, wanted.params, file=wanted.recipe_file)
    check_queries(plan.recipe, wanted.recipe_text, file=wanted.recipe_file)
    if wanted.fresh_from is not None and wanted.fresh_from not in {step.id for step in plan.steps}:
        raise UsageError(f"the recipe has no step `{wanted.fresh_from}` to compute anew from")
    models = wiring.resolve_models(plan.recipe, settings, Path(wanted.recipe_folder))
    _check_reranker(plan, settings, Path(wanted.folder))
    source = source_of(wanted, plan, settings, stdin=upload)
    digests = {name: model.digest for name, model in models.items()}
    return Wanted(plan, models, source, fingerprint(plan.recipe, plan.params, digests, wanted, source))


def source_of(asked: Submission, plan: Plan, settings: Settings, *, stdin: io.RawIOBase | None = None) -> Source | None:
    """The input that was asked for, or the recipe's own; `None` if no step takes rows.

    :raises GxError: if there is none, or it can't be opened.
    """
    if not plan.reads_inputs:
        return None
    spec, base = asked.inputs, Path(asked.folder)
    if spec is None:
        spec, base = plan.recipe.inputs, Path(asked.recipe_folder)
    if spec is None:
        raise UsageError("the recipe takes rows and names no inputs", hint="give them with -i FILE, or -i - for stdin")
    if spec == "-" and stdin is None:
        raise UsageError("the input is stdin, and none was sent", hint="give the rows with -i FILE")
    stream = cast("io.BufferedReader", stdin)
    return open_inputs(spec, base_dir=base, fmt=asked.input_format, stdin=stream, max_row_bytes=settings.max_row_bytes)


def _check_reranker(plan: Plan, settings: Settings, base_dir: Path) -> None:
    """:raises GxError: if searches of the run are to be reranked, and can't be."""
    recalls = [step.step.recall(plan.recipe.agents[name]) for step in plan.steps for name in step.agents]
    wishes = [recall.rerank for recall in recalls if recall is not None]
    if settings.memory_reranker != NONE and any(wish is not False for wish in wishes):
        wiring.reranker(settings.memory_reranker, settings, base_dir)
    elif True in wishes and settings.memory_reranker == NONE:
        raise reranking.unset()


def terms_of(asked: Submission, recipe: Recipe) -> Terms | None:
    """On what terms a run may rent: those asked for, or the recipe's own with its budget's dollars as their cap."""
    if asked.burst is not None or recipe.burst is None:
        return asked.burst
    return msgspec.structs.replace(recipe.burst, usd=recipe.budget.usd, at_cap=recipe.budget.at_cap)


def fingerprint(
    recipe: Recipe, params: dict[str, object], models: dict[str, str], asked: Submission, source: Source | None
) -> str | None:
    """What makes two submissions the same run; `None` for streamed input without a name, which is always a new one.

    `models` are the digests of their files: another file of the same name makes another run. So does another version
    of gx, since prompts are made by its code; results are reused by key all the same.
    """
    content = source.digest() if source is not None else "none"
    if content is None and asked.name is None:
        return None
    rows = (content or "streamed", asked.input_format, asked.limit, asked.sample)
    made_by = (ids.digest(parse.fingerprint_source(recipe)), params, models, __version__)
    anew = () if asked.fresh_from is None else (asked.fresh_from,)
    return ids.digest_of(asked.name, *rows, *made_by, *anew)
