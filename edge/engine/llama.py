"""The only file that imports llama_cpp: a model, a context and an encoder of its low-level API, as Python objects.

It knows pointers, batches, the vocabulary and the chat template that a GGUF file carries. It doesn't know what a turn
is, how a token is drawn, or when to stop. A `Model` may be read (`render`, `encode`, `piece`) from any thread; a
`Context` belongs to the one thread that decodes. What a context's slots hold is kept in `slots`.

A GGML assertion aborts the process, so whatever can be checked is checked before the call; what the loader itself
finds wrong it reports by NULL and a line in its log, which becomes the `ModelError`'s message.

It is longer than other files since no other may know what it knows.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

# OpenMP's busy waiting starves whoever shares the cores; libgomp reads this when llama_cpp loads it.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from edge.engine.gguf import check_header
from edge.engine.slots import Copy, Move, Tokens
from edge.engine.tuning import UNTUNED, Tuning
from gx.core.errors import BenchError, GxError, ModelError
from gx.core.message import Message, ModelCard

Row = npt.NDArray[np.float32]  # [n_vocab] float32: the logits of one position
Rows = npt.NDArray[np.float32]  # [n_rows, n_vocab] float32
State = npt.NDArray[np.uint8]  # [n_bytes] uint8: what a slot holds, in llama.cpp's own format


Wanted = Literal["none", "last", "all"]
"""Of which tokens the logits are wanted."""


class Fed(NamedTuple):
    """Tokens for a slot, [n_tokens] int32, the first one at position `start`, and whose logits are wanted."""

    slot: int
    start: int
    tokens: Tokens
    wanted: Wanted


def rows_of(tokens: Tokens, wanted: Wanted) -> int:
    """How many rows of logits come of them."""
    return len(tokens) if wanted == "all" else int(wanted == "last")


# What a turn gets where nobody says otherwise: a longer context costs memory whether it is used or not.
DEFAULT_CONTEXT_TOKENS = 8192
# The most tokens of one call, and of one pass over the weights: llama.cpp's own defaults.
BATCH_TOKENS, PASS_TOKENS = 2048, 512
# ggml_log_level: 3 is a warning, 4 an error.
_LOG_ERROR = 4
_PIECE_BYTES = 256

# https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md; what most tuned models were tuned on.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_FLASH = {
    None: llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    False: llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    True: llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}
_CACHE = {"f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0}
_STATEFUL = (llama_cpp.llama_model_is_recurrent, llama_cpp.llama_model_is_hybrid)
_complaints: deque[str] = deque(maxlen=8)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _user: object) -> None:
    """Keep llama.cpp quiet, and keep its last complaints. A module's name, so that it is never collected."""
    if level == _LOG_ERROR:
        _complaints.append(text.decode("utf-8", "replace").strip())


llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def build() -> str:
    """The engine's build, for people: the binding's version and the instruction sets that it was compiled for."""
    flags = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    sets = [part.split("=")[0].strip() for part in flags.split("|") if part.strip().endswith("= 1")]
    return f"llama-cpp-python {llama_cpp.__version__} ({' '.join(sets)})"


def offloads() -> bool:
    """Whether this build can put layers on a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def default_threads() -> int:
    """The cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


class _Formatter(Jinja2ChatFormatter):
    """The chat template's runner, in which today is always the same day.

    Some templates write the date into the prompt. A turn's key covers its messages and its model, not the day, so a
    prompt that changed overnight would belie it. The day is the one that Llama 3's own template falls back on.
    """

    @staticmethod
    def strftime_now(f: str) -> str:
        return datetime(2024, 7, 26).strftime(f)


class Model:
    """A loaded GGUF file: its weights, vocabulary and chat template; with LoRA `adapters`, (path, strength) each.

    :raises ModelError: if a file is missing, isn't GGUF, is damaged, has no vocabulary, or doesn't fit the model.
    """

    def __init__(self, digest: str, path: str, adapters: Sequence[tuple[str, float]] = ()) -> None:
        check_header(path)
        self.digest, self.path = digest, path
        _complaints.clear()
        self._pointer: Any = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), llama_cpp.llama_model_default_params()
        )
        if not self._pointer:
            raise _load_error(path)
        self._adapters: list[tuple[Any, float]] = []
        try:
            self._read()
            for adapter, strength in adapters:
                self._adapters.append((self._adapter(adapter), strength))
        except GxError:
            self.close()
            raise

    def _read(self) -> None:
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self._pointer)
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
        if self.n_vocab <= 0:
            raise ModelError(f"{self.path} has no vocabulary", hint="name a GGUF file that holds a whole model")
        architecture = self._meta("general.architecture")
        pooling = int(self._meta(f"{architecture}.pooling_type") or llama_cpp.LLAMA_POOLING_TYPE_NONE)
        self.can_embed, self.is_reranker = pooling > 0, pooling == llama_cpp.LLAMA_POOLING_TYPE_RANK
        is_encoder = self._meta(f"{architecture}.attention.causal") == "false"
        self.can_write = not (self.can_embed or is_encoder or llama_cpp.llama_model_has_encoder(self._pointer))
        self.trained_tokens: int = llama_cpp.llama_model_n_ctx_train(self._pointer)
        self.size_bytes: int = llama_cpp.llama_model_size(self._pointer)
        self._pieces: dict[int, bytes] = {}
        self.eog = frozenset(t for t in range(self.n_vocab) if llama_cpp.llama_vocab_is_eog(self.vocab, t))
        end, text_end = llama_cpp.llama_vocab_eot(self.vocab), llama_cpp.llama_vocab_eos(self.vocab)
        self.end_token: int = end if end >= 0 else text_end
        template = llama_cpp.llama_model_chat_template(self._pointer, None)
        self.has_chat_template = bool(template)
        # A recurrent state is of the whole sequence: it can't be cut back to a beginning.
        self.can_share = not any(f(self._pointer) for f in _STATEFUL)
        try:
            self._formatter = _Formatter(
                template=template.decode("utf-8", "replace") if template else CHATML,
                eos_token=self._special(llama_cpp.llama_vocab_eos(self.vocab)),
                bos_token=self._special(llama_cpp.llama_vocab_bos(self.vocab)),
            )
        except Exception as error:  # jinja2 isn't ours to import here, and its errors have no narrower base
            raise ModelError(f"the chat template in {self.path} can't be read: {error}") from error

    def _adapter(self, path: str) -> Any:
        """A LoRA adapter over these weights; it lives as long as they do."""
        check_header(path)
        _complaints.clear()
        pointer = llama_cpp.llama_adapter_lora_init(self._pointer, os.fsencode(path))
        if not pointer:
            hint = "name a LoRA adapter in GGUF that was made for this very model"
            raise ModelError(f"{path} can't be put on {self.path}: {_complaint()}", hint=hint)
        return pointer

    def adapt(self, context: Any) -> None:
        """Put the adapters on a new llama.cpp context. :raises ModelError: if they don't go together."""
        if not self._adapters:
            return
        n = len(self._adapters)
        pointers = (llama_cpp.llama_adapter_lora_p_ctypes * n)(*(pointer for pointer, _ in self._adapters))
        strengths = (ctypes.c_float * n)(*(strength for _, strength in self._adapters))
        if llama_cpp.llama_set_adapters_lora(context, pointers, n, strengths):
            raise ModelError(f"the adapters of {self.path} can't be used together")

    @cached_property
    def token_bytes(self) -> int:
        """What the keys and values of one token take in the cache, in half precision."""
        architecture = self._meta("general.architecture")
        heads: int = llama_cpp.llama_model_n_head_kv(self._pointer)
        width = llama_cpp.llama_model_n_embd(self._pointer) // max(1, llama_cpp.llama_model_n_head(self._pointer))
        key, value = (int(self._meta(f"{architecture}.attention.{part}_length") or width) for part in ("key", "value"))
        layers: int = llama_cpp.llama_model_n_layer(self._pointer)
        return max(1, layers * heads * (key + value) * 2)

    def card(self, context_tokens: int) -> ModelCard:
        """What a desk is told of this model."""
        text = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self._pointer, text, 256)
        return ModelCard(
            digest=self.digest,
            path=self.path,
            description=text.value.decode("utf-8", "replace"),
            context_tokens=context_tokens,
            parameters=llama_cpp.llama_model_n_params(self._pointer),
            size_bytes=self.size_bytes,
            vocabulary=self.n_vocab,
            has_chat_template=self.has_chat_template,
        )

    def context_tokens(self, wanted: int | None) -> int:
        """What one turn may fill: what is `wanted`, or `DEFAULT_CONTEXT_TOKENS`; at most what it was trained on."""
        limit = wanted or DEFAULT_CONTEXT_TOKENS
        return min(limit, self.trained_tokens) if self.trained_tokens > 0 else limit

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt of a chat in the model's own template, up to where the assistant begins to speak.

        :raises GxError: (code "template") if the template refuses these messages.
        """
        chat: list[Any] = [
            {"role": m.role, "content": m.content} | ({"tool_call_id": m.call} if m.call else {}) for m in messages
        ]
        try:
            return str(self._formatter(messages=chat).prompt)
        except Exception as error:  # templates raise whatever they like
            raise GxError(f"the model's chat template refuses these messages: {error}", code="template") from error

    def encode(self, messages: Sequence[Message]) -> Tokens:
        """The prompt tokens of a chat, [n_tokens] int32. :raises GxError: (code "template"), as `render` does."""
        return self.tokenize(self.render(messages))

    def tokenize(self, text: str, *, adds_special: bool = False) -> Tokens:
        """The tokens of `text`, [n_tokens] int32; control tokens written out in it count as such.

        With `adds_special` come those that the model wants at the beginning and the end of a text of its own.
        """
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 16
        found = np.empty(room, np.int32)
        buffer = found.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        n_tokens = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), buffer, room, adds_special, True)
        if n_tokens < 0:
            raise ModelError(f"the tokenizer of {self.path} makes more tokens than bytes of a text of {len(raw)} bytes")
        return found[:n_tokens]

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; none for a control token. They may end within a character."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._piece(token, is_special=False)
        return known

    @property
    def is_closed(self) -> bool:
        """Whether the weights were freed; nothing may be asked of the model then."""
        return not self._pointer

    def close(self) -> None:
        """Free the weights. Its contexts are closed before it."""
        if self._pointer:
            llama_cpp.llama_model_free(self._pointer)
            self._pointer = None

    def _special(self, token: int) -> str:
        return self._piece(token, is_special=True).decode("utf-8", "replace") if token >= 0 else ""

    def _piece(self, token: int, *, is_special: bool) -> bytes:
        room = _PIECE_BYTES
        while True:
            text = ctypes.create_string_buffer(room)
            n_bytes = llama_cpp.llama_token_to_piece(self.vocab, token, text, room, 0, is_special)
            if n_bytes >= 0:
                return text.raw[:n_bytes]
            room = -n_bytes

    def _meta(self, key: str) -> str:
        text = ctypes.create_string_buffer(256)
        found = llama_cpp.llama_model_meta_val_str(self._pointer, key.encode(), text, 256)
        return text.value.decode("utf-8", "replace") if found >= 0 else ""


class Context:
    """The KV cache of some slots over a model, a sequence of at most `slot_tokens` each, and the decoding into them.

    Each slot's memory is a stream of its own ("split", not "unified"), so that attention looks at no other's. What
    `tuning` says of threads is for whoever gives `threads`.

    :raises ModelError: if there isn't the memory for it, or the model can't be computed as `tuning` says.
    """

    def __init__(self, model: Model, *, slots: int, slot_tokens: int, threads: int, tuning: Tuning = UNTUNED) -> None:
        self.pass_tokens = tuning.pass_tokens or PASS_TOKENS
        params = llama_cpp.llama_context_default_params()
        params.n_seq_max, params.n_ctx, params.kv_unified = slots, slots * _padded(slot_tokens), False
        params.n_batch, params.n_ubatch, params.no_perf = BATCH_TOKENS, self.pass_tokens, True
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = _FLASH[tuning.flash]
        params.type_k = params.type_v = _CACHE[tuning.cache]
        _complaints.clear()
        self._pointer: Any = llama_cpp.llama_init_from_model(model._pointer, params)
        if not self._pointer:
            raise ModelError(
                f"no context of {slots} x {slot_tokens} tokens could be made for {model.path}: {_complaint()}",
                hint="ask for a smaller context",
            )
        model.adapt(self._pointer)
        self._n_vocab = model.n_vocab
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self._batch = _Batch(BATCH_TOKENS)
        self._buffers = [np.empty(0, np.uint8) for _ in range(2)]

    def decode(self, parts: Sequence[Fed]) -> Rows:
        """Decode tokens of some slots, in ascending order of the slots, at most `BATCH_TOKENS` in all.

        Returns the logits that were wanted, in the order of the parts, [n_rows, n_vocab] float32: a part's last
        token's, or all of its tokens'. They may be written to, and are good until the next call.

        :raises BenchError: if llama.cpp can't decode; what these slots hold isn't known then.
        """
        n = n_rows = 0
        for slot, start, tokens, wanted in parts:
            n = self._batch.add(n, slot, start, tokens)
            self._batch.wants_logits[n - len(tokens) : n] = wanted == "all"
            self._batch.wants_logits[n - 1] = wanted != "none"
            n_rows += rows_of(tokens, wanted)
        status = llama_cpp.llama_decode(self._pointer, self._batch.of(n))
        if status != 0:
            raise BenchError(f"llama.cpp could not decode {n} tokens (status {status}): {_complaint()}")
        if not n_rows:
            return np.empty((0, self._n_vocab), np.float32)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._pointer), (n_rows, self._n_vocab))

    def use_threads(self, n_threads: int) -> None:
        """From the next call on."""
        llama_cpp.llama_set_n_threads(self._pointer, n_threads, n_threads)

    def move(self, moves: Iterable[Move]) -> None:
        """Cut and copy sequences. A copy is of a whole sequence: a part of one would abort the process."""
        for move in moves:
            if isinstance(move, Copy):
                llama_cpp.llama_memory_seq_cp(self._memory, move.source, move.target, -1, -1)
                if not llama_cpp.llama_memory_seq_rm(self._memory, move.target, move.n_tokens, -1):
                    raise BenchError(f"slot {move.target} can't be cut back to {move.n_tokens} tokens")
            elif not llama_cpp.llama_memory_seq_rm(self._memory, move.slot, move.n_tokens, -1):
                raise BenchError(f"slot {move.slot} can't be cut back to {move.n_tokens} tokens")

    def swap(self, one: int, other: int) -> None:
        """Two slots change places, with all they hold. :raises BenchError: if llama.cpp can't."""
        states = self.save(one), self.save(other, buffer=1)
        self.restore(one, states[1])
        self.restore(other, states[0])

    def save(self, slot: int, *, buffer: int = 0) -> State:
        """What a slot holds, [n_bytes] uint8, in one of two buffers; good until that one is used again."""
        n_bytes = llama_cpp.llama_state_seq_get_size(self._pointer, slot)
        if len(self._buffers[buffer]) < n_bytes:
            self._buffers[buffer] = np.empty(n_bytes * 3 // 2, np.uint8)  # touching new memory takes the longest
        state = self._buffers[buffer][:n_bytes]
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if llama_cpp.llama_state_seq_get_data(self._pointer, pointer, n_bytes, slot) != n_bytes:
            raise BenchError(f"slot {slot} can't be read")
        return state

    def restore(self, slot: int, state: State) -> None:
        """Put there what was saved, also in another context of the model. :raises BenchError: if llama.cpp can't."""
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)
        if llama_cpp.llama_state_seq_set_data(self._pointer, pointer, len(state), slot) != len(state):
            raise BenchError(f"slot {slot} can't be written")

    def close(self) -> None:
        """Free the cache."""
        if self._pointer:
            self._batch.close()
            llama_cpp.llama_free(self._pointer)
            self._pointer = None


class Encoder:
    """Texts in, vectors out, over an embedding model or a reranker; pooled as the model's file says.

    Every text of a batch is a sequence of its own, and all of it is computed in one pass: `batch_tokens` is the longest
    text, too. :raises ModelError: if there isn't the memory for it.
    """

    batch_texts = 64

    def __init__(self, model: Model, *, threads: int, batch_tokens: int) -> None:
        self.batch_tokens = batch_tokens
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max, params.kv_unified, params.embeddings, params.no_perf = self.batch_texts, True, True, True
        params.n_threads = params.n_threads_batch = threads
        _complaints.clear()
        self._pointer: Any = llama_cpp.llama_init_from_model(model._pointer, params)
        if not self._pointer:
            raise ModelError(f"no encoder of {batch_tokens} tokens could be made for {model.path}: {_complaint()}")
        self._memory = llama_cpp.llama_get_memory(self._pointer)  # NULL for a model that is an encoder only
        self._run = llama_cpp.llama_decode if self._memory else llama_cpp.llama_encode
        width = llama_cpp.llama_model_n_cls_out if model.is_reranker else llama_cpp.llama_model_n_embd_out
        self.dimensions: int = width(model._pointer)
        self._batch = _Batch(batch_tokens)
        self._batch.wants_logits[:] = 1

    def encode(self, texts: Sequence[Tokens]) -> Rows:
        """The vectors of at most `batch_texts` texts of together at most `batch_tokens` tokens, [n_texts, dimensions].

        A reranker's are scores. :raises BenchError: if llama.cpp can't encode.
        """
        n = 0
        for sequence, tokens in enumerate(texts):
            n = self._batch.add(n, sequence, 0, tokens)
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)
        status = self._run(self._pointer, self._batch.of(n))
        if status != 0:
            raise BenchError(f"llama.cpp could not encode {n} tokens (status {status}): {_complaint()}")
        rows = [llama_cpp.llama_get_embeddings_seq(self._pointer, sequence) for sequence in range(len(texts))]
        return np.stack([np.ctypeslib.as_array(row, (self.dimensions,)) for row in rows])

    def close(self) -> None:
        """Free the context."""
        if self._pointer:
            self._batch.close()
            llama_cpp.llama_free(self._pointer)
            self._pointer = None


class _Batch:
    """llama.cpp's batch of up to `n_tokens` tokens, seen through numpy: filling it by ctypes would take longer."""

    def __init__(self, n_tokens: int) -> None:
        self._batch = llama_cpp.llama_batch_init(n_tokens, 0, 1)
        as_array = np.ctypeslib.as_array
        self._tokens = as_array(self._batch.token, (n_tokens,))
        self._positions = as_array(self._batch.pos, (n_tokens,))
        self.wants_logits = as_array(self._batch.logits, (n_tokens,))
        as_array(self._batch.n_seq_id, (n_tokens,))[:] = 1
        # One array holds every token's sequence: the pointers to them are turned to it once, and back before the free.
        self._sequences = np.zeros(n_tokens, np.int32)
        self._pointers = as_array(ctypes.cast(self._batch.seq_id, ctypes.POINTER(ctypes.c_uint64)), (n_tokens,))
        self._own_pointers = self._pointers.copy()
        offsets = self._sequences.itemsize * np.arange(n_tokens, dtype=np.uint64)
        self._pointers[:] = np.uint64(self._sequences.ctypes.data) + offsets

    def add(self, n: int, sequence: int, start: int, tokens: Tokens) -> int:
        """Put the tokens of a sequence, the first at position `start`, behind the first `n`; how many there are now."""
        end = n + len(tokens)
        self._tokens[n:end] = tokens
        self._positions[n:end] = range(start, start + len(tokens))
        self._sequences[n:end] = sequence
        return end

    def of(self, n_tokens: int) -> Any:
        """The batch of the first `n_tokens`."""
        self._batch.n_tokens = n_tokens
        return self._batch

    def close(self) -> None:
        self._pointers[:] = self._own_pointers
        llama_cpp.llama_batch_free(self._batch)


def requantize(source: str, target: str, kind: Literal["bf16", "q8_0"], *, threads: int) -> None:
    """Write the weights of a GGUF file in another format. :raises ModelError: if llama.cpp can't."""
    check_header(source)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = {"bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16, "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}[kind]
    params.nthread, params.allow_requantize = threads, True
    _complaints.clear()
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)):
        raise ModelError(f"{source} can't be written as {kind}: {_complaint()}", hint="is there room for the copy?")


def _padded(tokens: int) -> int:
    """What llama.cpp makes of a sequence's length: the next multiple of 256."""
    return -(-tokens // 256) * 256


def _load_error(path: str) -> ModelError:
    """What the loader's log says, as an error: most often a download that was cut short."""
    size = Path(path).stat().st_size
    text = " ".join(_complaints)
    if "not within the file bounds" in text or "failed to read" in text:
        hint = "fetch the file again, and compare its SHA-256"
        return ModelError(f"{path} is cut short or damaged ({size} bytes): {_complaint()}", hint=hint)
    return ModelError(f"{path} can't be loaded ({size} bytes): {_complaint()}")


def _complaint() -> str:
    """The first of llama.cpp's last complaints, and forget them: the later ones say the same in more general words."""
    first = _complaints[0] if _complaints else "no reason given"
    _complaints.clear()
    return first.removeprefix("llama_model_load: error loading model: ")
