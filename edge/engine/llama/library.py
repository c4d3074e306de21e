"""The only file that imports llama_cpp: the library made ready for this process, what it is, and what it complains of.

A GGML assertion aborts the process, so whatever can be checked is checked before a call; what llama.cpp itself finds
wrong it reports by NULL or a status, and a line in its log, which becomes the error's message.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque

# OpenMP's busy waiting starves whoever shares the cores; libgomp reads this when llama_cpp loads it.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp
from llama_cpp._ggml import libggml as _ggml
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

__all__ = ["Jinja2ChatFormatter", "build", "complaints", "forget", "gpu_free_bytes", "llama_cpp", "offloads"]
__all__ += ["take_complaint"]

# ggml_log_level: 3 is a warning, 4 an error.
_LOG_ERROR = 4


# enum ggml_backend_dev_type, ggml/include/ggml-backend.h
_GPU, _INTEGRATED_GPU = 1, 2
_ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
_ggml.ggml_backend_dev_get.argtypes, _ggml.ggml_backend_dev_get.restype = [ctypes.c_size_t], ctypes.c_void_p
_ggml.ggml_backend_dev_type.argtypes, _ggml.ggml_backend_dev_type.restype = [ctypes.c_void_p], ctypes.c_int
_size_pointer = ctypes.POINTER(ctypes.c_size_t)
_ggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, _size_pointer, _size_pointer]
_ggml.ggml_backend_dev_memory.restype = None


class _Complaints(threading.local):
    """llama.cpp's last complaints to this thread: models are loaded, and contexts made, in several at a time."""

    def __init__(self) -> None:
        self.last: deque[str] = deque(maxlen=8)


_complaints = _Complaints()


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _user: object) -> None:
    """Keep llama.cpp quiet, and keep its last complaints. A module's name, so that it is never collected."""
    if level == _LOG_ERROR:
        _complaints.last.append(text.decode("utf-8", "replace").strip())


llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def build() -> str:
    """The engine's build, for people: the binding's version, and what it was compiled for.

    In brackets are the instruction sets, and first of all "GPU", if it puts layers on one.
    """
    flags = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    sets = [part.split("=")[0].strip() for part in flags.split("|") if part.strip().endswith("= 1")]
    return f"llama-cpp-python {llama_cpp.__version__} ({' '.join(['GPU'] * offloads() + sets)})"


def offloads() -> bool:
    """Whether this build can put layers on a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def gpu_free_bytes() -> list[int]:
    """What is free in the memory of each GPU that this build puts layers on; empty where none says it.

    An integrated GPU computes in the host's memory, and is used where there is no other, so it counts only then.
    """
    free: dict[int, list[int]] = {_GPU: [], _INTEGRATED_GPU: []}
    for index in range(_ggml.ggml_backend_dev_count()):
        device = _ggml.ggml_backend_dev_get(index)
        kind = _ggml.ggml_backend_dev_type(device)
        if kind in free:
            free_bytes, total_bytes = ctypes.c_size_t(), ctypes.c_size_t()
            _ggml.ggml_backend_dev_memory(device, ctypes.byref(free_bytes), ctypes.byref(total_bytes))
            free[kind].append(free_bytes.value)
    return [found for found in free[_GPU] or free[_INTEGRATED_GPU] if found]


def forget() -> None:
    """Drop earlier complaints, so that the next one is of what comes now."""
    _complaints.last.clear()


def complaints() -> str:
    """All of the last complaints."""
    return " ".join(_complaints.last)


def take_complaint() -> str:
    """The first complaint since `forget`, and forget all: the later ones say the same in more general words."""
    first = _complaints.last[0] if _complaints.last else "no reason given"
    _complaints.last.clear()
    return first.removeprefix("llama_model_load: error loading model: ")
