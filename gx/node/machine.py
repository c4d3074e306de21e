"""What this machine can do and what the engine's build makes of it: facts, no verdicts.

The engine is asked in a process of its own, since loading it can kill the process that does: a build for another CPU
dies of an illegal instruction. Nothing here raises; what can't be known is empty or `None`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from edge.cpu import SETS
from edge.kernels import flags_in
from gx.core.message import Value

PROBE_S = 60.0
_PROBE = """\
import json, llama_cpp, llguidance, numpy
print(json.dumps({
    "version": llama_cpp.__version__,
    "flags": llama_cpp.llama_print_system_info().decode("utf-8", "replace"),
    "offloads": bool(llama_cpp.llama_supports_gpu_offload()),
}))
"""


class Engine(Value, frozen=True, kw_only=True):
    """The engine's build. `sets` are the instruction sets that it was compiled for, in llama.cpp's names.

    `flags` is all that it has on, the instruction sets included. `error` says why it can't be loaded; then the rest is
    empty.
    """

    version: str = ""
    sets: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    offloads: bool = False
    error: str = ""


class _Probed(msgspec.Struct, frozen=True):
    version: str
    flags: str
    offloads: bool


def probe_engine(python: str = sys.executable) -> Engine:
    """Load the engine in a fresh process of that interpreter, and ask it what it is."""
    command = [python, "-P", "-c", _PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Engine(error=f"it can't be loaded: {error}")
    if done.returncode == -signal.SIGILL:
        return Engine(error="it was built for another CPU: it dies of an illegal instruction")
    lines = done.stderr.strip().splitlines()
    if done.returncode:
        return Engine(error=lines[-1] if lines else f"loading it ends with status {done.returncode}")
    try:
        probed = msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=_Probed)
    except (IndexError, msgspec.DecodeError):
        return Engine(error="it was loaded and didn't say what it is")
    flags = flags_in(probed.flags)
    return Engine(version=probed.version, sets=sets_in(probed.flags), flags=flags, offloads=probed.offloads)


def sets_in(flags: str) -> tuple[str, ...]:
    """The instruction sets in the text of `llama_print_system_info`, such as "CPU : AVX = 1 | AVX2 = 0 |"."""
    return tuple(name for name in flags_in(flags) if name in SETS)


def gpu() -> str:
    """The kind of GPU that this machine seems to have; empty if none is seen."""
    if sys.platform == "darwin":
        return "Metal" if os.uname().machine == "arm64" else ""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return "NVIDIA"
    return "AMD" if Path("/dev/kfd").exists() else ""


def gpu_free_bytes() -> list[int]:
    """What is free in the memory of each NVIDIA GPU; empty where `nvidia-smi` doesn't tell."""
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [int(line) << 20 for line in done.stdout.split() if line.isdigit()]


def stalled_percent(path: Path = Path("/proc/pressure/memory")) -> float | None:
    """The share of the last minute in which something waited for memory
    (https://docs.kernel.org/accounting/psi.html); `None` where the system doesn't tell.
    """
    try:
        found = re.search(r"^some .*avg60=([\d.]+)", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return float(found[1]) if found else None


def swapped_bytes(path: Path = Path("/proc/meminfo")) -> int | None:
    """How much is swapped out; `None` where the system doesn't tell."""
    try:
        kib = dict(re.findall(r"^(SwapTotal|SwapFree):\s+(\d+) kB", path.read_text(), re.MULTILINE))
    except OSError:
        return None
    return (int(kib["SwapTotal"]) - int(kib["SwapFree"])) * 1024 if len(kib) == 2 else None
