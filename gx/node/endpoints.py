"""A route of the node's API as a value, and what is asked of it: the bodies of requests, and the plainest answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from starlette.requests import Request

from gx.core.errors import UsageError
from gx.core.message import Value
from gx.node.client import OpenQuestion


class Query(Value, frozen=True, kw_only=True):
    """A statement of SQL that reads."""

    sql: str
    timeout_s: float = 10.0
    max_rows: int | None = None


class Reason(Value, frozen=True, kw_only=True):
    """Why something is done. `unless_others`: only if no other client is attached, and the run needs one."""

    reason: str = "asked to"
    unless_others: bool = False


class Cancel(Value, frozen=True, kw_only=True):
    """What to give up of a run: one of its tasks, the tasks of one of its steps, or, with neither, all of it."""

    reason: str = "asked to"
    task: str | None = None
    step: str | None = None


class Requeue(Value, frozen=True, kw_only=True):
    """What of a live run goes back into the queue: one task, those of a step, or, with neither, all that run."""

    task: str | None = None
    step: str | None = None


class Change(Value, frozen=True, kw_only=True):
    """What changes of a live run; what is left out stays. `concurrency` 0 lifts that limit."""

    concurrency: int | None = None
    priority: float | None = None
    deadline_s: float | None = None
    budget_tokens: int | None = None


class Answer(Value, frozen=True, kw_only=True):
    """A choice among those of a question; of the run's oldest, where it isn't named."""

    choice: str
    question: str | None = None


class OpenQuestions(Value, frozen=True, kw_only=True, omit_defaults=False):
    """What a run asks a person, and the steps that somebody, or a rule, must let go on."""

    run: str
    questions: tuple[OpenQuestion, ...] = ()
    paused_steps: tuple[str, ...] = ()


class Leave(Value, frozen=True, kw_only=True):
    """`only_idle`: leave only if no run is live."""

    only_idle: bool = False


class Done(Value, frozen=True, kw_only=True):
    """It was done, or will be at once: an event says so. `is_left`: it was not, for others want the run."""

    run: str = ""
    is_left: bool = False


class Endpoint(NamedTuple):
    """A route: what it takes and what it gives. `gives` `bytes` are lines of JSON."""

    method: str
    path: str
    handle: Callable[[Request, Any], Awaitable[Any]]
    summary: str
    takes: Any = None
    gives: Any = Done
    query: tuple[tuple[str, str], ...] = ()


def by(request: Request) -> str:
    """Who asks."""
    return request.headers.get("gx-by", "somebody")[:100]


def flag(request: Request, name: str, *, default: bool) -> bool:
    """A flag of the query. :raises UsageError: if it is no flag."""
    text = request.query_params.get(name)
    if text not in (None, "true", "false", "1", "0"):
        raise UsageError(f"{name}: expected true or false, got {text!r}")
    return default if text is None else text in ("true", "1")


def number(request: Request, name: str, default: int) -> int:
    """A number of the query, -1 at least. :raises UsageError: if it is none."""
    text = request.query_params.get(name)
    try:
        return default if text is None else max(-1, min(int(text), 1 << 62))
    except ValueError:
        raise UsageError(f"{name}: expected a whole number, got {text!r}") from None
