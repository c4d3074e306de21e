"""Formats without a fast path and instructions that a build leaves unused are told, with what they cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge import cpu, kernels, slowness
from edge.header import read_header
from gx.core.message import ModelCard
from tests.tiny_model import write_tiny_model

AVX2 = ["AVX", "AVX2", "F16C", "FMA", "LLAMAFILE", "REPACK"]
AVX512 = [*AVX2, "AVX512", "AVX512_BF16", "AVX512_VNNI"]
ARM = ["NEON", "DOTPROD", "LLAMAFILE", "REPACK"]


def test_a_header_tells_formats_and_what_a_token_takes(packaged: str, tiny: str) -> None:
    header = read_header(packaged)
    assert header is not None
    assert header.main_format() == ("Q4_1", pytest.approx(0.79, abs=0.01))
    assert header.token_bytes() == 30 * 3 * (64 + 64) * 2
    assert header.fields["general.architecture"] == "llama" and header.fields["general.file_type"] == 3
    assert (other := read_header(tiny)) is not None and set(other.weights) == {"F16", "F32"}


def test_what_a_header_says_is_what_llama_cpp_says(packaged: str) -> None:
    from edge.engine.llama import Model

    model, header = Model("m", packaged), read_header(packaged)
    try:
        assert header is not None and header.token_bytes() == model.token_bytes
    finally:
        model.close()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\xff" * 60, b"x" * 100])
def test_a_damaged_header_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    assert read_header(tmp_path / "x.gguf") is None
    assert read_header(tmp_path / "none.gguf") is None


@pytest.mark.parametrize(
    ("flags", "fast", "slow"),
    [
        (AVX2, ["Q4_0", "Q4_K", "Q5_0", "Q8_0", "IQ4_NL", "F16", "BF16"], ["Q4_1", "Q5_1", "Q5_K", "Q6_K", "Q2_K"]),
        (AVX512, ["Q2_K", "BF16", "MXFP4"], ["Q4_1", "Q3_K", "IQ4_XS", "IQ3_S", "Q6_K"]),
        (ARM, ["Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL"], ["Q4_1", "Q5_0", "Q5_1", "BF16", "IQ4_XS"]),
        ([*ARM, "MATMUL_INT8"], ["Q4_1"], ["Q5_0", "Q2_K"]),
        ([*AVX512, "AMX_INT8"], ["Q4_1", "IQ4_XS", "Q6_K"], ["Q5_1"]),
        (["REPACK", "LLAMAFILE"], [], ["Q4_0", "Q8_0", "F16"]),
    ],
)
def test_fast_paths_depend_on_the_build(flags: list[str], fast: list[str], slow: list[str]) -> None:
    assert [name for name in (*fast, *slow) if kernels.is_fast(name, flags)] == fast


@pytest.mark.parametrize(("flags", "kind"), [(AVX512, "bf16"), (AVX2, "q8_0"), (ARM, "q8_0"), (["REPACK"], None)])
def test_the_copy_to_make_has_a_fast_path_itself(flags: list[str], kind: str | None) -> None:
    assert kernels.faster_copy(flags) == kind


def test_a_file_is_slow_when_half_of_its_weights_are(packaged: str, tiny: str) -> None:
    slow = slowness.slow_format(packaged, AVX512)
    assert slow is not None and (slow.names, slow.kind) == ("Q4_1", "bf16")
    assert "79%" in str(slow) and "two to four times" in str(slow)
    assert slowness.slow_format(packaged, [*AVX512, "AMX_INT8"]) is None
    assert slowness.slow_format(tiny, AVX2) is None


def test_unused_instructions_are_told_with_their_cost() -> None:
    has = frozenset({"avx2", "fma", "f16c", "avx512f"})
    text = slowness.unused(AVX2, has)
    assert "AVX512, which this CPU has" in text and "2 times" in text
    assert slowness.unused([*AVX2, "AVX512"], has) == "" == slowness.unused([], None)


def test_a_card_carries_the_warnings_of_what_runs_on_the_cpu(packaged: str) -> None:
    has = frozenset({"avx2", "fma"})
    card = ModelCard(digest="d", path=packaged, context_tokens=1)
    build = "llama-cpp-python 1 (CPU : AVX AVX2 LLAMAFILE REPACK)"
    warnings = slowness.warned(card, build=build, has=has).warnings
    assert "without FMA" in warnings[0] and "makes a q8_0 copy" in warnings[1]
    few = (slowness.few_layers(30, 12),)
    card = ModelCard(digest="d", path=packaged, context_tokens=1, warnings=few)
    assert "room for 12 of its 31 layers" in few[0]
    assert slowness.warned(card, build=build.replace("(", "(GPU "), has=has).warnings == few


def test_what_there_is_to_warn_of_is_read_from_the_header_alone(packaged: str, tmp_path: Path) -> None:
    build = "llama-cpp-python 1 (CPU : AVX AVX2 FMA LLAMAFILE REPACK)"
    (told,) = slowness.warnings(packaged, build=build, has=frozenset({"avx2", "fma"}))
    assert "makes a q8_0 copy" in told
    assert slowness.warnings(packaged, build=build.replace("(", "(GPU "), has=frozenset({"avx512f"})) == ()
    assert slowness.warnings(tmp_path / "none.gguf", build=build, has=frozenset({"avx512f"})) == ()


def test_idle_processors_are_not_counted_as_busy(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 20 30 5000 600 1 2 7 0 0\ncpu0 1 1 1 1\n")
    assert cpu.busy_s(tmp_path / "stat") == 160 / os.sysconf("SC_CLK_TCK")
    assert cpu.busy_s(tmp_path / "none") is None


def test_no_step_down_is_advised(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    header = read_header(path)
    assert header is not None and header.main_format()[0] in kernels.WIDE
    slow = slowness.slow_format(path, ["REPACK"])
    assert slow is not None and slow.kind is None
    formats = ("F32", "F16", "BF16", "Q4_1")
    assert [kernels.is_step_down("bf16", name) for name in formats] == [True, False, False, False]
    assert [kernels.is_step_down("q8_0", name) for name in formats] == [True, True, True, False]


def test_this_cpu_has_a_name_and_cores() -> None:
    assert cpu.cpu_model() and cpu.cores() >= 1


@pytest.mark.parametrize(
    ("limit", "threads"), [("max 100000", 16), ("250000 100000", 2), ("50000 100000", 1), ("", 16)]
)
def test_a_containers_limit_counts_for_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, threads: int
) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    read = cpu.cpu_quota
    monkeypatch.setattr(cpu, "cpu_quota", lambda: read(tmp_path / "cpu.max"))
    monkeypatch.setattr(cpu, "cores", lambda: 16)
    assert cpu.default_threads() == threads
