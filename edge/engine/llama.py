"""The only file that imports llama_cpp: a model and a context of its low-level API, as two small Python objects.

It knows pointers, batches, the vocabulary and the chat template that a GGUF file carries. It doesn't know what a turn
is, how a token is drawn, or when to stop. A `Model` may be read (`render`, `encode`, `piece`) from any thread; a
`Context` belongs to the one thread that decodes.

Invariant: `Context.held` lists exactly the tokens whose keys and values are in the cache, in order.

A GGML assertion aborts the process, so whatever can be checked is checked before the call; what the loader itself
finds wrong it reports by NULL and a line in its log, which becomes the `ModelError`'s message.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

# OpenMP's busy waiting starves whoever shares the cores; libgomp reads this when llama_cpp loads it.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from gx.core.errors import BenchError, GxError, ModelError
from gx.core.message import Message, ModelCard

Tokens = npt.NDArray[np.int32]  # [n_tokens] int32
Row = npt.NDArray[np.float32]  # [n_vocab] float32: the logits of one position

# What a turn gets where nobody says otherwise: a longer context costs memory whether it is used or not.
DEFAULT_CONTEXT_TOKENS = 8192
# Prompt tokens a decode call takes; between two calls a turn can be stopped. llama.cpp's own micro-batch.
CHUNK_TOKENS = 512
# The GGUF specification: magic, version, tensor count, metadata count. Version 1 had other widths.
_MAGIC, _HEADER_BYTES, _VERSIONS = b"GGUF", 24, (2, 3)
# ggml_log_level: 3 is a warning, 4 an error.
_LOG_ERROR = 4
_PIECE_BYTES = 256

# https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md; what most tuned models were tuned on.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

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
    """A loaded GGUF file: its weights, vocabulary and chat template.

    :raises ModelError: if the file is missing, isn't GGUF, is damaged, or holds a model that can't chat.
    """

    def __init__(self, digest: str, path: str) -> None:
        _check_header(path)
        self.digest, self.path = digest, path
        _complaints.clear()
        self._pointer: Any = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), llama_cpp.llama_model_default_params()
        )
        if not self._pointer:
            raise _load_error(path)
        try:
            self._read()
        except GxError:
            self.close()
            raise

    def _read(self) -> None:
        if self._meta(f"{self._meta('general.architecture')}.attention.causal") == "false":
            raise ModelError(f"{self.path} is an embedding model: it can't write answers", hint="name a chat model")
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self._pointer)
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
        if self.n_vocab <= 0:
            raise ModelError(f"{self.path} has no vocabulary", hint="name a GGUF file that holds a whole model")
        self.trained_tokens: int = llama_cpp.llama_model_n_ctx_train(self._pointer)
        self._pieces: dict[int, bytes] = {}
        self.eog = frozenset(t for t in range(self.n_vocab) if llama_cpp.llama_vocab_is_eog(self.vocab, t))
        template = llama_cpp.llama_model_chat_template(self._pointer, None)
        self.has_chat_template = bool(template)
        try:
            self._formatter = _Formatter(
                template=template.decode("utf-8", "replace") if template else CHATML,
                eos_token=self._special(llama_cpp.llama_vocab_eos(self.vocab)),
                bos_token=self._special(llama_cpp.llama_vocab_bos(self.vocab)),
            )
        except Exception as error:  # jinja2 isn't ours to import here, and its errors have no narrower base
            raise ModelError(f"the chat template in {self.path} can't be read: {error}") from error

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
            size_bytes=llama_cpp.llama_model_size(self._pointer),
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

    def tokenize(self, text: str) -> Tokens:
        """The tokens of `text`, [n_tokens] int32; control tokens written out in it count as such, and none is added."""
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 16
        found = np.empty(room, np.int32)
        buffer = found.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        n_tokens = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), buffer, room, False, True)
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
    """The KV cache of one sequence over a model, and the decoding into it.

    :raises ModelError: if there isn't the memory for `context_tokens`.
    """

    def __init__(self, model: Model, *, context_tokens: int, threads: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = context_tokens, CHUNK_TOKENS, CHUNK_TOKENS, 1
        params.n_threads = params.n_threads_batch = threads
        _complaints.clear()
        self._pointer: Any = llama_cpp.llama_init_from_model(model._pointer, params)
        if not self._pointer:
            raise ModelError(
                f"no context of {context_tokens} tokens could be made for {model.path}: {_complaint()}",
                hint="ask for a smaller context",
            )
        self.context_tokens, self._n_vocab = context_tokens, model.n_vocab
        self.held: list[int] = []
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self._batch = llama_cpp.llama_batch_init(CHUNK_TOKENS, 0, 1)
        self._tokens = np.ctypeslib.as_array(self._batch.token, (CHUNK_TOKENS,))
        self._positions = np.ctypeslib.as_array(self._batch.pos, (CHUNK_TOKENS,))
        self._wants_logits = np.ctypeslib.as_array(self._batch.logits, (CHUNK_TOKENS,))
        self._wants_logits[:] = 0
        for i in range(CHUNK_TOKENS):
            self._batch.n_seq_id[i], self._batch.seq_id[i][0] = 1, 0

    def reuse(self, prompt: Sequence[int]) -> int:
        """Keep the longest prefix of `prompt` that the cache holds, forget the rest, and return its length.

        At least one token is always left to decode, since only a decode gives logits.
        """
        held = np.asarray(self.held[: len(prompt) - 1], np.int32)
        differs = np.flatnonzero(held != np.asarray(prompt[: len(held)], np.int32))
        n_kept = int(differs[0]) if len(differs) else len(held)
        if not llama_cpp.llama_memory_seq_rm(self._memory, 0, n_kept, -1):  # a recurrent state can't be cut
            n_kept = 0
            llama_cpp.llama_memory_clear(self._memory, True)
        del self.held[n_kept:]
        return n_kept

    def decode(self, tokens: Sequence[int] | Tokens, is_stopped: Callable[[], bool]) -> Row | None:
        """Append tokens and return the logits after the last one, [n_vocab] float32, writable until the next call.

        `None` if `is_stopped` said so between two chunks; `held` then ends where the decoding did.

        :raises BenchError: if llama.cpp can't decode, or if there is no room; the cache is empty then.
        """
        if not len(tokens) or len(self.held) + len(tokens) > self.context_tokens:
            raise BenchError(f"{len(tokens)} tokens don't fit after {len(self.held)} of {self.context_tokens}")
        for start in range(0, len(tokens), CHUNK_TOKENS):
            if start and is_stopped():
                return None
            self._decode_chunk(tokens[start : start + CHUNK_TOKENS], is_last=start + CHUNK_TOKENS >= len(tokens))
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._pointer, -1), (self._n_vocab,))

    def clear(self) -> None:
        """Forget every token."""
        llama_cpp.llama_memory_clear(self._memory, True)
        self.held.clear()

    def close(self) -> None:
        """Free the cache."""
        if self._pointer:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._pointer)
            self._pointer = None

    def _decode_chunk(self, chunk: Sequence[int] | Tokens, *, is_last: bool) -> None:
        n, start = len(chunk), len(self.held)
        self._tokens[:n] = chunk
        self._positions[:n] = range(start, start + n)
        self._wants_logits[n - 1] = is_last
        self._batch.n_tokens = n
        status = llama_cpp.llama_decode(self._pointer, self._batch)
        self._wants_logits[n - 1] = 0
        if status != 0:
            self.clear()
            raise BenchError(f"llama.cpp could not decode {n} tokens at {start} (status {status}): {_complaint()}")
        self.held.extend(chunk.tolist() if isinstance(chunk, np.ndarray) else chunk)


def _check_header(path: str) -> None:
    """Refuse what the loader needn't see. :raises ModelError: naming what is wrong with the file."""
    try:
        with Path(path).open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        hint = "check the path, or fetch the model again"
        raise ModelError(f"the model file {path} can't be read: {error.strerror or error}", hint=hint) from error
    if header[:4] != _MAGIC:
        found = f"it begins with {header[:4]!r}" if header else "it is empty"
        raise ModelError(f"{path} isn't a GGUF file: {found}, not {_MAGIC!r}", hint="name a file in the GGUF format")
    if len(header) < _HEADER_BYTES:
        raise ModelError(f"{path} is cut short: it ends within its header ({len(header)} bytes)", hint="fetch it again")
    version = int.from_bytes(header[4:8], "little")
    if version not in _VERSIONS:
        raise ModelError(f"{path} is GGUF version {version}; versions 2 and 3 can be read", hint="convert it again")


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
