"""What this machine's CPU is and has, in the kernel's words and in llama.cpp's. It only reads, and loads no engine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

SETS = {
    "AVX": "avx", "AVX2": "avx2", "AVX_VNNI": "avx_vnni", "F16C": "f16c", "FMA": "fma", "BMI2": "bmi2",
    "AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi", "AVX512_VNNI": "avx512_vnni", "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8", "NEON": "asimd", "DOTPROD": "asimddp", "MATMUL_INT8": "i8mm", "SVE": "sve", "SME": "sme",
}  # fmt: skip
"""llama.cpp's names for instruction sets, and the kernel's. FP16_VA and the like depend on the compiler alone."""

WORTH_HAVING = {
    "AVX2": 4, "FMA": 2, "F16C": 2, "AVX512": 2, "AVX512_VNNI": 2, "AVX512_BF16": 2, "AMX_INT8": 4,
    "NEON": 4, "DOTPROD": 4, "MATMUL_INT8": 2,
}  # fmt: skip
"""How many times more one instruction of the set computes than what it replaces: the most that a prompt can gain."""

_MACOS = {
    "avx1.0": "avx", "hw.optional.neon: 1": "asimd", "hw.optional.arm64: 1": "asimd",
    "hw.optional.arm.feat_dotprod: 1": "asimddp", "hw.optional.arm.feat_i8mm: 1": "i8mm",
    "hw.optional.arm.feat_sme: 1": "sme",
}  # fmt: skip
_CPUINFO = Path("/proc/cpuinfo")


def cpu_sets() -> frozenset[str] | None:
    """The instruction sets of this machine's CPU in the kernel's names; `None` if it doesn't tell."""
    if sys.platform == "darwin":
        return _macos_sets()
    found = _first("flags", "Features")  # on x86 and on ARM
    return frozenset(found.split()) if found else None


def unused_sets(built: Collection[str], has: frozenset[str] | None) -> list[str]:
    """The sets worth having that the CPU has, in the kernel's names, and a build, in llama.cpp's, doesn't use."""
    return [name for name in WORTH_HAVING if has is not None and SETS[name] in has and name not in built]


def cpu_model() -> str:
    """The CPU's name, as it tells it; on ARM, the numbers of its maker and its part."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string").partition(":")[2].strip() or platform.machine()
    known = _first("model name")
    part = " ".join(filter(None, (_first("CPU implementer"), _first("CPU part"))))
    return known or part or platform.machine()


def cores() -> int:
    """The cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


def default_threads() -> int:
    """How many threads may compute at once: as many as there are cores, or as a container's limit has time for."""
    quota = cpu_quota()
    return cores() if quota is None else min(cores(), max(1, round(quota)))


def cpu_quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """How many CPUs' time a container's limit leaves (cgroup v2 `cpu.max`); `None` without one."""
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def busy_s(path: Path = Path("/proc/stat")) -> float | None:
    """Seconds that all processors have worked, for whomever, since the start (proc(5)); `None` if nobody counts."""
    try:
        ticks = [int(word) for word in path.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = sum(ticks[3:5])  # idle, and waiting for a disk
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")


def _first(*names: str) -> str:
    """The first line of /proc/cpuinfo with one of these names; all cores say the same."""
    try:
        with _CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in names:
                    return value.strip()
    except OSError:
        pass
    return ""


def _macos_sets() -> frozenset[str] | None:
    lines = [line.strip().lower() for line in _sysctl("machdep.cpu", "hw.optional").splitlines()]
    words = {word for line in lines if line.startswith("machdep.cpu") for word in line.partition(":")[2].split()}
    return frozenset(words | {_MACOS[found] for found in {*lines, *words} & _MACOS.keys()}) or None


def _sysctl(*names: str) -> str:
    try:
        return subprocess.run(["/usr/sbin/sysctl", *names], capture_output=True, text=True).stdout
    except OSError:
        return ""
