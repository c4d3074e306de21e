"""What the desk and a bench say to each other, on either side of a pipe: requests one way, answers and signals back.

Everything here is msgpack-encodable and the same for the bench on this machine and for the one in a container.
"""

from __future__ import annotations

from gx.core.message import Counts, Failure, Message, ModelCard, Outcome, Turn, Value

# ── desk → bench ─────────────────────────────────────────────────────────────────────────────────────────────────


class Load(Value, frozen=True, kw_only=True, tag="load"):
    """Load the model at `path`, known as `digest`, with LoRA `adapters`, (path, strength) each.

    `sha256` is the model file's, where `digest` isn't. Answered by `Loaded` or `Refused`.
    """

    request: int
    digest: str
    path: str
    context_tokens: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()
    sha256: str | None = None


class Count(Value, frozen=True, kw_only=True, tag="count"):
    """Count the prompt tokens of each chat in `chats`; answered by `Counted` or `Refused`."""

    request: int
    model: str
    chats: tuple[tuple[Message, ...], ...]


class Embed(Value, frozen=True, kw_only=True, tag="embed"):
    """Make a vector of each text, by an embedding model; answered by `Embedded` or `Refused`.

    It is done a batch of few texts at a time, in turn with other such requests, between the steps of turns.
    """

    request: int
    model: str
    texts: tuple[str, ...]


class Rank(Value, frozen=True, kw_only=True, tag="rank"):
    """Say of each passage how well it answers the question, by a reranker; answered by `Ranked` or `Refused`.

    It is done as `Embed` is.
    """

    request: int
    model: str
    question: str
    passages: tuple[str, ...]


class Leave(Value, frozen=True, kw_only=True, tag="leave"):
    """Nobody waits for the answer to that request any more: an `Embed` or a `Rank` may end as it stands."""

    request: int


class Execute(Value, frozen=True, kw_only=True, tag="execute"):
    """Run a turn; answered by one `Finished`, whatever happens."""

    turn: Turn


class Cancel(Value, frozen=True, kw_only=True, tag="cancel"):
    """Stop an attempt between two tokens; it ends in a `Finished` with the failure `cancelled`."""

    task: str
    attempt: int


ToBench = Load | Count | Embed | Rank | Leave | Execute | Cancel

# ── bench → desk ─────────────────────────────────────────────────────────────────────────────────────────────────


class Ready(Value, frozen=True, kw_only=True, tag="ready"):
    """The first words of a bench: its process id, how many turns it runs at once, and its engine's build."""

    pid: int
    slots: int
    engine: str


class Loaded(Value, frozen=True, kw_only=True, tag="loaded"):
    request: int
    card: ModelCard


class Counted(Value, frozen=True, kw_only=True, tag="counted"):
    request: int
    tokens: tuple[int, ...]


class Embedded(Value, frozen=True, kw_only=True, tag="embedded"):
    """Vectors, [n_texts, dimensions] float32, little-endian, one after the other; each has the norm 1."""

    request: int
    dimensions: int
    vectors: bytes


class Ranked(Value, frozen=True, kw_only=True, tag="ranked"):
    """A score of each passage, in their order, as the model's file has it: a larger one answers better.

    Most rerankers give logits, whose sigmoid is a probability; some give the probability. Only those of one model and
    one question compare.
    """

    request: int
    scores: tuple[float, ...]


class Refused(Value, frozen=True, kw_only=True, tag="refused"):
    """A `Load`, `Count`, `Embed` or `Rank` that failed."""

    request: int
    failure: Failure


class Finished(Value, frozen=True, kw_only=True, tag="finished"):
    task: str
    attempt: int
    outcome: Outcome


class SlotNow(Value, frozen=True, kw_only=True):
    """What is in a busy slot: `tokens` of it are in the KV cache, of its prompt's `prompt_tokens` and what followed.

    `conversation` is that of the request: of a turn, its task and its attempt. `tokens_per_s` is the mean of its
    prefill while that lasts, of its decode after it; None where too little was computed yet to tell.
    """

    conversation: str
    tokens: int
    prompt_tokens: int
    tokens_out: int = 0
    is_prefill: bool = False
    tokens_per_s: float | None = None


class Measured(Value, frozen=True, kw_only=True, tag="measured"):
    """A reading of the engine: what it did since it was started, and what is in use now. May be dropped.

    `slots_busy` is over all lanes, each of which may have `slots`; `threads` are those of a call, 0 while none runs.
    `sequences` are what is in the busy ones; a preview, as `Signal` is.
    """

    counts: Counts = Counts()
    slots: int = 0
    slots_busy: int = 0
    threads: int = 0
    sequences: tuple[SlotNow, ...] = ()


class Signal(Value, frozen=True, kw_only=True, tag="signal"):
    """A preview: text as it comes, and none yet as the engine begins an attempt. May be dropped or coalesced; never
    stored. No result is decided from it: while an attempt is in a slot it is watched that it ends in time.
    """

    task: str
    attempt: int
    text: str = ""
    tokens_out: int = 0


FromBench = Ready | Loaded | Counted | Embedded | Ranked | Refused | Finished | Measured | Signal
