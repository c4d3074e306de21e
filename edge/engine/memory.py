"""How much memory this process may still take: what is free, or a container's limit leaves. It only reads."""

from __future__ import annotations

import os
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_bytes(*, meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Bytes that can be taken without swapping; half of all memory where the system doesn't say (macOS)."""
    known = [bytes_ for bytes_ in (_free(meminfo), _left(cgroup)) if bytes_ is not None]
    if known:
        return max(0, min(known))
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _free(meminfo: Path) -> int | None:
    """MemAvailable: what is free, and what the page cache would give back (proc(5))."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _left(cgroup: Path) -> int | None:
    """What a container's limit leaves, its file cache not counted as used (cgroup v2); `None` without a limit."""
    try:
        most, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = re.search(r"^inactive_file (\d+)", (cgroup / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(most) - int(used) + (int(cached[1]) if cached else 0) if most.isdigit() else None
