"""Leave to spend money: what a burst may cost, what would leave the machine, and whether somebody agreed to that.

Invariant: terms that come out of here have a cap that was agreed to: by `--yes`, by an answer, or by a budget that the
recipe or the command names. Without any of these there are none.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, get_args

import msgspec
import typer

from gx import output
from gx.cli.paper import Plan
from gx.core.errors import UsageError
from gx.core.terms import AT_CAP
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.core.recipe import Recipe
    from gx.core.terms import AtCap, Mode, Terms
    from gx.flow.privacy import Outlook


def dollars(text: str | None, *, flag: str = "--budget") -> float | None:
    """The US dollars of `2`, `2.00` or `$2`. :raises UsageError: if it is none."""
    if text is None:
        return None
    try:
        usd = float(text.strip().lower().removeprefix("$").removesuffix("usd"))
    except ValueError:
        usd = -1.0
    if not 0 < usd <= 1_000_000:
        raise UsageError(f"{flag}: expected dollars, such as 2.00, got {text!r}")
    return usd


def burst_mode(text: str | None) -> Mode | None:
    """What `--burst` says. :raises UsageError: if it says nothing that there is."""
    from gx.core.terms import Mode

    found: Mode | None = next((one for one in get_args(Mode) if one == text), None)
    if text is not None and found is None:
        raise UsageError(f"--burst: expected auto, off or force, got {text!r}")
    return found


def at_cap(text: str | None) -> AtCap | None:
    """What `--at-cap` says. :raises UsageError: if it says nothing that there is."""
    from gx.core.terms import AtCap

    found: AtCap | None = next((one for one in get_args(AtCap) if one == text), None)
    if text is not None and found is None:
        raise UsageError(f"--at-cap: expected local, stop or ask, got {text!r}")
    return found


def tokens_or_dollars(text: str | None, *, bursts: bool) -> tuple[int | None, float | None]:
    """What `gx run --budget` says: a whole number of tokens, or dollars with a point, a `$` or `usd`.

    :raises UsageError: if it is neither, or may be both because the run `bursts`.
    """
    if text is None:
        return None, None
    bare = text.replace("_", "").replace(",", "")
    if bare.isdecimal():
        if bursts:
            raise UsageError(
                f"--budget {text}: with --burst say which: dollars or tokens",
                hint=f"--budget '${text}' are dollars; tokens stand in the recipe, as budget: {{tokens: …}}",
            )
        if int(bare) < 1:
            raise UsageError(f"--budget: expected at least 1 token, got {text}")
        return int(bare), None
    try:
        return None, dollars(text)
    except UsageError:
        raise UsageError(
            f"--budget: expected a number of tokens, such as 200000, or dollars, such as $2.00, got {text!r}"
        ) from None


def terms_of(
    recipe: Recipe,
    *,
    mode: Mode | None = None,
    gpu: list[str] | None = None,
    containers: int | None = None,
    usd: float | None = None,
    at_cap: AtCap | None = None,
    target_s: float | None = None,
    is_rehearsal: bool = False,
) -> Terms:
    """The recipe's own terms, with what the command says in their place."""
    from gx.core.terms import Terms

    own = recipe.burst or Terms()
    given = {"mode": mode, "gpu": tuple(gpu) if gpu else None, "max_containers": containers, "target_s": target_s}
    changed = {name: value for name, value in given.items() if value is not None}
    cap = recipe.budget.usd if usd is None else usd
    then = recipe.budget.at_cap if at_cap is None else at_cap
    return msgspec.structs.replace(own, **changed, usd=cap, at_cap=then, is_rehearsal=is_rehearsal)


def agreed(terms: Terms, plan: Plan | None, outlooks: Mapping[str, Outlook], *, is_yes: bool) -> Terms:
    """The terms with a cap that somebody agreed to, after telling what it may cost. Rehearsals cost nothing.

    `plan` is None where nothing can be told of the work. :raises UsageError: if nobody agreed, and nobody can be asked.
    """
    if terms.mode == "off":
        return terms
    leaves_told(outlooks)
    if terms.is_rehearsal:
        output.note("a rehearsal: containers are processes on this machine; nothing leaves it, nothing is spent")
        return terms
    suggested = None if plan is None else _told(plan, terms)
    has_budget = terms.usd is not None
    cap = terms.usd if terms.usd is not None else suggested
    if cap is None:
        raise UsageError(
            "nobody can tell what this would cost, and there is no cap", hint=f"{command()} --budget '$2.00'"
        )
    output.note(f"cap: ${cap:.2f}, over the run's whole life; when it is reached, {AT_CAP[terms.at_cap]}")
    if not has_budget and not is_yes:
        if not output.has_person():
            raise UsageError(
                f"this may cost up to ${cap:.2f}: it needs a budget, --yes, or a terminal to ask on",
                hint=f"{command()} --budget '${cap:.2f}'",
            )
        if not typer.confirm(f"Rent for up to ${cap:.2f}?", err=True):
            output.note("nothing was rented")
            raise typer.Exit(ExitCode.error)
    return msgspec.structs.replace(terms, usd=cap)


def leaves_told(outlooks: Mapping[str, Outlook]) -> None:
    """Say which steps may leave this machine, with what they read, and which stay, and why."""
    going = {step: one for step, one in outlooks.items() if not one.reason or one.depends}
    for step, one in going.items():
        read = f" (it reads {', '.join(one.reads)})" if one.reads else ""
        unless = ", unless a memory is in them that is not shared" if one.depends else ""
        output.note(f"may leave this machine: prompts of step {step}{unless}{read}")
    for step, one in outlooks.items():
        if step not in going:
            output.note(f"stays here: step {step}: {one.reason}")
    if not going:
        output.note("nothing may leave this machine: no container will be rented")


def _told(plan: Plan, terms: Terms) -> float:
    """Say the estimate; the cap that goes with it, which has room for one container at least."""
    at = plan.forced(terms.max_containers) if terms.mode == "force" else plan.chosen
    choice, cost = plan.sheet.choices[at], plan.estimates[at]
    what = f"{cost} for {choice.containers} x {choice.gpu}" if choice.containers else "nothing, this machine alone"
    output.note(f"estimate: {what}; prices: {plan.source}, {plan.date}")
    if terms.mode == "auto":
        output.note(f"placement: {plan.sheet.verdict.reason}")
    for text in plan.sheet.assumed:
        output.note(f"assumed: {text}")
    return max(0.01, ceil(100 * max(cost.high_usd, plan.reserve_usd)) / 100)


def command() -> str:
    """What was typed."""
    return shlex.join(["gx", *sys.argv[1:]])
