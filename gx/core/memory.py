"""Memories as values: what is written, asked and found, and how two rankings become one.

A `Draft` is what somebody wants remembered; a `Memory` is what stands. Its `uid` is a digest of what it says and where
that comes from, so that the same thing written twice is there once, however often a kill had it written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from gx.core.ids import digest_of
from gx.core.message import Label, Value

DEFAULT_NAMESPACE = "default"
RRF_K = 5
"""The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), who took 60 for long lists.

With 60, what is in the middle of both halves passes what is first in one, which costs answers among the first few: of
the 60 questions that come with gx it finds 56 in the first five, vectors alone 57; a constant of 1 to 5, 59 or 60.
"""


class Kind(str, Enum):
    """What a memory is."""

    fact = "fact"  # what is so
    episode = "episode"  # what happened at a time; twice the same is two of them
    chunk = "chunk"  # a part of a document


class Source(Value, frozen=True, kw_only=True):
    """Who or what wrote a memory. Of a chunk: the document's `path`, which part it is, counted from 0, and where in it.

    `run` and `task` are those that wrote it, if any did. `page` counts from 1; `sha256` is of the document's bytes.
    """

    by: str = ""
    path: str = ""
    ordinal: int | None = None
    heading: str = ""
    page: int | None = None
    run: str = ""
    task: str = ""
    sha256: str = ""


class Draft(Value, frozen=True, kw_only=True):
    """What is to be remembered. `at` is when it was so, in wall-clock seconds; `None` is now."""

    body: str
    namespace: str = DEFAULT_NAMESPACE
    kind: Kind = Kind.fact
    source: Source = Source()
    label: Label = Label.private
    at: float | None = None


class Memory(Value, frozen=True, kw_only=True):
    """What stands. `seq` is that of the event that first wrote it."""

    uid: str
    namespace: str
    kind: Kind
    body: str
    at: float
    seq: int
    label: Label = Label.private
    source: Source = Source()


class Filter(Value, frozen=True, kw_only=True):
    """Which memories are meant. What is left out doesn't matter; `namespace` `None` is all of them.

    `source` is a path, a folder above it, a run or who wrote it; `since` and `until` are wall-clock seconds, and
    `upto_seq` leaves out what was written after that event. What was forgotten since is not there, whatever it says.
    """

    namespace: str | None = None
    kinds: tuple[Kind, ...] = ()
    label: Label | None = None
    source: str = ""
    since: float | None = None
    until: float | None = None
    upto_seq: int | None = None


class Query(Filter, frozen=True, kw_only=True):
    """A question to the memory. `min_score` is of the fused score, 0 to 1; `min_similarity` of the cosine, -1 to 1.

    The cosine tells what has to do with the question from what is only the nearest; it drops what was found by
    vector alone. With `is_text_only` no vector is asked for.

    What is found is put in the order of a reranker where one is set, whatever `min_score` let pass: `rerank` says
    whether that must be (`True`) or must not (`False`).
    """

    text: str
    k: int = 8
    min_score: float = 0.0
    min_similarity: float | None = None
    is_text_only: bool = False
    rerank: bool | None = None


class Hit(Value, frozen=True, kw_only=True, omit_defaults=False):
    """A memory that was found, and why. `score` is `by_text` + `by_vector`, and 1 for the first of each half.

    `text_rank` and `vector_rank` count from 1, `None` where that half didn't find it; `bm25` is better the larger it
    is, `similarity` is the cosine.

    Where a reranker put what was found in its order, `relevance` is its score, as its model's file has it: most give
    logits, without bounds, and they compare within one answer alone. `fused_rank` is the place by `score`, from 1.
    """

    memory: Memory
    score: float
    by_text: float
    by_vector: float
    text_rank: int | None = None
    bm25: float | None = None
    vector_rank: int | None = None
    similarity: float | None = None
    relevance: float | None = None
    fused_rank: int | None = None


class Found(Value, frozen=True, kw_only=True, omit_defaults=False):
    """The answer to a question, the best first. `notes` say, in sentences, what it was found without.

    `reranker` is the SHA-256 of the model that put it in its order, "" if none did.
    """

    hits: tuple[Hit, ...]
    reranker: str = ""
    notes: tuple[str, ...] = ()


class Written(Value, frozen=True, kw_only=True, omit_defaults=False):
    """The names of what is remembered now, in the order in which it was given; `n_known` of it was there before."""

    uids: tuple[str, ...]
    n_known: int = 0
    notes: tuple[str, ...] = ()


class Document(Value, frozen=True, kw_only=True):
    """A document as it is remembered: which bytes it was read of, and what all of its chunks share.

    `label` is `None` where they have several. `uids` are its chunks, in their order.
    """

    path: str
    sha256: str
    label: Label | None
    uids: tuple[str, ...]


class Replaced(Value, frozen=True, kw_only=True, omit_defaults=False):
    """What became of documents: how many of their parts were written, and how many of those before are forgotten."""

    n_written: int = 0
    n_forgotten: int = 0
    notes: tuple[str, ...] = ()


class Lacking(NamedTuple):
    """A memory without a vector: its number in its file, the digest of its body, and what is to be embedded."""

    id: int
    digest: str
    text: str


class Put(NamedTuple):
    """A memory to be kept; `digest` is that of its body."""

    memory: Memory
    digest: str


class Drop(NamedTuple):
    """A memory to be forgotten."""

    uid: str


class Chosen(NamedTuple):
    """The model that memories are embedded by from now on: its source, the SHA-256 of its file, its dimensions."""

    name: str
    model: str
    dimensions: int


Change = Put | Drop | Chosen


class Mark(NamedTuple):
    """How far the log was applied: the last event of the memory that was, and its hash. (-1, b"") is not at all."""

    seq: int
    hash: bytes


class Standing(Value, frozen=True, kw_only=True, omit_defaults=False):
    """A namespace at a glance. `vectors` are those of the model in use."""

    namespace: str
    memories: int
    facts: int
    episodes: int
    chunks: int
    private: int
    vectors: int


class MemoryStats(Value, frozen=True, kw_only=True, omit_defaults=False):
    """How the memory of a workspace stands. `model` is the source of the model that embeds it, "" where none does.

    The file has all that the log says up to `applied_seq`, and takes so many `bytes`.
    """

    memories: int
    vectors: int
    model: str
    digest: str
    dimensions: int
    bytes: int
    applied_seq: int
    namespaces: tuple[Standing, ...]
    notes: tuple[str, ...] = ()


class Fused(NamedTuple):
    """One of two rankings: its place in each, from 1, and what each place is worth."""

    key: int
    by_text: float
    by_vector: float
    text_rank: int | None
    vector_rank: int | None

    @property
    def score(self) -> float:
        return self.by_text + self.by_vector


def uid_of(draft: Draft) -> str:
    """The name of a memory, 16 hex digits. Of an episode its time counts, else who wrote it and when doesn't."""
    source = draft.source
    at = draft.at if draft.kind is Kind.episode else None
    return digest_of(draft.namespace, draft.kind, draft.body, source.path, source.ordinal, source.task, at)[:16]


def says(known: Memory, draft: Draft) -> bool:
    """Whether a memory of the draft's own name says all that the draft does, so that it need not be written again."""
    was, new = known.source, draft.source
    return (known.label, was.heading, was.page, was.sha256) == (draft.label, new.heading, new.page, new.sha256)


def fuse(text: Sequence[int], vector: Sequence[int] | None) -> list[Fused]:
    """One ranking of two, the best first, by reciprocal rank fusion; `vector` `None` where there was no such half.

    Each half gives 1 / (RRF_K + rank), scaled so that the first of all halves together has 1.
    """
    halves = 1 if vector is None else 2
    unit = (RRF_K + 1) / halves
    text_ranks = _ranks(text)
    vector_ranks = _ranks(vector or ())
    found = [
        Fused(key, _worth(text_ranks.get(key), unit), _worth(vector_ranks.get(key), unit), text_ranks.get(key),
              vector_ranks.get(key))
        for key in text_ranks | vector_ranks
    ]  # fmt: skip
    return sorted(found, key=lambda one: (-one.score, one.key))


def _ranks(keys: Sequence[int]) -> dict[int, int]:
    return {key: rank for rank, key in enumerate(keys, 1)}


def _worth(rank: int | None, unit: float) -> float:
    return 0.0 if rank is None else unit / (RRF_K + rank)
