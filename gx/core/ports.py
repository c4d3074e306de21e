"""What `gx.run` needs from the world, as protocols. Fakes in tests implement these; nothing else is faked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from gx.core import memory
from gx.core.memory import (
    Change,
    Chosen,
    Draft,
    Filter,
    Found,
    Hit,
    Lacking,
    Mark,
    Query,
    Standing,
    Written,
)
from gx.core.message import Message, ModelCard, Outcome, Turn, Value
from gx.core.protocol import Measured, Signal
from gx.core.task import Capacity, Lease, Offer, Quote, Rate


class AttemptEnded(Value, frozen=True, kw_only=True):
    """A worker's last word on an attempt. `ms` is wall time on the worker."""

    task: str
    attempt: int
    outcome: Outcome
    ms: float = 0.0


class BenchUp(Value, frozen=True, kw_only=True):
    """A bench process is ready; leases may bind to `incarnation`."""

    incarnation: int
    pid: int
    slots: int
    engine: str


class BenchDown(Value, frozen=True, kw_only=True):
    """A bench process ended, and with it every lease of `incarnation`. `reason` says how, in words.

    `had_questions` says that it was also computing what no lease is for, such as vectors, which may have ended it.
    """

    incarnation: int
    reason: str
    is_expected: bool = False
    had_questions: bool = False


class BenchReading(Value, frozen=True, kw_only=True):
    """What the bench of `incarnation` has done since it came up. May be dropped; none comes while nothing runs."""

    incarnation: int
    measured: Measured


class CallMade(Value, frozen=True, kw_only=True):
    """A rented bench took an attempt, as `call`: by that it is found again, whoever asks. A later one replaces it."""

    task: str
    attempt: int
    call: str


class AttemptGone(Value, frozen=True, kw_only=True):
    """An attempt that will have no outcome. `is_suspect` and `alone` are those of `event.AttemptLost`.

    `is_home` says that its task is to be done by this machine: it would fare no better where it was.
    """

    task: str
    attempt: int
    reason: str
    is_suspect: bool = True
    alone: bool = False
    is_home: bool = False


class ContainerSeen(Value, frozen=True, kw_only=True):
    """A rented container, up since `began_at`, answered or said that it is up at `seen_at`: both wall-clock seconds."""

    container: str
    gpu: str
    began_at: float
    seen_at: float


class RentRefused(Value, frozen=True, kw_only=True):
    """Nothing more can be begun on rented benches for now: a quota, or an account that doesn't answer.

    Where it `stops`, nothing is to be rented whatever is under way: containers don't work. `code` is a `CloudError`'s.
    """

    reason: str
    code: str = ""
    stops: bool = False


WorkerEvent = (
    AttemptEnded | BenchUp | BenchDown | BenchReading | Signal | CallMade | AttemptGone | ContainerSeen | RentRefused
)


class Worker(Protocol):
    """What the dispatcher hands attempts to. Methods are called from one event loop.

    A worker answers each submitted attempt with one `AttemptEnded`, or ends its incarnation with one `BenchDown`.
    """

    name: str

    async def start(self) -> None:
        """Bring up the first bench. :raises BenchError: if it does not come up."""

    async def aclose(self) -> None:
        """End the bench process; outstanding attempts get no further event."""

    def capacity(self) -> Capacity: ...

    def lease(self) -> Lease | None:
        """The binding of a lease granted now; `None` while no bench is up."""

    async def describe(self, model: str) -> ModelCard:
        """Load the model with that digest where it is not loaded. :raises ModelError: if it can't be."""

    async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
        """The prompt tokens of each chat, in the model's own template."""

    def submit(self, turn: Turn) -> None:
        """Begin an attempt; it never blocks, since leases are bounded by `capacity`."""

    def cancel(self, task: str, attempt: int) -> None: ...

    def restart(self, reason: str) -> None:
        """End the bench process, because an attempt in it does not end; a new incarnation follows."""

    async def events(self) -> list[WorkerEvent]:
        """Wait for at least one event, then return all that are there, in order."""

    def rate(self) -> Rate: ...

    def quote(self) -> Quote: ...


@runtime_checkable
class Embedder(Protocol):
    """What makes vectors of texts: the worker at home, beside its turns. What travels was searched for before."""

    async def embed(self, model: str, texts: Sequence[str]) -> list[bytes]:
        """The vector of each text, [dimensions] float32, little-endian, with the norm 1.

        :raises ModelError: if the model is no embedding model; with the code "context" if a text is too long for it.
        :raises BenchError: if it can't be kept up.
        """


@runtime_checkable
class Ranker(Protocol):
    """What says how well passages answer a question: the worker at home, beside its turns."""

    async def rank(self, model: str, question: str, passages: Sequence[str]) -> list[float]:
        """A score of each passage, by a reranker: a larger one answers better. Raw, as `message.Ranked` says.

        A passage that is too long for the model beside the question has the score of the best of its parts.

        :raises ModelError: if the model is no reranker; with the code "question" if that alone is too long for it.
        :raises BenchError: if it can't be kept up.
        """


@runtime_checkable
class Near(Protocol):
    """Who says how near texts are by their meaning, beside turns at home."""

    async def near(self, question: str, passages: Sequence[str]) -> tuple[list[float] | None, tuple[str, ...]]:
        """How near each passage is to the question, from −1 to 1; `None`, and why, where nobody can tell."""


class Memory(Protocol):
    """What is remembered, as those see it who prepare prompts and write results. Called from one event loop."""

    async def search(self, query: Query) -> Found:
        """The memories that answer a question best. :raises GxError: if it can't be asked, or vectors don't mix."""

    async def write(self, drafts: Sequence[Draft], *, by: str) -> Written:
        """Have these remembered: they are in the log when it returns. What is there already is not written again.

        :raises GxError: if one can't be remembered, or vectors don't mix; then nothing is written.
        """


class MemoryStore(Protocol):
    """The file that memories are kept in, made from the log. Its methods block, and may be called from any thread."""

    mark: Mark
    chosen: Chosen | None

    def apply(self, changes: Sequence[Change], mark: Mark) -> None: ...

    def put_vectors(self, model: str, made: Sequence[tuple[Lacking, bytes]]) -> None: ...

    def take_vectors(self, path: Path) -> None: ...

    def search(self, query: Query, vector: tuple[str, bytes] | None) -> list[Hit]: ...

    def listed(
        self, wanted: Filter, *, after: int = -1, limit: int, is_newest: bool = False
    ) -> list[memory.Memory]: ...

    def named(self, starts: Sequence[str]) -> dict[str, list[str]]: ...

    def uids(self, wanted: Filter) -> list[str]: ...

    def known(self, uids: Sequence[str]) -> dict[str, memory.Memory]: ...

    def lacking(self, limit: int) -> list[Lacking]: ...

    def n_lacking(self) -> int: ...

    def documents(self, namespace: str, paths: Sequence[str]) -> list[memory.Document]: ...

    def standings(self) -> list[Standing]: ...

    def check_vector(self, model: str, vector: bytes) -> None: ...

    def close(self) -> None: ...


class RentedWorker(Worker, Protocol):
    """A worker over containers that are rented by the second. What it may begin, and for how long, it is told."""

    def scale(self, containers: int) -> None:
        """Rent at most so many from now on; with 0, what is under way ends and nothing more begins."""

    def vouch(self, until: float) -> None:
        """Pay for what containers begin before `until`, in wall-clock seconds."""

    def reattach(self, task: str, attempt: int, call: str) -> None:
        """Follow the call of an attempt that was submitted before this process began."""

    def recall(self, task: str, attempt: int, reason: str) -> None:
        """Have an attempt back that may have begun there: its call is cancelled.

        It ends with its answer, where that was there first; else it is gone for that `reason`, and nobody's fault.
        """

    @property
    def calls_made(self) -> int:
        """How many calls were made so far, or may have been: without any, no container ever began."""

    @property
    def is_clear(self) -> bool:
        """Whether nothing runs there of what nobody wants any more: it costs until its call is cancelled."""

    def give_back(self, most: int | None = None) -> None:
        """Let go of attempts that no call was made for, the last first: each is gone, and nobody's fault."""


class Landlord(Protocol):
    """Who rents containers out."""

    def offers(self, run: str, edge_tokens_per_s: float) -> Sequence[Offer]:
        """What may be rented for a run beside a machine of that speed."""

    def rent(self, run: str, gpu: str) -> AbstractAsyncContextManager[RentedWorker]:
        """Containers of a run. None starts before it is told to. :raises GxError: on entering, if there can be none."""


class Clock(Protocol):
    """Time, so that tests never sleep."""

    def now(self) -> float:
        """Wall clock, seconds since 1970."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment of this process."""
