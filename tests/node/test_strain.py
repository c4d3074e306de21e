"""What a run is told of its machine: a GPU that lies idle, and memory that everything waits for."""

from __future__ import annotations

import anyio
import pytest

from gx.node import strain

pytestmark = pytest.mark.anyio


def test_a_gpu_that_the_build_cannot_use_is_told_of() -> None:
    assert "NVIDIA" in (strain.idle_gpu("llama-cpp-python 1 (AVX2)", "NVIDIA") or "")
    assert strain.idle_gpu("llama-cpp-python 1 (GPU AVX2)", "NVIDIA") is None
    assert strain.idle_gpu("llama-cpp-python 1 (AVX2)", "") is None
    assert strain.idle_gpu("", "NVIDIA") is None  # a worker that doesn't say


async def test_a_machine_that_waits_for_memory_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strain, "EVERY_S", 0.001)
    readings = iter([0.0, 3.0, 12.5])
    told = [text async for text in strain.short_of_memory(lambda: next(readings), lambda: 2 * 10**9)]
    assert len(told) == 1 and "in 12.5 % of the last minute" in told[0] and "2.0 GB are swapped out" in told[0]


async def test_where_no_waits_are_counted_what_is_swapped_out_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strain, "EVERY_S", 0.001)
    readings = iter(gb * 10**9 for gb in (3, 2, 2, 4))  # some was swapped out before, for whatever reason
    told = [text async for text in strain.short_of_memory(lambda: None, lambda: next(readings))]
    assert len(told) == 1 and "2.0 GB more than before" in told[0] and "4.0 GB are swapped out" in told[0]


async def test_a_system_that_does_not_tell_is_not_asked_again() -> None:
    with anyio.fail_after(5):
        assert not [text async for text in strain.short_of_memory(lambda: None, lambda: None)]
