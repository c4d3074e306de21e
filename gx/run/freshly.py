"""Computing a part of a recipe anew: a step and all that follows from it, beside results of the log for the rest.

It knows which steps those are, and nothing of how a turn is made. Within the run an equal key is still answered once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from gx.core import event as e
from gx.core.ports import Memory
from gx.core.view import RunState
from gx.flow.plan import Plan
from gx.run.contents import Contents
from gx.run.prepare import FindResults, Prepared, Preparer


def steps_from(plan: Plan, step_id: str | None) -> frozenset[str]:
    """The step and all that need it, directly or not; none where there is no such step."""
    found = set[str]()
    for step in plan.steps:  # each follows what it needs
        if step.id == step_id or found.intersection(step.step.needs):
            found.add(step.id)
    return frozenset(found)


class FreshPreparer(Preparer):
    """A preparer that takes no result of the log for the tasks of some steps."""

    def __init__(
        self,
        plan: Plan,
        run: RunState,
        contents: Contents,
        models: dict[str, str],
        find_results: FindResults,
        *,
        fresh: Collection[str],
        memory: Memory | None = None,
    ) -> None:
        super().__init__(plan, run, contents, models, self._find, memory=memory)
        self._run_state, self._find_known, self._fresh = run, find_results, fresh
        self._is_fresh = False

    def prepare(self, task_ids: Iterable[str]) -> Prepared:
        """As that of `Preparer`: first the tasks that may have a result in the log, then those that may not."""
        ids = list(task_ids)
        fresh = [task_id for task_id in ids if self._run_state.tasks[task_id].step in self._fresh]
        known = [task_id for task_id in ids if self._run_state.tasks[task_id].step not in self._fresh]
        made = super().prepare(known)
        if fresh:
            self._is_fresh = True
            try:
                more = super().prepare(fresh)
            finally:
                self._is_fresh = False
            made = Prepared([*made.bodies, *more.bodies], [*made.blobs, *more.blobs], made.turns | more.turns)
        return made

    def _find(self, keys: Collection[str]) -> Mapping[str, tuple[str, e.Ref, str, e.Ref | None]]:
        return {} if self._is_fresh else self._find_known(keys)
