"""Watching a run for its rules: their queries are asked again when there are new events, what follows is committed.

What an answer means is in `gx.run.rules`; this file holds the pace. A rule's queries are asked every `EVERY_S` at the
most, and take a tenth of the time at the most, however slow they are. A query that fails is an event and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import anyio
import anyio.to_thread
import msgspec

from gx.core import event as e
from gx.core.errors import LogError, QueryError
from gx.core.ports import Clock
from gx.core.recipe import Rule
from gx.core.steering import MOST_ERRORS
from gx.core.view import RuleState
from gx.run import rules
from gx.run.active import ActiveRun
from gx.run.contents import blob_of
from gx.run.log import EventLog
from gx.run.log.query import QueryResult, run_sql, table_of
from gx.run.rules import Verdict

EVERY_S = 0.25
SHARE = 0.1
"""Of the time, for queries."""
LONGEST_S = 5.0
"""A query that takes longer has no answer."""
MOST_ROWS = 20
MOST_BYTES = 64 << 10
"""What is kept of an answer."""

Steer = Callable[[Collection[e.Body], Collection[e.Blob]], None]


class RuleWatch:
    """Watches one run to its end; `steer` commits what was decided."""

    def __init__(self, run: ActiveRun, log: EventLog, steer: Steer, clock: Clock) -> None:
        self._run, self._log, self._steer, self._clock = run, log, steer, clock
        self._seen = -1

    async def watch(self) -> None:
        """Until the run is over. A run without rules takes no time."""
        while self._run.plan.recipe.rules and not self._run.is_over:
            took_s = 0.0
            if self._run.state.seq != self._seen and self._run.draining is None:
                began = self._clock.monotonic()
                await self._look()
                took_s = self._clock.monotonic() - began
            await anyio.sleep(max(EVERY_S, took_s * (1 / SHARE - 1)))

    async def _look(self) -> None:
        """Ask each rule's query once. One that waits for its cooldown is asked again, new events or not."""
        self._seen = self._run.state.seq
        for rule in self._run.plan.recipe.rules:
            try:
                answer, shown = await anyio.to_thread.run_sync(self._ask, rule, abandon_on_cancel=True)
            except QueryError as error:
                if error.code == "query.interrupted":  # the log was opened again under it
                    self._seen = -1
                else:
                    await self._fail(rule, error)
                continue
            except LogError:  # it is opened again, or closed: whoever writes to it is told
                self._seen = -1
                continue
            now = self._clock.now()
            first = answer.rows[0] if answer.rows else None
            state = self._state(rule)
            found = rules.verdict(rule, state, is_true=rules.is_true(first), now=now)
            read_seq = -1 if answer.seq is None else answer.seq
            if found is Verdict.fires:
                rows = blob_of(shown)
                bodies = rules.fired(rule, self._run.state, read_seq=read_seq, rows=rows.digest, now=now)
                fired = state.fired
                await self._commit(bodies, [rows], lambda: self._state(rule).fired > fired)  # noqa: B023  awaited here
            elif found is Verdict.clears:
                cleared = e.RuleCleared(run=self._run.state.id, rule=rule.id, read_seq=read_seq)
                await self._commit([cleared], [], lambda: not self._state(rule).is_true)  # noqa: B023  awaited here
            elif found is Verdict.waits:
                self._seen = -1

    def _ask(self, rule: Rule) -> tuple[QueryResult, bytes]:
        """The answer, and what is kept of it. :raises GxError: if there is none."""
        answer = run_sql(self._log, rule.query, timeout_s=LONGEST_S, max_rows=MOST_ROWS, run=self._run.state.id)
        return answer, self._shown(rule, answer)

    def _state(self, rule: Rule) -> RuleState:
        return self._run.state.rules.get(rule.id) or RuleState()

    async def _commit(self, bodies: list[e.Body], blobs: list[e.Blob], is_folded: Callable[[], bool]) -> None:
        """Commit, and wait until that is folded: what is decided next depends on it."""
        if self._run.is_over or self._run.draining is not None:
            return
        self._steer(bodies, blobs)
        while not is_folded() and not self._run.is_over:  # noqa: ASYNC110  the fold tells nobody
            await anyio.sleep(0.01)

    async def _fail(self, rule: Rule, error: QueryError) -> None:
        """Commit an error that this rule didn't have before."""
        run = self._run.state
        content = msgspec.json.encode({"run": run.id, "rule": rule.id, "code": error.code, "message": error.message})
        detail = blob_of(content)
        is_databases, known = error.code == "query", self._state(rule).errors
        message = rules.without_content(error.message) if is_databases else error.message
        if message in known or len(known) >= MOST_ERRORS:
            return
        failed = e.RuleFailed(run=run.id, rule=rule.id, code=error.code, message=message, detail=detail.digest)
        await self._commit([failed], [detail], lambda: message in self._state(rule).errors)

    def _shown(self, rule: Rule, answer: QueryResult) -> bytes:
        """The answer as JSON, as much of it as is kept. It names the run, whose own it is to be erased with."""
        table = table_of(answer)
        for count in range(len(table.rows), -1, -1):
            is_cut = table.is_cut or count < len(table.rows)
            kept = {"columns": table.columns, "rows": table.rows[:count], "is_cut": is_cut}
            content = msgspec.json.encode({"run": self._run.state.id, "rule": rule.id, **kept})
            if len(content) <= MOST_BYTES:
                break
        return content
