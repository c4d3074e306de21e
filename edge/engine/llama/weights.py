"""The weights of GGUF files, in memory once for all models that are made of them: other adapters make another model.

Adapters are kept in llama.cpp's model, which looks through all of them when it makes a context ready, the last part of
which it leaves to the first decode: whoever does one of these things holds `Weights.exclusive` meanwhile.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from edge.engine.gguf import check_header
from edge.engine.llama.library import complaints, forget, llama_cpp, take_complaint
from edge.engine.memory import FileKey, file_key
from gx.core.errors import ModelError


class Weights:
    """What a file has, once it is loaded, with so many of its layers on a GPU; None is all.

    :raises ModelError: when loaded, if the file is missing, isn't GGUF, or is damaged.
    """

    def __init__(self, path: str, gpu_layers: int | None) -> None:
        self.pointer: Any = None
        self.exclusive = threading.Lock()
        """Held while an adapter is read or freed, a context made, or the first call of one with adapters decoded."""
        self._path, self._gpu_layers = path, gpu_layers
        self._users = 0
        self._loading = threading.Lock()

    def _load(self) -> None:
        with self._loading:
            if self.pointer:
                return
            params = llama_cpp.llama_model_default_params()
            if self._gpu_layers is not None:
                params.n_gpu_layers = self._gpu_layers
            forget()
            self.pointer = llama_cpp.llama_model_load_from_file(os.fsencode(self._path), params)
            if not self.pointer:
                raise _load_error(self._path)


_known: dict[tuple[FileKey | None, int | None], Weights] = {}
_changed = threading.Lock()


def take(path: str, gpu_layers: int | None) -> Weights:
    """Use the weights of a file until they are given back; they are loaded unless somebody else uses them.

    :raises ModelError: if they can't be.
    """
    check_header(path)
    key = file_key(path), gpu_layers
    with _changed:
        weights = _known.setdefault(key, Weights(path, gpu_layers))
        weights._users += 1
    try:
        weights._load()
    except BaseException:
        give_back(weights)
        raise
    return weights


def keep(weights: Weights) -> None:
    """Use what somebody else uses, too, until it is given back as often."""
    with _changed:
        weights._users += 1


def give_back(weights: Weights) -> None:
    """End one use; the last one frees them."""
    with _changed:
        weights._users -= 1
        if weights._users:
            return
        for key in [key for key, known in _known.items() if known is weights]:
            del _known[key]
    if weights.pointer:
        llama_cpp.llama_model_free(weights.pointer)
        weights.pointer = None


def _load_error(path: str) -> ModelError:
    """What the loader's log says, as an error: most often a download that was cut short."""
    text, found = complaints(), file_key(path)
    size = 0 if found is None else found[1]
    if "not within the file bounds" in text or "failed to read" in text:
        hint = "fetch the file again, and compare its SHA-256"
        return ModelError(f"{path} is cut short or damaged ({size} bytes): {take_complaint()}", hint=hint)
    code = "model.memory" if "alloc" in text else None
    return ModelError(f"{path} can't be loaded ({size} bytes): {take_complaint()}", code=code)
