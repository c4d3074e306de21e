"""Which formats of weights a build of llama.cpp multiplies by whole blocks, and which one row at a time. Pure.

Read from the source of llama.cpp as llama-cpp-python 0.3.36 vendors it. A product of matrices on the CPU takes the
first of these that knows the format, and else `ggml_vec_dot`, a row by a column, for which no weight is read once for
several tokens:

- ggml/src/ggml-cpu/repack.cpp, `ggml_repack_get_optimal_repack_type`: weights laid out anew when they are loaded;
- ggml/src/ggml-cpu/amx/common.h, `qtype_has_amx_kernels`;
- ggml/src/ggml-cpu/llamafile/sgemm.cpp, `llamafile_sgemm`: whatever has a case for this architecture;
- ggml/src/ggml-cpu/ggml-cpu.c, `type_traits_cpu`: two rows at a time with MATMUL_INT8 (`nrows` 2).

Measured on a model of 135M weights, two cores with AVX-512: a prompt in Q4_1, which has none of these there, at 459
tokens a second, in Q8_0 at 1,031, in Q4_0 at 1,689, in BF16 at 1,956. So a prompt takes two to four times as long.
"""

from __future__ import annotations

from collections.abc import Collection

_NEON_DOT, _NEON_I8MM = "REPACK NEON DOTPROD", "REPACK NEON MATMUL_INT8"

FAST: dict[str, tuple[str, ...]] = {
    "F32": ("LLAMAFILE AVX", "LLAMAFILE AVX512", "LLAMAFILE NEON"),
    "F16": ("LLAMAFILE AVX512", "LLAMAFILE AVX F16C", "LLAMAFILE NEON"),
    "BF16": ("LLAMAFILE AVX512", "LLAMAFILE AVX2"),
    "Q1_0": (_NEON_DOT, _NEON_I8MM),
    "Q2_K": ("REPACK AVX512",),
    "Q4_0": ("REPACK AVX2", _NEON_DOT, _NEON_I8MM, "LLAMAFILE AVX", "LLAMAFILE DOTPROD", "AMX_INT8", "MATMUL_INT8"),
    "Q4_1": ("AMX_INT8", "MATMUL_INT8"),
    "Q4_K": ("REPACK AVX2", _NEON_DOT, _NEON_I8MM, "AMX_INT8", "MATMUL_INT8"),
    "Q5_0": ("LLAMAFILE AVX",),
    "Q5_K": (_NEON_DOT, _NEON_I8MM, "AMX_INT8"),
    "Q6_K": (_NEON_DOT, _NEON_I8MM, "AMX_INT8", "MATMUL_INT8"),
    "Q8_0": (_NEON_DOT, _NEON_I8MM, "LLAMAFILE AVX", "LLAMAFILE DOTPROD", "AMX_INT8", "MATMUL_INT8"),
    "IQ4_NL": ("REPACK AVX2", _NEON_DOT, "LLAMAFILE AVX"),
    "IQ4_XS": ("AMX_INT8",),
    "MXFP4": ("REPACK AVX2", _NEON_DOT),
}
"""For each format the sets of the build's flags of which one is enough. A format that isn't here has no such path."""


WIDE = frozenset({"F32", "F16", "BF16"})
"""Formats of 16 bits and more."""


def flags_in(text: str) -> tuple[str, ...]:
    """The flags that are on in `llama_print_system_info`, "CPU : AVX2 = 1 | AVX512 = 0 | …"."""
    pairs = (part.split(":")[-1].partition("=") for part in text.split("|"))
    return tuple(name.strip() for name, _, value in pairs if value.strip() == "1")


def is_fast(format_: str, flags: Collection[str]) -> bool:
    """Whether a build with these flags has a path for whole blocks of weights in that format."""
    return any(all(flag in flags for flag in needed.split()) for needed in FAST.get(format_, ()))


def is_step_down(kind: str, format_: str) -> bool:
    """Whether a copy of that kind has fewer bits a weight than a file in that format, so that it answers worse."""
    return format_ == "F32" or (kind == "q8_0" and format_ in WIDE)


def faster_copy(flags: Collection[str]) -> str | None:
    """The kind of copy (`edge.prepare.KINDS`) to make of a file without a fast path; `None` if none has one."""
    if "AVX512_BF16" in flags and is_fast("BF16", flags):
        return "bf16"
    return next((kind.lower() for kind in ("Q8_0", "BF16") if is_fast(kind, flags)), None)
