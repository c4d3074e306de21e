"""The numbers that a client may ask for; what is beyond them is refused before anything is done with it."""

from __future__ import annotations

import re

from gx.core.errors import CloudError, UsageError
from gx.core.gpus import GPU_GB_PER_S
from gx.core.renting import can_switch
from gx.core.terms import MOST_CONTAINERS, Terms
from gx.core.view import RunState
from gx.node.client import Submission

PRIORITIES = (0.01, 100.0)
LONGEST_RUN_S = 10 * 365 * 86400.0
LONGEST_QUESTION_S = 600.0
MOST_USD = 1e6
MOST = 1 << 53
"""Whole numbers up to here are the same everywhere that JSON is read."""
_TOKEN = re.compile("(?:[0-9a-fA-F]{2}){6,64}")


def check_submission(asked: Submission) -> None:
    """:raises UsageError: naming what no run can be asked for with."""
    _check_limits(asked.priority, asked.deadline_s)
    if asked.burst is not None:
        check_terms(asked.burst)
    for name, count in (("budget", asked.budget_tokens), ("limit", asked.limit), ("sample", asked.sample)):
        _check_count(name, count, least=1)
    if asked.token and _TOKEN.fullmatch(asked.token) is None:
        raise UsageError(f"token: expected 12 to 128 hex digits, got {asked.token[:128]!r}")


def check_change(concurrency: int | None, priority: float | None, deadline_s: float | None, tokens: int | None) -> None:
    """:raises UsageError: naming what no run can be changed to."""
    _check_limits(priority, deadline_s)
    _check_count("concurrency", concurrency, least=0)
    _check_count("budget", tokens, least=0)


def check_terms(terms: Terms) -> None:
    """:raises UsageError: naming what no run can rent on."""
    if not 1 <= terms.max_containers <= MOST_CONTAINERS:
        raise UsageError(f"max_containers: expected 1 to {MOST_CONTAINERS}, got {terms.max_containers}")
    if terms.usd is not None and not 0 <= terms.usd <= MOST_USD:
        raise UsageError(f"usd: expected 0 to {MOST_USD:g}, got {terms.usd:g}")
    if terms.target_s is not None and not 0 < terms.target_s <= LONGEST_RUN_S:
        raise UsageError(f"target_s: expected more than 0, to {LONGEST_RUN_S:g} s, got {terms.target_s:g}")
    if unknown := [gpu for gpu in terms.gpu if gpu not in GPU_GB_PER_S]:
        raise UsageError(f"gpu: expected one of {', '.join(GPU_GB_PER_S)}, got {unknown[0]!r}")


def check_switch(run: RunState, terms: Terms) -> None:
    """:raises UsageError: if containers of the run may be alive, and are to be rehearsed from now on, or paid."""
    if not can_switch(run, terms):
        raise UsageError("a run that rents can't begin to rehearse, nor the other way round", hint="begin another run")


def check_offline(terms: Terms | None, *, is_offline: bool) -> None:
    """:raises CloudError: if containers are asked for, and nothing may leave this machine. Rehearsals are here."""
    if is_offline and terms is not None and terms.mode != "off" and not terms.is_rehearsal:
        raise CloudError(
            "nothing is rented, as gx is offline (GX_OFFLINE)",
            code="cloud.offline",
            hint="unset GX_OFFLINE, or `offline` in the settings; `gx burst --rehearse` stays here",
        )


def check_question(timeout_s: float, max_rows: int | None) -> None:
    """:raises UsageError: naming what no question can be asked with."""
    if not 0 < timeout_s <= LONGEST_QUESTION_S:
        raise UsageError(f"timeout_s: expected at most {LONGEST_QUESTION_S:g}, got {timeout_s:g}")
    _check_count("max_rows", max_rows, least=1)


def _check_limits(priority: float | None, deadline_s: float | None) -> None:
    least, most = PRIORITIES
    if priority is not None and not least <= priority <= most:
        raise UsageError(f"priority: expected {least:g} to {most:g}, got {priority:g}")
    if deadline_s is not None and not 0 <= deadline_s <= LONGEST_RUN_S:
        raise UsageError(f"deadline: expected 0 to {LONGEST_RUN_S:g} s, got {deadline_s:g}")


def _check_count(name: str, count: int | None, *, least: int) -> None:
    if count is not None and not least <= count <= MOST:
        raise UsageError(f"{name}: expected {least} to {MOST}, got {count}")
