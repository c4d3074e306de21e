"""A bench in one line of `gx ps`."""

from __future__ import annotations

from gx.cli.ps import _bench_line
from gx.node.status import BenchNow


def test_a_bench_is_told_with_all_that_it_measured() -> None:
    bench = BenchNow(
        worker="edge", engine="e", slots=32, slots_busy=7, threads=2, prompt_tokens_per_s=1459.2,
        written_tokens_per_s=186.0, cached_share=0.85, mean_queue_s=3.24,
    )  # fmt: skip
    assert _bench_line(bench) == (
        "bench edge: 7 of 32 slots busy, 2 threads, 1,459 prompt tok/s, 186 tok/s written, 85 % of prompts from the "
        "cache, 3.2 s in the queue"
    )


def test_what_was_not_measured_yet_is_left_out() -> None:
    bench = BenchNow(
        worker="edge", engine="e", slots=4, slots_busy=0, threads=0, prompt_tokens_per_s=None,
        written_tokens_per_s=None, cached_share=None, mean_queue_s=None,
    )  # fmt: skip
    assert _bench_line(bench) == "bench edge: 0 of 4 slots busy"
