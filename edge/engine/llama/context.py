"""The cache of some slots over a model, and the decoding into it. It belongs to the one thread that decodes.

What its slots hold is kept in `slots`.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edge.engine.llama.batch import Batch
from edge.engine.llama.library import forget, llama_cpp, take_complaint
from edge.engine.llama.model import Model
from edge.engine.slots import Copy, Move, Tokens
from edge.engine.tuning import UNTUNED, Tuning
from gx.core.errors import BenchError, ModelError

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


# The most tokens of one call, and of one pass over the weights: llama.cpp's own defaults.
BATCH_TOKENS, PASS_TOKENS = 2048, 512
_FLASH = {
    None: llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    False: llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    True: llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}
_CACHE = {"f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0}


class _Moved(threading.local):
    """What sequences are moved through. All contexts of a thread share it, since one of them moves at a time."""

    def __init__(self) -> None:
        self.buffers = [np.empty(0, np.uint8) for _ in range(2)]


_moved = _Moved()


class Context:
    """The KV cache of some slots over a model, a sequence of at most `slot_tokens` each, and the decoding into them.

    Each slot's memory is a stream of its own ("split", not "unified"), so that attention looks at no other's: 64
    answers behind 470 tokens that they share decode at 116 tokens a second in a unified cache, at 186 in this. What
    `tuning` says of threads is for whoever gives `threads`.

    :raises ModelError: if there isn't the memory for it, or the model can't be computed as `tuning` says.
    """

    def __init__(self, model: Model, *, slots: int, slot_tokens: int, threads: int, tuning: Tuning = UNTUNED) -> None:
        self.pass_tokens = tuning.pass_tokens or PASS_TOKENS
        params = llama_cpp.llama_context_default_params()
        params.n_seq_max, params.n_ctx, params.kv_unified = slots, slots * _padded(slot_tokens), False
        params.n_batch, params.n_ubatch, params.no_perf = BATCH_TOKENS, self.pass_tokens, True
        params.swa_full = True  # all of a sequence is kept, so that a beginning of it can be shared
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = _FLASH[tuning.flash]
        params.type_k = params.type_v = _CACHE[tuning.cache]
        self._pointer: Any = model.new_context(params)
        if not self._pointer:
            raise ModelError(
                f"no context of {slots} x {slot_tokens} tokens could be made for {model.path}: {take_complaint()}",
                hint="ask for a smaller context",
            )
        self._n_vocab = model.vocab.n_tokens
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self._batch = Batch(BATCH_TOKENS)

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
        forget()
        status = llama_cpp.llama_decode(self._pointer, self._batch.of(n))
        if status != 0:
            raise BenchError(f"llama.cpp could not decode {n} tokens (status {status}): {take_complaint()}")
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

    def save(self, slot: int, *, buffer: int = 0) -> State:
        """What a slot holds, [n_bytes] uint8, in one of this thread's two buffers; good until that is used again."""
        n_bytes = llama_cpp.llama_state_seq_get_size(self._pointer, slot)
        buffers = _moved.buffers
        if len(buffers[buffer]) < n_bytes:
            try:
                buffers[buffer] = np.empty(n_bytes * 3 // 2, np.uint8)  # touching new memory takes the longest
            except MemoryError as error:
                raise BenchError(f"there is no memory to move the {n_bytes} bytes of slot {slot}") from error
        state = buffers[buffer][:n_bytes]
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if llama_cpp.llama_state_seq_get_data(self._pointer, pointer, n_bytes, slot) != n_bytes:
            raise BenchError(f"slot {slot} can't be read: {take_complaint()}")
        return state

    def restore(self, slot: int, state: State) -> None:
        """Put there what was saved, also in another context of the model. :raises BenchError: if llama.cpp can't."""
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)
        if llama_cpp.llama_state_seq_set_data(self._pointer, pointer, len(state), slot) != len(state):
            raise BenchError(f"slot {slot} can't be written: {take_complaint()}")

    def close(self) -> None:
        """Free the cache."""
        if self._pointer:
            self._batch.close()
            llama_cpp.llama_free(self._pointer)
            self._pointer = None


def _padded(tokens: int) -> int:
    """What llama.cpp makes of a sequence's length: the next multiple of 256."""
    return -(-tokens // 256) * 256
