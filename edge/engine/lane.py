"""The jobs that share one context: every round, each of them gets a token, or its prompt gets on.

It joins what is pure (which slot, which tokens) to the llama.cpp context, and belongs to the engine's thread.
Invariants: a slot is busy exactly as long as a job is in it, and a job leaves with its result; no sequence is moved
between a copy and the next decode. llama.cpp copies only then, and would copy what was put there meanwhile, or read
what isn't there yet (https://github.com/ggml-org/llama.cpp, llama-kv-cache.cpp, seq_cp).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge.engine.batch import Part, Work, gather, next_calls
from edge.engine.job import Completion, Job, Result, Weights
from edge.engine.llama import BATCH_TOKENS, Context, Fed, Model, Rows, State, rows_of
from edge.engine.pace import Pace
from edge.engine.room import LaneState
from edge.engine.slots import Copy, Move, Slots, Tokens
from edge.engine.statistics import Statistics
from edge.engine.tuning import Tuning
from gx.core.errors import BenchError, GxError

MOVABLE_BYTES = 256 << 20
"""What a sequence that is moved may hold: no more than that, nor than the weights, which a call more would read."""
KEPT_S = 0.25
"""How long a slot is kept for the next request of a conversation, which is on its way."""


class Lane:
    """A context of `n_slots` slots of `slot_tokens` tokens each."""

    def __init__(
        self,
        model: Model,
        *,
        n_slots: int,
        slot_tokens: int,
        pace: Pace,
        tuning: Tuning,
        statistics: Statistics,
        now: Callable[[], float],
    ) -> None:
        self._context = Context(model, slots=n_slots, slot_tokens=slot_tokens, threads=pace.threads, tuning=tuning)
        self._slots = Slots(n_slots, slot_tokens, can_share=model.can_share)
        self._jobs: dict[int, Job] = {}  # by slot, in the order of arrival
        self._kept: dict[str, tuple[int, float]] = {}  # by conversation: its slot, and until when
        self._pace, self._statistics, self._now = pace, statistics, now
        self._used_at = 0
        self._has_copies_due = False
        self._movable_tokens = min(model.size_bytes, MOVABLE_BYTES) // model.token_bytes if model.can_share else 0

    def __repr__(self) -> str:
        return f"<Lane {self._slots!r}>"

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    def state(self) -> LaneState:
        return LaneState(self._slots.slot_tokens, len(self._slots), self._slots.n_free, self._used_at)

    def keeps(self, job: Job) -> bool:
        """Whether a slot is kept for a job, which has room in it."""
        return job.request.conversation in self._kept and job.need_tokens <= self._slots.slot_tokens

    def admit(self, job: Job, used_at: int) -> None:
        """Give a job one of the free slots, or the one that is kept for it, and what the cache holds of its prompt."""
        self._used_at = used_at
        kept, _ = self._kept.pop(job.request.conversation or "", (None, 0.0))
        slot, moves = self._slots.place(job.writing.prompt, kept)
        self._jobs[slot] = job
        job.begin(self._slots.held(slot), self._now())
        try:
            self._move(moves)
        except BenchError:
            del self._jobs[slot]
            self._context.move(self._slots.forget(slot))
            raise

    def let_go(self) -> None:
        """Keep slots no longer than is due."""
        now_s = self._now()
        for conversation, (slot, until_s) in list(self._kept.items()):
            if now_s >= until_s:
                self._slots.keep(slot, is_kept=False)
                del self._kept[conversation]

    def interrupt(self) -> list[Job]:
        """End the jobs that were cancelled or have run out of time; which they are."""
        now_s = self._now()
        ended = [(slot, why) for slot, job in self._jobs.items() if (why := job.interruption(now_s)) is not None]
        return [self._leave(slot, why) for slot, why in ended]

    @property
    def n_writing(self) -> int:
        """How many jobs are past their prompts."""
        return sum(not job.is_prompt for job in self._jobs.values())

    def round(self, n_writing: int) -> list[Job]:
        """Decode once for whoever writes, and prefill some prompts; which jobs ended.

        `n_writing` jobs, here and elsewhere, wait for this round to end.
        """
        self._move(self._slots.settle())
        ended = self._gather()
        work = [
            Work(slot, len(self._slots.pending(slot)), job.is_prompt)
            for slot, job in self._jobs.items()
            if not self._slots.waits(slot)
        ]
        pass_tokens = self._context.pass_tokens
        for call in next_calls(work, n_writing=n_writing, batch_tokens=BATCH_TOKENS, pass_tokens=pass_tokens):
            try:
                ended += self._decode(call)
            except BenchError as error:
                ended += [job for slot, _ in call for job in self._lose(slot, error)]
        return ended

    def hand_over(self, target: Lane) -> list[Job]:
        """Every job goes on in `target`, which has room for them; but those that are too long to be moved, or wait.

        Which jobs ended, since llama.cpp could not move them.
        """
        if self._has_copies_due or target._has_copies_due:
            return []
        slots, ended = self._slots, list[Job]()
        for slot in [slot for slot in self._jobs if not slots.waits(slot) and slots.held(slot) <= self._movable_tokens]:
            try:
                target._adopt(self._jobs[slot], slots.plan(slot), slots.held(slot), self._context.save(slot))
            except BenchError as error:
                ended += self._lose(slot, error)
                continue
            del self._jobs[slot]
            self._move(slots.release(slot))
        return ended

    def close(self) -> None:
        self._context.close()

    def _adopt(self, job: Job, plan: Tokens, n_held: int, state: State) -> None:
        slot, moves = self._slots.adopt(plan, n_held)
        self._move(moves)
        try:
            if n_held:
                self._context.restore(slot, state)
        except BenchError:
            self._move(self._slots.forget(slot))
            raise
        self._jobs[slot] = job

    def _gather(self) -> list[Job]:
        """Bring the jobs that write together, where that is cheaper than a call more.

        Which jobs ended, since llama.cpp could not move them.
        """
        if self._has_copies_due:
            return []
        writing = [slot for slot, job in self._jobs.items() if not job.is_prompt]
        for one, other in gather(writing, len(self._slots)):
            if self._slots.held(one) + self._slots.held(other) > self._movable_tokens:
                continue
            try:
                self._context.swap(one, other)
            except BenchError as error:
                return [*self._lose(one, error), *self._lose(other, error)]
            self._slots.swap(one, other)
            places = {one: other, other: one}
            self._jobs = {places.get(slot, slot): job for slot, job in self._jobs.items()}
            self._kept = {name: (places.get(slot, slot), until_s) for name, (slot, until_s) in self._kept.items()}
        return []

    def _decode(self, call: Sequence[Part]) -> list[Job]:
        """One call, and what follows from its logits; which jobs ended."""
        slots, fed = self._slots, list[Fed]()
        for slot, n_tokens in call:
            pending = slots.pending(slot)
            wanted = self._jobs[slot].wanted(is_last=n_tokens == len(pending))
            fed.append(Fed(slot, slots.held(slot), pending[:n_tokens], wanted))
        is_prompt = self._jobs[call[0].slot].is_prompt
        rows = self._timed(fed, is_prompt=is_prompt)
        for slot, n_tokens in call:
            slots.advance(slot, n_tokens)
        best = rows.argmax(axis=1).tolist() if len(rows) else []
        now_s = self._now()
        results: list[tuple[int, Result | None]] = []
        first = 0
        for slot, _, tokens, wanted in fed:
            n_rows = rows_of(tokens, wanted)
            if not n_rows:
                continue
            job, mine = self._jobs[slot], slice(first, first + n_rows)
            first += n_rows
            try:
                drawn = job.advance(rows[mine], best[mine], now_s)
            except GxError as error:
                results.append((slot, job.failure(error, now_s)))
                continue
            except Exception as error:  # noqa: BLE001 - a bug in whoever listens is that job's alone
                job.raise_error(error)
                results.append((slot, None))
                continue
            if job.writing.finish is not None:
                results.append((slot, job.result(now_s)))
            elif drawn:
                if job.writing.starts_over:
                    self._move(slots.rewind(slot, len(job.writing.prompt)))
                slots.extend(slot, drawn)
        return [self._leave(slot, result) for slot, result in results]

    def _timed(self, fed: Sequence[Fed], *, is_prompt: bool) -> Rows:
        """One call, on as many threads as pay."""
        n_tokens = sum(len(part.tokens) for part in fed)
        kind = is_prompt, n_tokens.bit_length()
        n_threads = self._pace.next(kind)
        self._context.use_threads(n_threads)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        rows = self._context.decode(fed)
        self._has_copies_due = False
        seconds, cpu_seconds = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        self._pace.took(kind, n_threads, n_tokens, seconds=seconds, cpu_seconds=cpu_seconds)
        self._statistics.decoded(n_tokens, is_prompt=is_prompt, seconds=seconds)
        return rows

    def _leave(self, slot: int, result: Result | None, *, is_sound: bool = True) -> Job:
        job = self._jobs.pop(slot)
        self._move(self._slots.release(slot) if is_sound else self._slots.forget(slot))
        request = job.request
        if request.conversation is not None and request.goes_on and isinstance(result, Completion | Weights):
            self._slots.keep(slot)
            self._kept[request.conversation] = slot, self._now() + KEPT_S
        if result is not None:
            job.end(result)
        return job

    def _lose(self, slot: int, error: BenchError) -> list[Job]:
        """What a slot holds isn't known any more: the job in it, if there is one, ends."""
        if slot in self._jobs:
            return [self._leave(slot, self._jobs[slot].failure(error, self._now()), is_sound=False)]
        self._move(self._slots.forget(slot))
        return []

    def _move(self, moves: Sequence[Move]) -> None:
        self._context.move(moves)
        for move in moves:
            if isinstance(move, Copy):
                self._has_copies_due = True
                self._jobs[move.target].reuse(move.n_tokens)
