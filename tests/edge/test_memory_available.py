"""What may be taken is the least of what the machine has free and what the container's limit leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.engine.memory import available_bytes

MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n"


@pytest.mark.parametrize(
    ("most", "used", "expected"),
    [("max", "5", 20_000_000 * 1024), ("4000000000", "1000000500", 3_000_000_000), ("1000", "2000", 0)],
)
def test_the_tighter_limit_counts(tmp_path: Path, most: str, used: str, expected: int) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "memory.max").write_text(most + "\n")
    (tmp_path / "memory.current").write_text(used + "\n")
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 500\n")
    assert available_bytes(meminfo=tmp_path / "meminfo", cgroup=tmp_path) == expected


def test_a_system_that_says_nothing_counts_half_of_its_memory(tmp_path: Path) -> None:
    assert available_bytes(meminfo=tmp_path / "no", cgroup=tmp_path / "no") > 1 << 28


def test_this_machine_has_some() -> None:
    assert available_bytes() > 1 << 20
