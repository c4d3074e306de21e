"""What this machine can do and what the engine's build makes of it: facts, no verdicts.

The engine is asked in a process of its own, since loading it can kill the process that does: a build for another CPU
dies of an illegal instruction. Nothing here raises; what can't be known is empty or `None`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

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

SETS = {
    "AVX": "avx", "AVX2": "avx2", "AVX_VNNI": "avx_vnni", "F16C": "f16c", "FMA": "fma", "BMI2": "bmi2",
    "AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi", "AVX512_VNNI": "avx512_vnni", "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8", "NEON": "asimd", "DOTPROD": "asimddp", "MATMUL_INT8": "i8mm", "SVE": "sve", "SME": "sme",
}  # fmt: skip
"""llama.cpp's names for instruction sets, and the kernel's. FP16_VA and the like depend on the compiler alone."""

_MACOS = {
    "avx1.0": "avx", "hw.optional.neon: 1": "asimd", "hw.optional.arm64: 1": "asimd",
    "hw.optional.arm.feat_dotprod: 1": "asimddp", "hw.optional.arm.feat_i8mm: 1": "i8mm",
    "hw.optional.arm.feat_sme: 1": "sme",
}  # fmt: skip


class Engine(Value, frozen=True, kw_only=True):
    """The engine's build. `sets` are the instruction sets that it was compiled for, in llama.cpp's names.

    `error` says why it can't be loaded; then the rest is empty.
    """

    version: str = ""
    sets: tuple[str, ...] = ()
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
    return Engine(version=probed.version, sets=sets_in(probed.flags), offloads=probed.offloads)


def sets_in(flags: str) -> tuple[str, ...]:
    """The instruction sets in the text of `llama_print_system_info`, such as "CPU : AVX = 1 | AVX2 = 0 |"."""
    pairs = (part.split(":")[-1].partition("=") for part in flags.split("|"))
    return tuple(name.strip() for name, _, value in pairs if value.strip() == "1" and name.strip() in SETS)


def cpu_sets() -> frozenset[str] | None:
    """The instruction sets of this machine's CPU in the kernel's names; `None` if it doesn't tell."""
    if sys.platform == "darwin":
        return _macos_sets()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):  # on x86 and on ARM
            return frozenset(value.split())
    return None


def _macos_sets() -> frozenset[str] | None:
    try:
        done = subprocess.run(["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"], capture_output=True, text=True)
    except OSError:
        return None
    lines = [line.strip().lower() for line in done.stdout.splitlines()]
    words = {word for line in lines if line.startswith("machdep.cpu") for word in line.partition(":")[2].split()}
    return frozenset(words | {_MACOS[found] for found in {*lines, *words} & _MACOS.keys()}) or None


def gpu() -> str:
    """The kind of GPU that this machine seems to have; empty if none is seen."""
    if sys.platform == "darwin":
        return "Metal" if os.uname().machine == "arm64" else ""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return "NVIDIA"
    return "AMD" if Path("/dev/kfd").exists() else ""


def cores() -> int:
    """The cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


def cpu_quota() -> float | None:
    """How many CPUs' time a container's limit leaves (cgroup v2 `cpu.max`); `None` without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None
