"""A burst planned on paper, for a terminal or a program: which work, at which prices, and the lines that come of it.

What is reckoned is `gx.run.replay.paper`'s; prices are `cloud.cost`'s and `cloud.prices`'. Nothing is run or rented.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gx import output
from gx.core.message import Value
from gx.core.words import duration

if TYPE_CHECKING:
    from cloud.cost import Estimate, Rates
    from gx.core.recipe import Recipe
    from gx.core.task import Offer
    from gx.core.terms import Terms
    from gx.node.client import Submission
    from gx.node.workspace import Workspace
    from gx.run.replay.paper import Choice, Scene, Sheet
    from gx.settings import Settings

DEFAULT_GPUS = ("L4", "A10", "H100")
"""What is weighed where nobody names a GPU: a cheap one, a middling one, a fast one."""
MEASURED_SHARE, ASSUMED_SHARE = 0.8, 0.5
"""Of the pace of a container that an estimate's upper end counts on, by whether any was measured."""
SLOTS = 32
"""What a bench runs at once where no setting says otherwise."""
_BAR = 32


class Plan(Value, frozen=True, kw_only=True):
    """What was reckoned, with the range of what each choice costs, in their order.

    `reserve_usd` is what a cap must have room for, so that one container of the cheapest GPU may be rented.
    """

    sheet: Sheet
    scene: Scene
    estimates: tuple[Estimate, ...]
    reserve_usd: float
    deadline_s: float | None
    source: str
    date: str

    @property
    def chosen(self) -> int:
        """The place of the choice that placement would make."""
        return next((n for n, choice in enumerate(self.sheet.choices) if choice.is_chosen), 0)

    def forced(self, containers: int) -> int:
        """The place of the choice that `force` makes: so many of the cheapest GPU."""
        cheapest = min((c.gpu for c in self.sheet.choices if c.gpu), key=lambda gpu: _rates()[gpu].usd_per_s)
        places = [n for n, c in enumerate(self.sheet.choices) if c.gpu == cheapest and c.containers <= containers]
        return max(places, key=lambda n: self.sheet.choices[n].containers)


def scene_of_recipe(asked: Submission, settings: Settings, place: Workspace) -> Scene:
    """A run to come, from the forecast of `gx run --dry-run`. :raises GxError: if it couldn't begin."""
    from gx import wiring
    from gx.cli.dryrun import forecasts
    from gx.flow.privacy import steps_private
    from gx.run.replay.forecast import scene_of

    plan, made = forecasts(asked, settings, place)
    private = [step for step, outlook in steps_private(plan).items() if outlook.reason]
    sizes = _sizes(wiring, plan.recipe, settings, Path(asked.recipe_folder))
    made_of = scene_of(plan, made, slots=settings.slots or SLOTS, private=private, sizes=sizes)
    return msgspec.structs.replace(made_of, model_bytes=sum(sizes.values()))


def scene_of_run(place: Workspace, run: str, recipe: Recipe) -> Scene:
    """What is left of a run of that recipe in the log. :raises GxError: if nothing can be told of it."""
    from gx import wiring
    from gx.cli.asking import asked
    from gx.run.replay import left
    from gx.settings import load

    found = asked(place, lambda ask: left.scene_of_run(ask, run, now=time.time()), runs=[run])
    sizes = _sizes(wiring, recipe, load(), Path.cwd())
    return msgspec.structs.replace(found, model_bytes=sum(sizes.values()))


def plan_of(scene: Scene, terms: Terms, recipe: Recipe) -> Plan:
    """The choices that those terms leave. :raises CloudError: without the cloud extra. :raises UsageError: no price."""
    from cloud.cost import input_s
    from gx.core.errors import UsageError
    from gx.run.replay.paper import on_paper

    rates = _rates(scene.model_bytes)
    gpus = terms.gpu or DEFAULT_GPUS
    if unknown := [gpu for gpu in gpus if gpu not in rates]:
        raise UsageError(f"--gpu: there is no price of {unknown[0]!r}", hint=f"known: {', '.join(rates)}")
    deadline_s = scene.deadline_s if terms.target_s is None else terms.target_s
    limits = [step.timeout_s for step in recipe.steps if step.timeout_s is not None]
    offers = _offers(rates, gpus, input_s(max(limits, default=None)))
    sheet = on_paper(scene, offers, most=terms.max_containers, usd=terms.usd, deadline_s=deadline_s)
    known = [rates[gpu] for gpu in gpus]
    return Plan(
        sheet=sheet,
        scene=scene,
        estimates=tuple(_estimate(choice, rates, scene, terms.usd) for choice in sheet.choices),
        reserve_usd=min(offer.reserve_usd for offer in offers),
        deadline_s=deadline_s,
        source=", ".join(dict.fromkeys(one.source for one in known)),
        date=", ".join(dict.fromkeys(one.date for one in known)),
    )


def show(plan: Plan, as_json: bool | None) -> None:
    """The table and the bars on stdout; what was assumed, and the sentence, on stderr. JSON lines have all of it."""
    rows = [_row(plan, n) for n in range(len(plan.sheet.choices))]
    if output.wants_json(as_json):
        output.emit(rows, as_json=True)
    else:
        output.emit([row_of(plan, n) for n in range(len(plan.sheet.choices))], as_json=False)
        output.write("\n" + "".join(f"{line}\n" for line in bars(plan, sys.stdout.encoding or "ascii")))
    for note in plan.scene.notes:
        output.note(f"note: {note}")
    for text in plan.sheet.assumed:
        output.note(f"assumed: {text}")
    output.note(f"prices: {plan.source}, {plan.date}; dollars are a range, and what is measured may differ")
    if plan.scene.private_steps:
        output.note(f"stays on this machine: {', '.join(plan.scene.private_steps)}")
    output.note(f"placement's choice: {plan.sheet.verdict.reason}")
    output.note("nothing was run, nothing was rented")


def bars(plan: Plan, encoding: str) -> list[str]:
    """A bar for the time of each choice, the longest the widest; `<` marks placement's."""
    full = _mark("█", encoding) or "#"
    times = [choice.seconds for choice in plan.sheet.choices]
    longest_s = max((s for s in times if isfinite(s)), default=0.0)
    names = [_name(choice) for choice in plan.sheet.choices]
    width = max(map(len, names))
    lines = []
    for n, choice in enumerate(plan.sheet.choices):
        share = choice.seconds / longest_s if longest_s and isfinite(choice.seconds) else 1.0
        late = "" if choice.is_in_time is not False else "  late"
        chosen = "  < placement's choice" if choice.is_chosen else ""
        bar = full * max(1, round(share * _BAR))
        lines.append(f"{names[n]:<{width}}  {bar:<{_BAR}}  {duration(choice.seconds)}{late}{chosen}")
    return lines


# ── prices ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _rates(model_bytes: int = 0) -> dict[str, Rates]:
    """The rates of containers for such models that are known without asking anybody: `gx cloud status` asks.

    :raises CloudError: if the SDK isn't installed, or can't be loaded.
    """
    from cloud.sdk import loading

    with loading():
        from cloud import prices
        from cloud.cost import sized
    return sized(prices.known(), model_bytes)


def _offers(rates: dict[str, Rates], gpus: Sequence[str], timeout_s: float) -> list[Offer]:
    from cloud.app import START_UP_S
    from cloud.cost import offers

    made = offers(rates, timeout_s=timeout_s, start_limit_s=START_UP_S)
    return [made[gpu] for gpu in gpus]


def _estimate(choice: Choice, rates: dict[str, Rates], scene: Scene, cap_usd: float | None) -> Estimate:
    """From what it costs as it was played, to what it costs if containers are slower than they are taken to be."""
    from cloud.cost import Estimate, estimate

    if not choice.containers:
        return Estimate(low_usd=0.0, high_usd=0.0)
    pace, slow = choice.tokens_per_s, ASSUMED_SHARE if scene.rented is None else MEASURED_SHARE
    made = estimate(
        rates[choice.gpu],
        tokens=choice.tokens_rented,
        slow_tokens_per_s=slow * pace,
        fast_tokens_per_s=pace,
        containers=choice.containers,
        cap_usd=cap_usd,
    )
    return msgspec.structs.replace(made, low_usd=min(made.low_usd, choice.usd), high_usd=max(made.high_usd, choice.usd))


def _sizes(wiring: Any, recipe: Recipe, settings: Settings, folder: Path) -> dict[str, int]:
    """The bytes of the models that are here, by source."""
    from gx.core.errors import ModelError

    found: dict[str, int] = {}
    for name in wiring.used_models(recipe):
        only = msgspec.structs.replace(recipe, models={name: recipe.models[name]})
        try:
            found[recipe.models[name].source] = wiring.resolve_models(only, settings, folder)[name].size_bytes
        except ModelError:
            continue
    return found


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _row(plan: Plan, n: int) -> dict[str, Any]:
    choice, cost = plan.sheet.choices[n], plan.estimates[n]
    row = {
        "gpu": choice.gpu or None,
        "containers": choice.containers,
        "seconds": round(choice.seconds, 1) if isfinite(choice.seconds) else None,
        "usd_low": round(cost.low_usd, 4),
        "usd_high": round(cost.high_usd, 4),
        "usd_played": round(choice.usd, 4),
        "container_s": round(choice.container_s, 1),
        "tokens_rented": round(choice.tokens_rented),
        "meets_deadline": choice.is_in_time,
        "is_chosen": choice.is_chosen,
        "assumed": list(plan.sheet.assumed),
        "prices": {"source": cost.source, "date": cost.date},
    }
    return row | ({"reason": plan.sheet.verdict.reason} if choice.is_chosen else {})


def row_of(plan: Plan, n: int) -> dict[str, Any]:
    """A choice of the plan as a row of its table."""
    choice, cost = plan.sheet.choices[n], plan.estimates[n]
    row = {"with": _name(choice), "time": duration(choice.seconds), "dollars": str(cost) if choice.containers else "$0"}
    if plan.deadline_s is not None:
        row[f"within {duration(plan.deadline_s)}"] = "yes" if choice.is_in_time else "no"
    return row | {"": "<" if choice.is_chosen else ""}


def _name(choice: Choice) -> str:
    return f"{choice.containers} x {choice.gpu}" if choice.containers else "edge only"


def _mark(text: str, encoding: str) -> str:
    """The text, if the stream can show it."""
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ""
    return text
