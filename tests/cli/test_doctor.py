"""`gx doctor`: it finds what is broken, says what to do, and its exit code tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edge.cpu import cores
from gx.cli import doctor
from gx.core.event import NodeStarted
from gx.node import health, machine, speed
from gx.node.workspace import Workspace
from gx.settings import Settings

FLAGS = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | AVX512 = 0 | FMA = 1 | LLAMAFILE = 1 | Metal : EMBED = 1 | "


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WORKSPACE", "THREADS", "MODELS_DIR", "OFFLINE"):
        monkeypatch.delenv(f"GX_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_working_machine_passes_and_the_bench_answers(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gx", "doctor", "--json", "--workspace", str(home / ".gx")],
        cwd=home, env=dict(os.environ), capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    rows = {row["check"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(rows)[:3] == ["gx", "platform", "engine"] and "tokens in" in rows["bench"]["found"]
    assert not (home / ".gx").exists(), "a look at the workspace must not make it"


def test_bad_settings_fail_with_their_source_and_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GX_THREADS", "many")
    app = typer.Typer()
    doctor.register(app)
    done = CliRunner().invoke(app, ["--quick", "--json"])
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.exit_code, last["check"], last["status"]) == (1, "settings", "fail")
    assert "GX_THREADS" in last["found"] and last["advice"]


def test_a_sound_log_is_verified_and_a_changed_one_fails(home: Path) -> None:
    place = Workspace(home / ".gx")
    assert health._log(place).status == "ok"
    with place.exclusive() as log:
        log.append_sync([NodeStarted(epoch=n, pid=1) for n in range(3)], source="test")
    assert "4 events" in health._log(place).found
    with place.exclusive() as log, log.file.cursor() as cursor:
        cursor.execute("DROP TRIGGER events_refuse_update ON events")
        cursor.execute("UPDATE events SET data = replace(data::VARCHAR, '\"pid\":1', '\"pid\":2') WHERE seq = 2")
    check = health._log(place)
    assert check.status == "fail" and "event 2 was changed" in check.found and check.advice


def test_a_workspace_in_use_is_a_warning_that_names_its_holder(home: Path) -> None:
    place = Workspace(home / ".gx")
    with place.exclusive():
        check = health._log(place)
    assert check.status == "warn" and f"process {os.getpid()}" in check.found


@pytest.mark.parametrize("name", ["file", "file/.gx"])
def test_a_workspace_on_a_path_that_is_a_file_fails(home: Path, name: str) -> None:
    (home / "file").write_text("")
    check = health._workspace(Workspace(home / name))
    assert check.status == "fail" and "GX_WORKSPACE" in check.advice


def test_more_threads_than_cores_is_a_warning() -> None:
    check = health._threads(Settings(threads=cores() + 1))
    assert check.status == "warn" and check.advice


def test_an_engine_that_is_missing_is_said_without_loading_it(home: Path) -> None:
    bare = home / "python"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'llama_cpp'\" >&2; exit 1\n")
    bare.chmod(0o755)
    engine = machine.probe_engine(str(bare))
    assert "No module named 'llama_cpp'" in engine.error
    assert health._engine(engine).advice == "`uv sync` in gx's clone, or `pip install '.[edge]'`"
    bare.write_text("#!/bin/sh\nkill -ILL $$\n")
    assert "illegal instruction" in machine.probe_engine(str(bare)).error


def test_instruction_sets_are_read_from_the_build() -> None:
    assert machine.sets_in(FLAGS) == ("AVX", "AVX2", "FMA")


@pytest.mark.parametrize(
    ("sets", "status"), [(("AVX2", "FMA", "F16C"), "ok"), (("AVX2",), "warn"), (("AVX2", "AVX512"), "fail")]
)
def test_a_build_is_held_against_the_cpu(sets: tuple[str, ...], status: str) -> None:
    engine = machine.Engine(version="1", sets=sets)
    assert speed.cpu(engine, frozenset({"avx2", "fma", "f16c"})).status == status
    assert speed.cpu(engine, None).status == "ok"


def test_a_gpu_that_the_build_can_not_use_is_a_warning() -> None:
    check = speed.gpu(machine.Engine(version="1", offloads=False), "NVIDIA")
    assert check.status == "warn" and "GGML_CUDA" in check.advice
    assert speed.gpu(machine.Engine(version="1", offloads=True), "NVIDIA").status == "ok"
    assert speed.gpu(machine.Engine(version="1", offloads=False), "").status == "ok"
