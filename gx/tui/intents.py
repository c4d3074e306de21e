"""What a person wants of a run, asked of the node: each is an event there, with who asked.

Everything here waits for the node, which is started where none is up; so it is called in a thread. The answer is a
sentence for the person.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gx.core.errors import GxError, UsageError
from gx.core.terms import Terms
from gx.node import wire
from gx.node.again import once_more
from gx.node.call import Client
from gx.node.client import Started, Submission
from gx.node.start import ensure


class Offer(NamedTuple):
    """A burst on paper: what it would take and cost, in lines, and the terms that are agreed to with it."""

    lines: tuple[str, ...]
    terms: Terms


PlanBurst = Callable[[str], Offer]
"""A run's id → the offer. It may take seconds. :raises GxError: if nothing can be rented for the run."""


class Intents:
    """Asks the node of the workspace in `folder`. Every method :raises GxError: what is refused, or that none is up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pause(self, run: str) -> str:
        self._ask("POST", f"/v1/runs/{run}/pause")
        return f"{run} is paused: nothing new begins"

    def resume(self, run: str) -> str:
        self._ask("POST", f"/v1/runs/{run}/resume")
        return f"{run} goes on"

    def cancel(self, run: str, task: str | None = None) -> str:
        self._ask("POST", f"/v1/runs/{run}/cancel", {"reason": "asked to in the monitor", "task": task})
        return f"cancelled {task or run}"

    def requeue(self, run: str, task: str) -> str:
        self._ask("POST", f"/v1/runs/{run}/requeue", {"task": task})
        return f"{task} waits again"

    def change(self, run: str, concurrency: int | None, budget_tokens: int | None, deadline_s: float | None) -> str:
        """Change limits; None leaves one as it is."""
        body = {"concurrency": concurrency, "budget_tokens": budget_tokens, "deadline_s": deadline_s}
        if not any(value is not None for value in body.values()):
            return "nothing was changed"
        self._ask("POST", f"/v1/runs/{run}/change", body)
        words = {"concurrency": "tasks at once", "budget_tokens": "tokens in all", "deadline_s": "seconds from now"}
        return f"{run}: " + ", ".join(
            f"{value:,.0f} {words[name]}" for name, value in body.items() if value is not None
        )

    def answer(self, run: str, question: str, choice: str) -> str:
        self._ask("POST", f"/v1/runs/{run}/answer", {"choice": choice, "question": question})
        return f"answered {choice}"

    def burst(self, run: str, terms: Terms) -> str:
        self._ask("POST", f"/v1/runs/{run}/burst", terms)
        if terms.is_rehearsal:
            return f"{run} may rehearse with up to {terms.max_containers} containers, for nothing"
        return f"{run} may rent up to {terms.max_containers} containers for at most ${terms.usd or 0:.2f}"

    def retry(self, run: str) -> Started:
        """A new run of what failed; what succeeded is answered from the log. It may spend what its recipe allows."""
        return self._again(run, name=f"retry of {run}")

    def fork(self, run: str, step: str) -> Started:
        """A new run that computes that step, and what follows from it, anew."""
        return self._again(run, name=f"fork of {run} from {step}", fresh_from=step)

    def _again(self, run: str, **changes: Any) -> Started:
        asked: wire.Asked = self._ask("GET", f"/v1/runs/{run}/asked", kind=wire.Asked)
        wanted = asked.submission
        if wanted.inputs == "-":
            raise UsageError(f"the input of {run} was a stream, and is gone", hint=f"gx retry {run} -i FILE")
        changes |= {"token": os.urandom(6).hex(), "is_detached": True}
        submission: Submission = msgspec.structs.replace(once_more(wanted), **changes)
        body = msgspec.structs.replace(asked, submission=submission)
        started: Started = self._ask("POST", "/v1/runs", body, kind=Started)
        return started

    def _ask(self, method: str, path: str, body: Any = None, *, kind: Any = dict[str, Any]) -> Any:
        client: Client = ensure(self._folder)
        return client.ask(method, path, body, kind=kind, timeout_s=None)


def told(error: GxError) -> str:
    """An error for a person: what went wrong, and what to do."""
    return f"{error.message}\n{error.hint}" if error.hint else error.message
