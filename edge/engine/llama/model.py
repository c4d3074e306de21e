"""A model: the weights of a GGUF file, the chat template that it carries, and adapters over it.

It doesn't know what a turn is, how a token is drawn, or when to stop. A `Model` may be read (`render`, `encode`) from
any thread.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from edge.engine.gguf import check_header
from edge.engine.llama import weights
from edge.engine.llama.chat import CHATML, Template
from edge.engine.llama.library import forget, llama_cpp, take_complaint
from edge.engine.llama.vocabulary import Vocabulary
from edge.engine.slots import Tokens
from edge.header import read_header
from gx.core.errors import ModelError
from gx.core.message import Message, ModelCard

# What a turn gets where nobody says otherwise: a longer context costs memory whether it is used or not.
DEFAULT_CONTEXT_TOKENS = 8192
_STATEFUL = (llama_cpp.llama_model_is_recurrent, llama_cpp.llama_model_is_hybrid)


class Model:
    """A loaded GGUF file: its weights, `vocab` and chat template; with LoRA `adapters`, (path, strength) each.

    Models of the same file share its weights. `gpu_layers` is how many of its layers a GPU computes, where the build
    can use one; None is all.

    :raises ModelError: if a file is missing, isn't GGUF, is damaged, has no vocabulary, or doesn't fit the model.
    """

    def __init__(
        self, digest: str, path: str, adapters: Sequence[tuple[str, float]] = (), *, gpu_layers: int | None = None
    ) -> None:
        self.digest, self.path, self.gpu_layers = digest, path, gpu_layers
        self._weights = weights.take(path, gpu_layers)
        self._pointer: Any = self._weights.pointer
        self._adapters: list[tuple[Any, float]] = []
        try:
            self._read()
            for adapter, strength in adapters:
                self._adapters.append((self._adapter(adapter), strength))
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        self.vocab = Vocabulary(self._pointer, self.path)
        architecture = self._meta("general.architecture")
        pooling = int(self._meta(f"{architecture}.pooling_type") or llama_cpp.LLAMA_POOLING_TYPE_NONE)
        self.can_embed, self.is_reranker = pooling > 0, pooling == llama_cpp.LLAMA_POOLING_TYPE_RANK
        is_encoder = self._meta(f"{architecture}.attention.causal") == "false"
        self.can_write = not (self.can_embed or is_encoder or llama_cpp.llama_model_has_encoder(self._pointer))
        self.trained_tokens: int = llama_cpp.llama_model_n_ctx_train(self._pointer)
        self.size_bytes: int = llama_cpp.llama_model_size(self._pointer)
        pair = llama_cpp.llama_model_chat_template(self._pointer, b"rerank")
        self.pair_template: str | None = pair.decode("utf-8", "replace") if pair else None
        template = llama_cpp.llama_model_chat_template(self._pointer, None)
        self.has_chat_template = bool(template)
        # A recurrent state is of the whole sequence: it can't be cut back to a beginning.
        self.can_share = not any(f(self._pointer) for f in _STATEFUL)
        # Some layers look back so many tokens only, and a saved sequence holds no more of these: what is restored of it
        # can be gone on with, and not cut back.
        self.can_move = self.can_share and not llama_cpp.llama_model_n_swa(self._pointer)
        text = template.decode("utf-8", "replace") if template else CHATML
        words = self.vocab
        controls, others = words.orders()
        begins = words.bos if words.begins_with_bos else ""  # some templates write it, some leave it out
        try:
            self._template = Template(
                text, eos=words.eos, bos=words.bos, begins=begins, controls=controls, others=others
            )
        except Exception as error:  # jinja2 isn't ours to import here, and its errors have no narrower base
            raise ModelError(f"the chat template in {self.path} can't be read: {error}") from error

    def _adapter(self, path: str) -> Any:
        """A LoRA adapter over these weights."""
        check_header(path)
        with Path(path).open("rb") as file:  # into the page cache: the lock is held for no longer than it takes to copy
            while file.read(1 << 20):
                pass
        forget()
        with self._weights.exclusive:
            pointer = llama_cpp.llama_adapter_lora_init(self._pointer, os.fsencode(path))
        if not pointer:
            hint = "name a LoRA adapter in GGUF that was made for this very model"
            raise ModelError(f"{path} can't be put on {self.path}: {take_complaint()}", hint=hint)
        return pointer

    def new_context(self, params: Any) -> Any:
        """A llama.cpp context with the adapters on it; `None` if llama.cpp can't make one, and says why.

        :raises ModelError: if it doesn't take the adapters.
        """
        forget()
        with self._weights.exclusive:
            context = llama_cpp.llama_init_from_model(self._pointer, params)
            if not context or not self._adapters:
                return context
            is_taken = self._adapt(context)
            if is_taken and _is_ready(context):
                return context
            llama_cpp.llama_free(context)
        if not is_taken:
            raise ModelError(f"the adapters of {self.path} can't be used together: {take_complaint()}")
        return None

    def _adapt(self, context: Any) -> bool:
        """Put the adapters on a context; whether it takes them."""
        n = len(self._adapters)
        pointers = (llama_cpp.llama_adapter_lora_p_ctypes * n)(*(pointer for pointer, _ in self._adapters))
        strengths = (ctypes.c_float * n)(*(strength for _, strength in self._adapters))
        return bool(llama_cpp.llama_set_adapters_lora(context, pointers, n, strengths) == 0)

    def keep_weights(self) -> Callable[[], None]:
        """Have the weights stay in memory, also when this is closed, until what is returned is called."""
        kept = self._weights
        weights.keep(kept)
        return lambda: weights.give_back(kept)

    @cached_property
    def has_head(self) -> bool:
        """Whether the file has the weights that make a score of a text: without them llama.cpp gives any number."""
        header = read_header(self.path)
        return header is not None and header.has_head

    @cached_property
    def token_bytes(self) -> int:
        """What the keys and values of one token take in the cache, in half precision."""
        architecture = self._meta("general.architecture")
        n_heads: int = llama_cpp.llama_model_n_head(self._pointer)
        # llama.cpp tells of the first layer, which in a hybrid model often doesn't attend, though others do.
        heads: int = llama_cpp.llama_model_n_head_kv(self._pointer) or n_heads
        width = llama_cpp.llama_model_n_embd(self._pointer) // max(1, n_heads)
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
            vocabulary=self.vocab.n_tokens,
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
        return self._template.render(messages)

    def said(self, text: str) -> str:
        """What somebody says, to be put among control tokens: none of those that it spells out is one."""
        return self._template.said(text)

    def encode(self, messages: Sequence[Message]) -> Tokens:
        """The prompt tokens of a chat, [n_tokens] int32. :raises GxError: (code "template"), as `render` does."""
        return self.vocab.tokenize(self.render(messages))

    @property
    def is_closed(self) -> bool:
        """Whether it was freed; nothing may be asked of the model then."""
        return not self._pointer

    def close(self) -> None:
        """Free the adapters, and the weights unless another model has them too. Its contexts are closed before it."""
        if self._pointer:
            with self._weights.exclusive:
                for adapter, _ in self._adapters:
                    llama_cpp.llama_adapter_lora_free(adapter)
            self._adapters.clear()
            self._pointer = None
            weights.give_back(self._weights)

    def _meta(self, key: str) -> str:
        text = ctypes.create_string_buffer(256)
        found = llama_cpp.llama_model_meta_val_str(self._pointer, key.encode(), text, 256)
        return text.value.decode("utf-8", "replace") if found >= 0 else ""


def _is_ready(context: Any) -> bool:
    """Compute a token: before the first one llama.cpp looks through the adapters once more. Whether that worked."""
    memory = llama_cpp.llama_get_memory(context)  # NULL for a model that is an encoder only
    run = llama_cpp.llama_decode if memory else llama_cpp.llama_encode
    is_ready: bool = run(context, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(0), 1)) == 0
    if memory:
        llama_cpp.llama_memory_clear(memory, True)
    return is_ready
