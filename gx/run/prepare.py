"""From a queued task to a turn that a worker can run: what was found for it, its turn, its key, its label.

The only stage with I/O before a grant, and that through `Contents` and `Recalls`. What can't be rendered fails as a
task, with the reason; it never stops the run. Equal keys are noticed here: a result that is in the log is taken, not
computed again.

A turn without a private label was made whole from values that hold nothing private: see `gx.run.labels`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from gx.core import event as e
from gx.core.errors import GxError, ours
from gx.core.message import Label, Turn
from gx.core.ports import Memory, Near
from gx.core.recipe import Agent
from gx.core.task import Status
from gx.core.view import RunState, TaskState
from gx.flow.plan import Plan, StepPlan
from gx.flow.privacy import marked
from gx.flow.withheld import PrivateRead
from gx.run import calibration, outcomes
from gx.run.contents import Contents, blob_of
from gx.run.egress import PrivateTurn
from gx.run.labels import Labels, agent_of
from gx.run.long import condensing
from gx.run.long.fitting import Wanted
from gx.run.long.looking import Looks
from gx.run.memory.learning import Learner
from gx.run.memory.recall import Recalls
from gx.run.turns import Chat, Turns
from gx.run.values import Values

FindResults = Callable[[Collection[str]], Mapping[str, tuple[str, e.Ref, str, e.Ref | None]]]
"""Keys → (task, output, finish, likelihoods) of results that the log had before this run began."""


class Prepared(msgspec.Struct):
    """What one batch of preparing gave: events, their blobs, and the turns at hand by task.

    A turn that may not leave is a `PrivateTurn`; `private` says why, by task.
    """

    bodies: list[e.Body] = []
    blobs: list[e.Blob] = []
    turns: dict[str, Turn] = {}
    private: dict[str, str] = {}


class Preparer:
    """Prepares the tasks of one run. `models` maps a model's name in the recipe to its SHA-256.

    `recalls` are its searches in `memory`, `learner` says what its results leave there; `looks` are those at prompts
    that may be too long.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunState,
        contents: Contents,
        models: dict[str, str],
        find_results: FindResults,
        *,
        memory: Memory | None = None,
    ) -> None:
        self._plan, self._run, self._contents = plan, run, contents
        self._models, self._find_results = models, find_results
        self._labels = Labels(plan, run)
        self._values = Values(plan, run, contents, self._labels)
        self._turns = Turns(plan, run, models, self._labels, self._values, searches=memory is not None)
        self.recalls = Recalls(memory, contents)
        self.learner = Learner(plan, run, self._values)
        self._condensing = condensing.Condensing(run)
        self.looks = Looks(memory if isinstance(memory, Near) else None)
        self._known: set[tuple[e.Ref, Label]] = set()
        examples = [one for agent in plan.recipe.agents.values() for one in agent.examples]
        self._of_personas = {text for one in examples for text in (one.input, one.output)}

    def prepare(self, task_ids: Iterable[str]) -> Prepared:
        """The events that bring these tasks from queued to prepared, answered, skipped or failed.

        A task that the log knows as prepared (before a restart) gets its turn again, and no second event, unless it
        goes another way by now. One that is to be compared with rows that aren't read yet, for which the memory is
        searched first, or whose prompt is looked at, stays as it is.
        """
        made = Prepared()
        tasks = [self._run.tasks[task_id] for task_id in task_ids]
        tasks = [task for task in tasks if not task.status.is_terminal and not self._waits(task)]
        tasks = [t for t in tasks if not self.looks.is_waited_for(t.id) and not self._condensing.waits(t)]
        self._values.bring(tasks)
        turns: list[tuple[TaskState, Turn, str, e.Shortened | None]] = []
        for task in tasks:
            if task.part_of is not None and self._run.tasks[task.part_of].status is Status.cancelled:
                made.bodies.extend(outcomes.cancel(self._run, "what it is a part of was cancelled", tasks=[task]))
                continue
            if task.status is Status.queued and task.error is not None:
                made.bodies.append(self._failed(task, *task.error))
                continue
            try:
                if (found := self._found(task)) is None:
                    continue
                short = self._shortened(task)
                turn = self._turns.turn(task, found, is_whole=True, shortened=short)
                if turn is None:
                    made.bodies.append(self._skipped(task))
                    continue
                why, key = self._why_private(task, turn, found, short), turn.key()
            except Exception as error:  # noqa: BLE001  whatever a row does to us, the others go on
                told = ours(error)
                made.bodies.append(self._failed(task, told.code, told.message))
                continue
            if why:
                made.private[task.id], turn = why, PrivateTurn.of(turn)
            turns.append((task, turn, key, short))
        answers = self._answers({key: turn for _, turn, key, _ in turns})
        for task, turn, key, short in turns:
            is_news = task.label is not _label(turn) or (self._recalls(task) and task.found is None)
            is_news |= short != task.shortened
            if (answer := answers.get(key)) is not None:
                if is_news:  # what is made from the answer asks for the label of this task
                    made.bodies.append(self._prepared(task, turn, key, short, made.blobs))
                made.bodies.append(outcomes.answered(self._run, task, key, answer))
                self.looks.forget(task.id)
                continue
            if self._may_be_long(task, turn, key):
                self.looks.want(task.id, partial(self._wanted, task))
                continue
            if (seen := self.looks.known(task.id, turn.model)) is not None and seen.parts:
                bodies, blobs = self._condensing.queued(task, seen.parts, _label(turn))
                made.bodies += bodies
                made.blobs += blobs
                self.looks.forget(task.id)
                continue
            made.turns[task.id] = turn
            # The key or the label of a prepared task changes where its step was routed since.
            if task.status is Status.queued or task.key != key or is_news:
                made.bodies.append(self._prepared(task, turn, key, short, made.blobs))
        return made

    def digests(self) -> list[str]:
        """The digests of all models that the run may use."""
        return list(self._models.values())

    def model_of(self, agent: Agent) -> str:
        """The SHA-256 of the agent's model."""
        return self._models[agent.model]

    def chats(self, step: StepPlan, level: int, below: Sequence[e.Ref], spans: Iterable[tuple[int, int]]) -> list[Chat]:
        """The prompts that a reduce would make of these spans over `below`, to be counted. :raises GxError: if none."""
        return self._turns.chats(step, level, below, spans)

    # ── one task ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _found(self, task: TaskState) -> tuple[e.Recalled, ...] | None:
        """What the memory gave for the task; `None` while that isn't known. :raises GxError: if it can't be asked."""
        recall = self._plan.step(task.step).step.recall(agent_of(self._plan, self._run, task))
        if recall is None or task.found is not None:
            return task.found or ()
        if self.recalls.known(task.id) is None:
            self.recalls.want(task.id, self._turns.query(task, recall, is_whole=True))
        known = self.recalls.known(task.id)
        return None if known is None else known.found

    def _recalls(self, task: TaskState) -> bool:
        return self._plan.step(task.step).step.recall(agent_of(self._plan, self._run, task)) is not None

    def _shortened(self, task: TaskState) -> e.Shortened | None:
        """What is left out of the task's prompt, as far as that is known. :raises GxError: if it can't be."""
        model = self._model(task)
        if (known := task.shortened) is not None and known.model == model:
            return known
        if task.status is Status.queued:
            self._condensing.last(task)
        seen = self.looks.known(task.id, model)
        return None if seen is None else seen.shortened

    def _may_be_long(self, task: TaskState, turn: Turn, key: str) -> bool:
        """Whether the prompt is to be looked at before the task is prepared: for the first time, or another model."""
        long = self._plan.step(task.step).step.long
        is_cut = (long.dialogue if self._is_dialogue(task) else long.how) != "refuse" and turn.choice != "calibrated"
        if not is_cut or self.looks.bench is None or (task.status is not Status.queued and task.key == key):
            return False
        if self.looks.known(task.id, turn.model) is not None or self._shortened(task) is not None:
            return False
        agent = agent_of(self._plan, self._run, task)
        return not self.looks.surely_fits(turn, self._plan.recipe.models[agent.model].context)

    def _wanted(self, task: TaskState) -> Wanted:
        """The task's prompt, to be looked at. :raises GxError: if what it is made from isn't there any more."""
        step, found = self._plan.step(task.step), self._found(task) or ()

        def make(shortened: e.Shortened | None) -> Turn:
            turn = self._turns.turn(task, found, is_whole=True, shortened=shortened)
            if turn is None:
                raise GxError("the step's `when` is false by now", code="template")
            return turn

        return Wanted(
            turn=make(None),
            names=self._values.names(task, step, is_whole=True),
            long=step.step.long,
            head=self._turns.head(task),
            is_dialogue=self._is_dialogue(task),
            make=make,
            notes=condensing.notes(self._condensing.last(task), self._contents),
        )

    def _is_dialogue(self, task: TaskState) -> bool:
        """Whether the task's row brings its messages itself."""
        return task.is_batch and task.span is None and self._plan.step(task.step).step.prompt is None

    def _model(self, task: TaskState) -> str:
        return self._models[agent_of(self._plan, self._run, task).model]

    def _why_private(
        self, task: TaskState, turn: Turn, found: tuple[e.Recalled, ...], shortened: e.Shortened | None
    ) -> str:
        """Why the task's turn may not leave, in words; empty if it comes out the same without anything private."""
        if not self._labels.is_marked:
            return ""
        if task.part_of is not None:
            return "condenses something private" if task.label is Label.private else ""
        if reason := marked(self._plan.step(task.step).step, agent_of(self._plan, self._run, task)):
            return reason
        try:
            again = self._turns.turn(task, found, is_whole=False, shortened=shortened)
        except PrivateRead as read:
            return f"reads {read.path}"
        except GxError:
            again = None
        return "" if again == turn else "reads something private"

    def _waits(self, task: TaskState) -> bool:
        """Whether rows that the task is compared with may still come; not where what waits fills the memory."""
        step = self._plan.step(task.step)
        if agent_of(self._plan, self._run, task).choose != "calibrated":
            return False
        is_outrun = self._contents.is_outrun_by(len(self._run.unprepared))
        return calibration.waits(step.step, self._run) and not is_outrun

    def _prepared(
        self, task: TaskState, turn: Turn, key: str, shortened: e.Shortened | None, blobs: list[e.Blob]
    ) -> e.TaskPrepared:
        parts, label, known = [], _label(turn), None
        self.looks.forget(task.id)
        if self._recalls(task):
            known = self.recalls.known(task.id)
            self.recalls.forget(task.id)
        for message in turn.messages:
            blob = blob_of(message.content.encode("utf-8", "surrogatepass"))
            is_of_persona = message.role == "system" or message.content in self._of_personas
            if not is_of_persona or (blob.digest, label) not in self._known:
                self._known.add((blob.digest, label)) if is_of_persona else None
                blobs.append(msgspec.structs.replace(blob, label=label))
            parts.append(e.PromptPart(role=message.role, content=blob.digest))
        return e.TaskPrepared(
            run=self._run.id,
            task=task.id,
            attempt=task.attempt,
            key=key,
            model=turn.model,
            prompt=tuple(parts),
            seed=turn.sampling.seed,
            label=label,
            found=task.found if known is None else known.found,
            without=() if known is None else known.without,
            reranker="" if known is None else known.reranker,
            shortened=shortened,
        )

    def _failed(self, task: TaskState, code: str, message: str) -> e.TaskFailed:
        return e.TaskFailed(run=self._run.id, task=task.id, attempt=task.attempt, code=code, message=message)

    def _skipped(self, task: TaskState) -> e.TaskSkipped:
        reason = f"when: {self._plan.step(task.step).step.when}"
        return e.TaskSkipped(run=self._run.id, task=task.id, attempt=task.attempt, reason=reason)

    # ── what is there already ────────────────────────────────────────────────────────────────────────────────────

    def _answers(self, turns: Mapping[str, Turn]) -> dict[str, outcomes.Known]:
        """Results of equal keys: of this run, or of the log before it (unless the run is `fresh`).

        One of the log is left where logprobs are asked for and it has none: older logs did not keep them.
        """
        found: dict[str, outcomes.Known] = {}
        for key in turns:
            leader = self._run.tasks.get(self._run.leaders.get(key, ""))
            if leader is not None and leader.output is not None:
                found[key] = outcomes.Known(leader.id, leader.output, leader.finish, leader.likelihoods)
        if not self._run.created.fresh and (rest := [key for key in turns if key not in found]):
            for key, known in self._find_results(rest).items():
                answer, turn = outcomes.Known(*known), turns[key]
                if answer.likelihoods is not None or turn.sampling.logprobs is None or turn.choice is not None:
                    found[key] = answer
        return found


def _label(turn: Turn) -> Label:
    return Label.private if isinstance(turn, PrivateTurn) else Label.shared
