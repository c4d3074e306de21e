"""What a run would do, without doing it: tasks, first prompts, tokens and time of every step.

Counts and prompts come from the same code that a run uses; only a sample of the rows is rendered. Whatever depends on
results that are not there yet is estimated, and every estimate says what it rests on. The log is read for what earlier
runs took; nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from math import ceil

import msgspec

from gx.core.errors import GxError
from gx.core.message import Message, Value
from gx.core.recipe import Agent
from gx.flow import templates
from gx.flow.memories import NAME
from gx.flow.persona import opening
from gx.flow.plan import Plan, StepPlan
from gx.flow.privacy import steps_private
from gx.flow.withheld import named_in
from gx.run.log import EventLog
from gx.run.rehearsal import CHARS_PER_TOKEN, Rehearsal, Survey, tokens_of

CONTEXT_TOKENS = 8192
"""What a turn may fill where nobody says otherwise; a model that was trained on less has less."""
RECENT = 5_000
"""Earlier attempts that a rate is measured over, the newest first."""


class Past(Value, frozen=True, kw_only=True):
    """What earlier tasks took. `busy_s` counts a second once, however many of them ran in it."""

    tasks: int
    tokens_in: int
    tokens_out: int
    busy_s: float

    @property
    def tokens_per_s(self) -> float | None:
        """Prompts and answers together; `None` if nothing was measured."""
        return (self.tokens_in + self.tokens_out) / self.busy_s if self.busy_s > 0 else None


class Forecast(Value, frozen=True, kw_only=True):
    """One step of the run to come. `tasks` is an upper bound or a guess unless `is_exact`; `count` says it in words.

    `prompt` is the first one, or the bare template if `is_template`; `problem` says why there is none. `reused` tasks
    are in the log. Tokens are those of the other tasks. `seconds` is `None` where nothing is known. Each `…_basis` says
    what an estimate rests on. `private` says why its tasks may not leave this machine, empty if they may; `reads` are
    the names of what they are made from.
    """

    step: str
    tasks: int
    is_exact: bool
    count: str
    agents: tuple[str, ...]
    models: tuple[str, ...]
    prompt: tuple[Message, ...]
    is_template: bool
    problem: str
    reused: int
    tokens_in: int
    tokens_in_basis: str
    tokens_out: int
    tokens_out_basis: str
    seconds: float | None
    seconds_basis: str
    private: str = ""
    reads: tuple[str, ...] = ()


def absent_fields(private: Iterable[str], rows: Survey) -> list[str]:
    """The private fields that no row of the sample has: names that may be mistyped."""
    values = [msgspec.json.decode(row.value) for row in rows.sample if row.value is not None]
    return [name for name in private if values and not any(named_in(value, frozenset((name,))) for value in values)]


def past(log: EventLog, model: str, *, recipe: str | None = None, step: str | None = None) -> Past | None:
    """What the log says of a model (its SHA-256), or of one step of a recipe on it; `None` if it never ran."""
    where, values = "t.model = ? AND a.outcome = 'succeeded'", [model]
    if step is not None and recipe is not None:
        where += " AND t.step = ? AND a.run IN (SELECT run FROM runs WHERE name = ?)"
        values += [step, recipe]
    ((tasks, tokens_in, tokens_out, busy_s),) = log.file.ask(
        f"""WITH a AS (SELECT epoch(a.started) AS started, epoch(a.ended) AS ended, a.tok_in, a.tok_out
                FROM attempts a JOIN tasks t USING (task) WHERE {where} ORDER BY a.started DESC LIMIT {RECENT}),
            b AS (SELECT *, max(ended) OVER (ORDER BY started, ended
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM a)
        SELECT count(*), sum(tok_in), sum(tok_out), sum(greatest(0, ended - greatest(started, coalesce(before, 0))))
        FROM b""",
        values,
    )
    if not tasks:
        return None
    return Past(tasks=tasks, tokens_in=int(tokens_in), tokens_out=int(tokens_out), busy_s=float(busy_s))


class Forecaster:
    """Forecasts the steps of one plan. `models` maps the names of the models that are here to their SHA-256.

    `find_past(model, step)` is `past` for a SHA-256, of one step or of all (`None`); `find_results` gives the keys that
    the log has results of. `contexts` are the tokens that a turn may fill, by model name.
    """

    def __init__(
        self,
        plan: Plan,
        rows: Survey,
        *,
        models: dict[str, str],
        contexts: dict[str, int],
        find_past: Callable[[str, str | None], Past | None],
        find_results: Callable[[Collection[str]], Collection[str]],
    ) -> None:
        self._plan, self._rows, self._models, self._contexts = plan, rows, models, contexts
        self._find_past, self._find_results = find_past, find_results
        self._outlooks = steps_private(plan)
        self._results: dict[str, int] = {}  # of each step so far, and the tokens of one of them
        self._result_tokens: dict[str, float] = {}

    def steps(self) -> Iterator[Forecast]:
        """A forecast for each step, in the order of the plan."""
        for step in self._plan.steps:
            yield self._step(step)

    def _step(self, step: StepPlan) -> Forecast:
        agents = [self._plan.recipe.agents[name] for name in step.agents]
        tokens_out, out_basis = self._tokens_out(step, agents)
        rendered = Rehearsal(self._plan, step, self._rows.sample, self._models) if _is_renderable(step) else None
        widths = self._tree(step, agents[0], tokens_out) if step.step.reduce else []
        items = self._items(step)
        tasks = sum(n for n, _ in widths) if widths else items * len(step.combos)
        expected, reused = float(tasks), 0
        if rendered is not None:
            expected = (tasks - self._unusable(step)) * len(rendered.turns) / max(1, rendered.tried)
            found = self._find_results([turn.key() for turn in rendered.turns])
            share = sum(turn.key() in found for turn in rendered.turns) / max(1, len(rendered.turns))
            reused = round(expected * share)
            tokens_in, in_basis = rendered.tokens_in(), rendered.basis()
            prompt = rendered.turns[0].messages if rendered.turns else ()
        else:
            own = _template(self._plan, step)
            prompt, in_basis = own, "from the template and the estimated lengths of the results that it will hold"
            tokens_in = tokens_of(own) + self._tokens_read(step)
            if widths:
                tokens_in = tokens_of(own) + sum(taken for _, taken in widths) / max(1, tasks)
        self._results[step.id] = 1 if widths else round(expected)
        self._result_tokens[step.id] = tokens_out
        fresh = max(0.0, expected - reused)
        seconds, seconds_basis = self._seconds(step, agents, fresh * (tokens_in + tokens_out))
        is_exact = self._is_exact(step)
        return Forecast(
            step=step.id,
            tasks=tasks,
            is_exact=is_exact,
            count=self._count(step, tasks, is_exact=is_exact),
            agents=tuple(dict.fromkeys(agent.name for agent in agents)),
            models=tuple(dict.fromkeys(self._plan.recipe.models[agent.model].source for agent in agents)),
            prompt=prompt,
            is_template=rendered is None,
            problem=rendered.problem if rendered is not None else "",
            reused=reused,
            tokens_in=round(fresh * tokens_in),
            tokens_in_basis=in_basis,
            tokens_out=round(fresh * tokens_out),
            tokens_out_basis=out_basis,
            seconds=seconds,
            seconds_basis=seconds_basis,
            private=self._private(step, rendered),
            reads=self._outlooks[step.id].reads,
        )

    def _private(self, step: StepPlan, rendered: Rehearsal | None) -> str:
        """Why the step's tasks are private: as those that were rendered are, else as the recipe's text says.

        Of those that search the memory it is as the text says: nothing is searched here.
        """
        if rendered is None or not rendered.turns:
            return self._outlooks[step.id].reason
        some = "" if len(rendered.private) == len(rendered.turns) else f" in {len(rendered.private):,} of {{}} rendered"
        if not rendered.private and NAME in self._outlooks[step.id].reads:
            return self._outlooks[step.id].reason
        return rendered.private[0] + some.format(f"{len(rendered.turns):,}") if rendered.private else ""

    # ── how many ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _items(self, step: StepPlan) -> int:
        of = step.step.for_each or step.step.reduce
        return self._rows.rows if of == "inputs" else 1 if of is None else self._results[of]

    def _unusable(self, step: StepPlan) -> int:
        return self._rows.unusable * len(step.combos) if step.step.for_each == "inputs" else 0

    def _is_exact(self, step: StepPlan) -> bool:
        return step.step.for_each in (None, "inputs") and not step.step.reduce and not step.step.when

    def _count(self, step: StepPlan, tasks: int, *, is_exact: bool) -> str:
        noun = "task" if tasks == 1 else "tasks"
        each = f" for each of {len(step.combos):,} combinations" if len(step.combos) > 1 else ""
        if step.step.reduce:
            return f"a tree of about {tasks:,} {noun} over `{step.step.reduce}`"
        if step.step.for_each is None:
            return f"{'' if is_exact else 'at most '}{tasks:,} {noun}{each}"
        of = "row" if step.step.for_each == "inputs" else f"result of `{step.step.for_each}`"
        return f"{'' if is_exact else 'at most '}{tasks:,} {noun}, one for each {of}{each.replace(' for', ' and')}"

    def _tree(self, step: StepPlan, agent: Agent, tokens_out: float) -> list[tuple[int, float]]:
        """The levels of a reduce: how many tasks, and the tokens of all items that they take."""
        room = self._contexts.get(agent.model, CONTEXT_TOKENS) - agent.sampling.max_tokens
        room -= ceil(tokens_of(_template(self._plan, step)))
        count, each = self._results[step.step.reduce or ""], self._result_tokens[step.step.reduce or ""]
        levels: list[tuple[int, float]] = []
        while not levels or count > 1:
            fitting = max(int(room / max(each, 1.0)), 2 if levels else 1)
            groups = max(1, ceil(count / fitting))
            groups -= bool(levels) and groups > 1 and count % fitting == 1  # the last one alone joins the one before
            levels.append((groups, count * each))
            count, each = groups, tokens_out
        return levels

    # ── how long ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _tokens_read(self, step: StepPlan) -> float:
        """Of the results and rows that the prompt will hold."""
        names = templates.names_in(step.step.prompt or "")
        found = sum(self._results[name] * self._result_tokens[name] for name in step.reads_steps)
        found += sum(self._results[n] * self._result_tokens[n] for n in step.answers) / max(1, self._rows.rows)
        if step.step.for_each not in (None, "inputs") and "item" in names:
            found += self._result_tokens[step.step.for_each or ""]
        if self._rows.sample and ("input" in names or step.step.for_each == "inputs"):
            found += sum(len(row.value or b"") for row in self._rows.sample) / len(self._rows.sample) / CHARS_PER_TOKEN
        return found

    def _tokens_out(self, step: StepPlan, agents: list[Agent]) -> tuple[float, str]:
        """Of one task: as this step's tasks had on this model, else half of what they may have."""
        each, earlier = [], 0
        for agent in agents:
            known = self._find_past(self._models.get(agent.model, ""), step.id)
            earlier += known.tasks if known else 0
            each.append(known.tokens_out / known.tasks if known else agent.sampling.max_tokens / 2)
        mean = sum(each) / len(each)
        if not earlier:
            return mean, f"{mean:,.0f} a task, half of max_tokens: this step has not run on this model before"
        return mean, f"{mean:,.0f} a task, as in {earlier:,} earlier {'one' if earlier == 1 else 'ones'}"

    def _seconds(self, step: StepPlan, agents: list[Agent], tokens: float) -> tuple[float | None, str]:
        if not tokens:
            return 0.0, "nothing is left to compute"
        shas = list(dict.fromkeys(self._models.get(agent.model, "") for agent in agents))
        of_step = [self._find_past(sha, step.id) for sha in shas]
        of_model = [one or self._find_past(sha, None) for one, sha in zip(of_step, shas, strict=True)]
        rates = [one.tokens_per_s for one in of_model if one is not None and one.tokens_per_s]
        if len(rates) < len(shas):
            return None, "nothing is known of this model's speed here; `--limit 5` measures it"
        rate = len(rates) / sum(1 / r for r in rates)
        what = "this step" if all(of_step) else "this model"
        return tokens / rate, f"at {rate:,.0f} tokens/s, prompts and answers together, as earlier tasks of {what}"


def _is_renderable(step: StepPlan) -> bool:
    """Whether a prompt can be made before anything ran."""
    reads_results = bool(step.reads_steps or step.answers)
    return step.step.for_each in (None, "inputs") and step.step.reduce is None and not reads_results


def _template(plan: Plan, step: StepPlan) -> tuple[Message, ...]:
    """The prompt as it stands in the recipe; the persona needs no results, and is rendered."""
    agent = plan.recipe.agents[step.agents[0]]
    try:
        begins = opening(agent, plan.params, step.combos[0])
    except GxError:
        begins = (Message(role="system", content=agent.persona),)
    return (*begins, Message(role="user", content=step.step.prompt or ""))
