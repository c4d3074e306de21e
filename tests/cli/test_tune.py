"""`gx doctor --tune` shows what it measured and chose; `gx doctor` and `gx run` tell what is slower than need be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edge.engine.tuning import Speeds, Tuning
from edge.slowness import SlowFormat
from edge.trials import Calibration, Setup, Trial
from edge.tune import CopyTrial, Tuned
from edge.tunings import Note
from gx.cli import tune
from gx.node import machine, speed
from gx.settings import Settings
from gx.wiring import LocalModel
from tests.tiny_model import packaged_model, write_tiny_model

DEFAULT = Setup(tuning=Tuning(threads=2, pass_tokens=512), slots=32)
ONE = Setup(tuning=Tuning(threads=1, pass_tokens=512), slots=32)
NO_FLASH = Setup(tuning=Tuning(threads=1, pass_tokens=512, flash=False), slots=32)
SLOW, FAST = Speeds(prefill=100, decode=100, slots=32), Speeds(prefill=200, decode=200, slots=32)
TUNED = Tuned(
    calibration=Calibration(
        trials=(
            Trial(what="defaults", value="", setup=DEFAULT, speeds=SLOW),
            Trial(what="threads", value="1", setup=ONE, speeds=FAST),
            Trial(what="flash attention", value="off", setup=NO_FLASH, speeds=None),
        ),
        chosen=ONE,
        slots=16,
        default_speeds=SLOW,
        chosen_speeds=FAST,
        left_out=("cache q8_0",),
    ),
    copies=(CopyTrial(kind="bf16", speeds=Speeds(prefill=600, decode=600, slots=32)),),
)
NOTE = Note(sha256="a", file_bytes=1, engine="1", cpu="x", cores=2, tuning=ONE.tuning, gain=2.0, slots=16)
MODEL = LocalModel(name="smollm2", path=Path("x.gguf"), sha256="a", digest="a", size_bytes=1, context_tokens=None)


def test_every_value_has_a_row_and_the_chosen_ones_are_marked() -> None:
    found = tune.rows(TUNED)
    assert [(row["what"], row["speed"], row["chosen"]) for row in found] == [
        ("defaults", "1.00×", False),
        ("threads", "2.00×", True),
        ("flash attention", "not possible", False),
        ("prepared copy", "6.00×", False),
    ]


def test_what_is_left_to_do_is_said_with_its_command() -> None:
    said = tune.remarks(MODEL, NOTE, TUNED, is_copy=False, threads=2, slots=None)
    assert "1 threads" in said[0] and "2.00 times" in said[0]
    assert any("settings counts more, and says 2" in line for line in said)
    assert any("set GX_SLOTS=16" in line for line in said)
    assert any("3.0 times" in line and "gx models prepare smollm2 --as bf16" in line for line in said)
    assert "cache q8_0" in said[-1]
    busy, loose = msgspec.structs.replace(TUNED, others=0.4), msgspec.structs.replace(NOTE, tuning=Tuning())
    assert any("40%" in line for line in tune.remarks(MODEL, loose, busy, is_copy=False, threads=None, slots=None))
    assert not any("GX_" in s for s in tune.remarks(MODEL, NOTE, TUNED, is_copy=False, threads=None, slots=16))


def test_where_no_copy_was_tried_it_is_said_why() -> None:
    untried = msgspec.structs.replace(TUNED, copies=(), untried="the file has more than 1.1 GB")
    said = tune.remarks(MODEL, NOTE, untried, is_copy=False, threads=None, slots=None)
    assert any("more than 1.1 GB" in line and "gx models prepare smollm2" in line for line in said)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (speed.format_("m", SlowFormat("Q5_1", 0.9, "q8_0")), "gx models prepare m --as q8_0"),
        (speed.format_("m", SlowFormat("Q5_1", 0.9, None)), "another format"),
        (speed.memory(10**9, 10**9, 10**9), "GX_CONTEXT_TOKENS"),
        (speed.pressure(2.5, 10**9), "1.0 GB swapped out"),
        (speed.gpu_memory(4 * 10**9, 10**9), "75% of the layers"),
        (speed.cpu(machine.Engine(version="1", sets=("AVX2",)), frozenset({"avx2", "avx512f"})), "up to 2 times"),
        (speed.gpu(machine.Engine(version="1"), "NVIDIA"), "GGML_CUDA"),
    ],
)
def test_what_is_slow_is_a_warning_with_a_remedy(check: speed.Check, words: str) -> None:
    assert check.status == "warn" and check.advice and words in check.found + check.advice


@pytest.mark.parametrize(
    "check",
    [
        speed.format_("m", None),
        speed.memory(10**9, 10**9, 2 * 10**9),
        speed.pressure(0.0, 10**9),
        speed.pressure(None, None),
        speed.gpu_memory(10**9, 10**9),
        speed.gpu_memory(10**9, None),
    ],
)
def test_what_is_not_slow_is_no_warning(check: speed.Check) -> None:
    assert check.status == "ok" and not check.advice


def test_the_doctor_says_how_a_model_is_computed() -> None:
    assert "gx doctor --tune -m m" in speed.tuned("m", None, Settings(), is_copy=False).found
    found = speed.tuned("m", NOTE, Settings(), is_copy=True).found
    assert "1 threads, 512 tokens a pass" in found and "2.00 times" in found and "prepared copy" in found
    assert "4 threads (GX_THREADS" in speed.tuned("m", NOTE, Settings(threads=4), is_copy=False).found


def test_memory_pressure_is_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "psi").write_text("some avg10=9.00 avg60=1.25 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.50 x\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nSwapTotal:    1024 kB\nSwapFree:      24 kB\n")
    assert machine.stalled_percent(tmp_path / "psi") == 1.25
    assert machine.swapped_bytes(tmp_path / "meminfo") == 1000 * 1024
    assert machine.stalled_percent(tmp_path / "none") is None and machine.swapped_bytes(tmp_path / "none") is None


def gx(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    own = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    env = {**os.environ, **own, "GX_WORKSPACE": str(folder / ".gx")}
    command = [sys.executable, "-P", "-m", "gx", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=180)


def test_tuning_a_model_prints_rows_and_keeps_the_choice(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny.gguf", context=512)
    done = gx(tmp_path, "doctor", "--tune", "-m", "./tiny.gguf", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["what"] == "defaults" and rows[0]["tokens/s"] > 0
    assert len(list((tmp_path / "cache" / "gx" / "tunings").glob("*.json"))) == 1
    quick = gx(tmp_path, "doctor", "--quick", "-m", "./tiny.gguf", "--json")
    found = {row["check"]: row["found"] for row in map(json.loads, quick.stdout.splitlines())}
    assert "as was measured here" in found["tuning"]


def test_a_run_says_once_what_makes_its_model_slow(tmp_path: Path) -> None:
    from edge.slowness import slow_format

    engine = machine.probe_engine()
    if engine.offloads or slow_format(packaged_model(), engine.flags) is None:
        pytest.skip("this machine has a fast path for the packaged model")
    (tmp_path / "recipe.yaml").write_text(
        "version: 1\nname: slow\nmodels: {small: smollm2}\n"
        "agents: {a: {model: small, persona: Be brief., sampling: {max_tokens: 16}}}\n"
        "steps: [{id: s, for_each: inputs, agent: a, prompt: 'Say {{ item.word }}'}]\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"word": "a"}\n{"word": "b"}\n')
    notes = [
        line for line in gx(tmp_path, "run", "recipe.yaml", "-i", "rows.jsonl").stderr.splitlines() if "Q4_1" in line
    ]
    assert len(notes) == 1 and notes[0].startswith("note: smollm2:") and "gx models prepare" in notes[0]
    again = gx(tmp_path, "run", "recipe.yaml", "-i", "rows.jsonl", "--quiet", "--fresh")
    assert again.returncode == 0 and "Q4_1" not in again.stderr
