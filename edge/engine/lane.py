"""The jobs that share one cache: in every round each answer gets a token, and some of the prompts get on.

It joins what is pure (which slot, which tokens) to the cache, and belongs to the engine's thread. Prompts that are to
copy what another slot computes stand still until that is there.

Invariant: a slot is busy exactly as long as a job is in it, and a job leaves with its result.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from edge.engine.cache import Cache, Given
from edge.engine.calls import Part, Work, gather, next_calls
from edge.engine.job import Completion, Job, Result, Weights
from edge.engine.llama import BATCH_TOKENS, Fed, Model, Rows, rows_of
from edge.engine.pace import Pace
from edge.engine.room import LaneState
from edge.engine.slots import Move
from edge.engine.statistics import Statistics
from edge.engine.tuning import Tuning
from gx.core.errors import BenchError
from gx.core.protocol import SlotNow

LOGITS_BYTES = 64 << 20
"""What the logits of a round's options may take, of which every token has a row: long options are weighed in parts."""
KEPT_S = 0.25
"""How long a slot is kept for the next request of a conversation, which is on its way."""
STAYS_S = 10.0
"""How long jobs stay where they are after one couldn't be moved, as for want of memory."""
MOVING_S = 0.25
"""How long a round brings requests to their slots, while those that write wait for it; the next round goes on."""


class Lane:
    """A cache of `n_slots` slots of `slot_tokens` tokens each. :raises ModelError: if it can't be made."""

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
        self._cache = Cache(model, n_slots=n_slots, slot_tokens=slot_tokens, threads=pace.threads, tuning=tuning)
        self._slots = self._cache.slots
        self._jobs: dict[int, Job] = {}  # by slot, in the order in which they came to this lane
        self._ended: list[Job] = []
        self._pace, self._statistics, self._now = pace, statistics, now
        self._used_at = 0
        self._stays_until_s = 0.0
        self._most_rows = LOGITS_BYTES // (4 * model.vocab.n_tokens)

    def __repr__(self) -> str:
        return f"<Lane {self._slots!r}>"

    @property
    def tokens(self) -> int:
        """What all slots together hold."""
        return len(self._slots) * self._slots.slot_tokens

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    def state(self) -> LaneState:
        slots = self._slots
        left_tokens = max((job.need_tokens - slots.held(slot) for slot, job in self._jobs.items()), default=0)
        return LaneState(slots.slot_tokens, len(slots), slots.n_free, self._used_at, left_tokens)

    def keeps(self, job: Job) -> bool:
        """Whether a slot is kept for a job, which has room in it."""
        return self._slots.keeps(job.request.conversation) and job.need_tokens <= self._slots.slot_tokens

    def expire(self) -> None:
        """Keep slots no longer than is due."""
        self._slots.expire(self._now())

    def admit(self, job: Job, used_at: int, others: Iterable[Lane] = ()) -> None:
        """Give a job one of the free slots, or the one that is kept for it, and what is computed of its prompt: by this
        lane, or by one of the others.
        """
        self._used_at = used_at
        slot, moves = self._slots.place(job.answer.prompt, job.request.conversation)
        self._jobs[slot] = job
        try:
            job.begin(self._slots.held(slot), self._now())
            if not self._fetch(slot, job, others):
                self._move(moves)
            job.tell()
        except Exception as error:  # noqa: BLE001 - a bug here or in whoever listens is that job's alone
            if slot in self._jobs:
                job.fail(error, self._now())
                self._move(self._end(slot, is_sound=False))

    def take_ended(self) -> list[Job]:
        """The jobs that ended since this was last asked; each of them has its result."""
        ended, self._ended = self._ended, []
        return ended

    def interrupt(self) -> None:
        """End the jobs that were cancelled or have run out of time."""
        now_s = self._now()
        for slot, job in list(self._jobs.items()):
            if (why := job.interruption(now_s)) is not None:
                self._leave(slot, why)

    @property
    def n_writing(self) -> int:
        """How many jobs write."""
        return sum(job.writes for job in self._jobs.values())

    def slots_now(self) -> Iterator[SlotNow]:
        """What is in the busy slots, in the order in which they were given."""
        now_s = self._now()
        for slot, job in self._jobs.items():
            yield job.slot_now(self._slots.held(slot), now_s)

    def hand_over(self, target: Lane) -> None:
        """The jobs go on in `target`, which has room for them, but those that are too long to be moved, or wait; and as
        many as there is time for. Where one can't be moved, all others stay, too.
        """
        began_s, now_s = time.perf_counter(), self._now()
        if now_s < max(self._stays_until_s, target._stays_until_s):
            return
        for slot in list(self._jobs):
            if not target._cache.can_take or time.perf_counter() - began_s > MOVING_S:
                return
            if not self._cache.can_give(slot):
                continue
            failing = self
            try:
                given = self._cache.give(slot)
                failing = target
                target._adopt(self._jobs[slot], given)
            except BenchError:
                failing._stays_until_s = now_s + STAYS_S
                return
            del self._jobs[slot]
            self._move(self._slots.release(slot))

    def close(self) -> None:
        """Free the memory. Jobs that are here still are the caller's to end."""
        self._cache.close()

    # ── a round ──────────────────────────────────────────────────────────────────────────────────────────────────

    def round(self, n_writing: int) -> None:
        """Decode a token of each answer, and prefill some prompts. `n_writing` jobs, also elsewhere, wait for it.

        What others computed meanwhile is copied first, and those that write are brought together; then come the calls,
        each with what follows from its logits.
        """
        self._move(self._slots.settle())
        self._gather()
        work, pass_tokens = self._work(), self._cache.pass_tokens
        for call in next_calls(work, n_writing=n_writing, batch_tokens=BATCH_TOKENS, pass_tokens=pass_tokens):
            try:
                self._decode(call)
            except BenchError as error:
                for slot, _ in call:
                    self._lose(slot, error)

    def _gather(self) -> None:
        """Bring the jobs that write together, where that is cheaper than a call more."""
        now_s = self._now()
        if now_s < self._stays_until_s:
            return
        writing = [slot for slot, job in self._jobs.items() if job.writes]
        for one, other in gather(writing, len(self._slots)):
            if not self._cache.can_swap(one, other):
                continue
            try:
                if not self._cache.swap(one, other):
                    self._stays_until_s = now_s + STAYS_S
                    return
            except BenchError as error:
                self._lose(one, error)
                self._lose(other, error)
                return
            places = {one: other, other: one}
            self._jobs = {places.get(slot, slot): job for slot, job in self._jobs.items()}

    def _work(self) -> list[Work]:
        """What there is to decode: of options, whose logits are all wanted, no more than those have room for."""
        jobs = [(slot, job) for slot, job in self._jobs.items() if not self._slots.waits(slot)]
        most_rows = max(1, self._most_rows // max(1, sum(job.weighs for _, job in jobs)))
        work: list[Work] = []
        for slot, job in jobs:
            n_tokens = len(self._slots.pending(slot))
            work.append(Work(slot, min(n_tokens, most_rows) if job.weighs else n_tokens, is_prefill=not job.writes))
        return work

    def _decode(self, call: Sequence[Part]) -> None:
        """One call, and what follows from its logits."""
        fed: list[Fed] = []
        for slot, n_tokens in call:
            pending = self._slots.pending(slot)
            wanted = self._jobs[slot].wanted(is_last=n_tokens == len(pending))
            fed.append(Fed(slot, self._slots.held(slot), pending[:n_tokens], wanted))
        rows = self._timed(fed, is_prefill=not self._jobs[call[0].slot].writes)
        best = rows.argmax(axis=1).tolist() if len(rows) else []
        now_s, first = self._now(), 0
        for slot, _, tokens, wanted in fed:
            n_rows = rows_of(tokens, wanted)
            if n_rows:
                self._advance(slot, rows[first : first + n_rows], best[first : first + n_rows], now_s)
            first += n_rows

    def _timed(self, fed: Sequence[Fed], *, is_prefill: bool) -> Rows:
        """One call, on as many threads as pay."""
        n_tokens = sum(len(part.tokens) for part in fed)
        kind = is_prefill, n_tokens.bit_length()
        n_threads = self._pace.next(kind)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        rows = self._cache.decode(fed, threads=n_threads)
        seconds, cpu_seconds = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        self._pace.took(kind, n_threads, n_tokens, seconds=seconds, cpu_seconds=cpu_seconds)
        self._statistics.decoded(n_tokens, is_prefill=is_prefill, seconds=seconds)
        return rows

    def _advance(self, slot: int, rows: Rows, best: Sequence[int], now_s: float) -> None:
        """A job goes on by the logits that it wanted, [n_rows, n_vocab], or leaves."""
        job = self._jobs[slot]
        try:
            drawn = job.advance(rows, best, now_s)
        except Exception as error:  # noqa: BLE001 - also a bug in whoever listens is that job's alone
            job.fail(error, now_s)
            self._leave(slot)
            return
        if job.answer.finish is not None:
            self._leave(slot, job.result(now_s))
        elif drawn:
            moves = self._slots.rewind(slot, len(job.answer.prompt)) if job.weighs else []
            self._slots.extend(slot, drawn)
            self._move(moves)

    # ── who leaves, and what is moved ────────────────────────────────────────────────────────────────────────────

    def _adopt(self, job: Job, given: Given) -> None:
        """Go on with a job of another lane in a free slot. :raises BenchError: if its sequence can't be put there."""
        slot, moves = self._slots.adopt(given.plan, given.n_held)
        self._move(moves)
        try:
            self._cache.take(slot, given)
        except BenchError:
            self._move(self._slots.forget(slot))
            raise
        self._jobs[slot] = job

    def _fetch(self, slot: int, job: Job, others: Iterable[Lane]) -> bool:
        """Take over what another lane holds of a prompt, as of a chat that outgrew its slot there.

        Whether the slot's content was changed, so that no move that was due before is.
        """
        prompt, is_changed = job.answer.prompt, False
        for other in sorted(others, key=lambda other: -other._slots.longest(prompt)[1]):
            try:
                if self._cache.copy_from(other._cache, slot, prompt):
                    job.reuse(self._slots.held(slot))
                    return True
            except BenchError:
                self._move(self._slots.restart(slot))
                is_changed = True
        return is_changed

    def _leave(self, slot: int, result: Result | None = None) -> None:
        """A job ends, with a result where it has none yet; what its slot holds stays."""
        self._move(self._end(slot, result))

    def _lose(self, slot: int, error: BenchError) -> None:
        """What a slot holds isn't known any more: the job in it, if there is one, ends."""
        self._move(self._lost(slot, error))

    def _end(self, slot: int, result: Result | None = None, *, is_sound: bool = True) -> list[Move]:
        """End a job; what its slot holds stays, where that `is_sound`. The moves that follow."""
        job = self._jobs.pop(slot)
        self._ended.append(job)
        if result is not None:
            job.end(result)
        moves = self._slots.release(slot) if is_sound else self._slots.forget(slot)
        request = job.request
        if request.conversation is not None and request.goes_on and isinstance(result, Completion | Weights):
            self._slots.keep(slot, request.conversation, self._now() + KEPT_S)
        return moves

    def _lost(self, slot: int, error: BenchError) -> list[Move]:
        """The moves that follow where what a slot holds isn't known any more."""
        if slot not in self._jobs:
            return self._slots.forget(slot)
        self._jobs[slot].fail(error, self._now())
        return self._end(slot, is_sound=False)

    def _move(self, moves: Iterable[Move]) -> None:
        """Make the moves, and before the next ones those that follow where one can't be made.

        Then a prompt is computed from its beginning, and an answer ends: since each failure restarts or ends a job, it
        comes to an end itself.
        """
        due = deque(moves)
        while due:
            move = due.popleft()
            job = self._jobs.get(move.slot)
            is_at_prompt = job is not None and not job.is_prefilled
            try:
                self._cache.move(move)
            except BenchError as error:
                if not move.n_tokens:
                    raise  # to remove a whole sequence never fails (llama.h, llama_memory_seq_rm)
                follow = self._slots.restart(move.slot) if is_at_prompt else self._lost(move.slot, error)
                due.extendleft(reversed(follow))
                continue
            if job is not None and is_at_prompt:
                job.reuse(self._slots.held(move.slot))
