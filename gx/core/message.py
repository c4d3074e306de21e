"""What crosses a process: turns to a bench, and what they end in.

Everything here is msgpack-encodable and the same for the bench on this machine and for the one in a container.
Exceptions never cross: a turn that goes wrong ends in a `Failure`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import msgspec

from gx.core.ids import digest_of


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of immutable values. They hold no cycles, so the collector needn't walk them: a run has millions."""


class Label(str, Enum):
    """Who may see a value: a private one never leaves this machine, and neither does what is made from it."""

    private = "private"
    shared = "shared"


class Message(Value, frozen=True, kw_only=True):
    """One message of a chat. `call` names the call that a tool message answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    call: str | None = None


class Drawing(Value, frozen=True, kw_only=True, omit_defaults=False):
    """How tokens are drawn. `temperature` 0 is greedy; `None` switches a filter off.

    `logit_bias` is what is added to the logits of some tokens, by their numbers in the model's vocabulary, written as
    texts: so OpenAI's API has them, and canonical JSON can't sort others.

    Defaults are written out: msgspec leaves them out by identity, and a turn's key must depend on values alone.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int = 0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()


class Sampling(Drawing, frozen=True, kw_only=True, omit_defaults=False):
    """How tokens are drawn, and what is told of them.

    With `logprobs`, 0 to 20, each token is told with its log-probability and so many of its likeliest alternatives.
    They are those of the model's own distribution, before any bias, penalty, filter, temperature or constraint, so an
    alternative may be one that could not have been drawn. `None` tells nothing, and costs nothing.
    """

    logprobs: int | None = None

    @property
    def drawing(self) -> Drawing:
        """What the text depends on."""
        return msgspec.convert(self, Drawing, from_attributes=True)


class Alternative(Value, frozen=True, kw_only=True, array_like=True):
    """A token that might have come: its number, its bytes, and the natural logarithm of its probability."""

    token: int
    piece: bytes
    logprob: float


class TokenLogprob(Value, frozen=True, kw_only=True, array_like=True):
    """A token that was written, how likely the model found it, and what it found the likeliest, the first first.

    `piece` are its bytes, which may end within a character; a control token has none. Where a constraint left no
    choice, the model was never asked: `logprob` is `None`, and there is no `top`.
    """

    token: int
    piece: bytes
    logprob: float | None = None
    top: tuple[Alternative, ...] = ()


Choice = Literal["scored", "calibrated"]
"""How one of a schema's options is chosen: by its likelihood, or by how far that is above what it is elsewhere."""


CHOICE_VERSION = 2
"""Part of a choice's key: it rises when options are weighed in another way."""


class ToolSpec(Value, frozen=True, kw_only=True):
    """A tool that the model may call: its name, what it does, and the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]
    pure: bool = False


class Usage(Value, frozen=True, kw_only=True):
    """What a turn took. `tokens_cached` of the `tokens_in` were already in the KV cache; times in milliseconds."""

    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0


class Turn(Value, frozen=True, kw_only=True):
    """One trip to the model within a task. `model` is the SHA-256 of its file; `turn` counts from 0.

    `output_schema` is a JSON Schema that the answer is constrained to; `None` leaves it free text, or one of a
    context-free `grammar`, in Lark or in llama.cpp's GBNF. With `choice`, the schema's options are weighed instead of
    written, "calibrated" against `baselines`: chats about other rows, or about nothing.
    `timeout_s` counts from the moment the bench begins the turn.
    """

    run: str
    task: str
    attempt: int
    turn: int = 0
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    output_schema: dict[str, Any] | None = None
    grammar: str | None = None
    choice: Choice | None = None
    baselines: tuple[tuple[Message, ...], ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    sample: int = 0
    timeout_s: float | None = None

    def key(self) -> str:
        """The digest of everything that determines the result. Hardware, run and log positions are not in it.

        The chat template is part of the model's file, so the file's digest covers it. The schema counts in its own
        order, which is the order of the answer's fields. The number before it all rises when the same turn comes to
        another prompt than before. `logprobs` and a grammar count where they are asked for, so that a turn without them
        has the key that it had before there were such things.
        """
        sampling = self.sampling.drawing if self.sampling.logprobs is None else self.sampling
        schema = None if self.output_schema is None else msgspec.json.encode(self.output_schema).decode()
        chosen = () if self.choice is None else (CHOICE_VERSION, self.choice, self.baselines)
        fitted = () if self.grammar is None else ("grammar", self.grammar)
        return digest_of(3, self.model, self.messages, sampling, schema, self.tools, self.sample, *chosen, *fitted)

    def for_attempt(self, attempt: int, seed: int) -> Turn:
        """The same turn as a further attempt, with that attempt's seed."""
        sampling = msgspec.structs.replace(self.sampling, seed=seed)
        return msgspec.structs.replace(self, attempt=attempt, sampling=sampling)


class Call(Value, frozen=True, kw_only=True):
    """A tool call that the model asked for; `arguments` is JSON that fits the tool's parameters."""

    id: str
    tool: str
    arguments: dict[str, Any]


Scores = dict[str, dict[str, float]]


class Answer(Value, frozen=True, kw_only=True, tag="answer"):
    """A turn that ended in a result. `value` is JSON: the object that the schema asked for, or the text as a string.

    `scores`, of a turn with a choice: for each field ("" where the answer is the choice itself), the probability of
    each of its options. `logprobs`, of a turn whose sampling asks for them, are of every token that was written, in
    order: also of the space around a text, and of a stop string, which aren't in `value`.
    """

    value: msgspec.Raw
    usage: Usage = Usage()
    finish: Literal["stop", "length"] = "stop"
    scores: Scores | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class Calls(Value, frozen=True, kw_only=True, tag="calls"):
    """A turn that ended in calls, to be done at home before the next turn."""

    calls: tuple[Call, ...]
    text: str = ""
    usage: Usage = Usage()


class Failure(Value, frozen=True, kw_only=True, tag="failure"):
    """A turn that went wrong. `code` is stable; `detail` (a traceback, an excerpt) is for `gx show` only."""

    code: str
    message: str
    retryable: bool = True
    detail: str = ""
    usage: Usage = Usage()


Outcome = Answer | Calls | Failure


class ModelCard(Value, frozen=True, kw_only=True):
    """What a bench says of a model that it loaded. `context_tokens` is what one turn may fill, prompt and answer.

    `slots` is how many turns of it there is room for at a time, 0 where it writes none. `warnings` say what makes it
    slow on that machine, in sentences.
    """

    digest: str
    path: str
    description: str = ""
    context_tokens: int
    parameters: int = 0
    size_bytes: int = 0
    vocabulary: int = 0
    has_chat_template: bool = True
    slots: int = 0
    warnings: tuple[str, ...] = ()


class Counts(Value, frozen=True, kw_only=True):
    """What an engine did, added up: since it was started, or between two readings.

    `cached_tokens` of the `prompt_tokens` weren't computed; a call is one of `llama_decode`, and its seconds are those
    spent within it. `busy_s` has all rounds of the engine, `queue_s` the waits of all requests for a slot.

    `…_squares` sum the squared tokens of the calls, `…_token_s` their tokens times their seconds: with the other sums
    they make the least-squares line through what calls took, so that one run tells what other numbers of slots would.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefill_tokens: int = 0
    prefill_calls: int = 0
    prefill_s: float = 0.0
    prefill_squares: int = 0
    prefill_token_s: float = 0.0
    decode_tokens: int = 0
    decode_calls: int = 0
    decode_s: float = 0.0
    decode_squares: int = 0
    decode_token_s: float = 0.0
    busy_s: float = 0.0
    queue_s: float = 0.0
