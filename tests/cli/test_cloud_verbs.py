"""`gx cloud`: the real command and the real SDK against a loopback; and what is said where there is no account."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.test_loopback_process import Loopback
from tests.integration.project import GX
from tests.tiny_lora import write_tiny_lora
from tests.tiny_model import write_tiny_model

RECIPE = """\
version: 1
name: test
models: {m: {source: ./model.gguf, adapters: [{source: ./lora.gguf, strength: 0.5}]}}
agents: {a: {model: m}}
steps: [{id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}"}]
"""


class Desk:
    """A folder with a recipe, an account at a loopback, and the `gx` command."""

    def __init__(self, folder: Path, account: dict[str, str]) -> None:
        self.folder = folder
        homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MODAL_")}
        self.env = clean | homes | {"GX_WORKSPACE": str(folder / "ws")} | account

    def gx(self, *args: str, code: int = 0) -> tuple[str, str]:
        """What `gx cloud …` writes to stdout and stderr."""
        done = subprocess.run(
            [*GX, "cloud", *args],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout, done.stderr

    def rows(self, *args: str, code: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.gx(*args, "--json", code=code)[0].splitlines()]

    def checks(self, *args: str, code: int = 0) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows("doctor", *args, code=code):
            found.setdefault(row["check"], []).append(row)
        return found


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    made = Loopback(tmp_path_factory.mktemp("plane"))
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def desk(tmp_path: Path) -> Callable[[dict[str, str]], Desk]:
    write_tiny_model(tmp_path / "model.gguf", context=512)
    write_tiny_lora(tmp_path / "lora.gguf")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return lambda account: Desk(tmp_path, account)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_from_an_empty_account_to_one_that_a_burst_can_use(
    desk: Callable[[dict[str, str]], Desk], loopback: Loopback
) -> None:
    here = desk(loopback.hello["environ"])
    checks = here.checks("--recipe", "recipe.yaml", code=1)
    assert (checks["token"][0]["status"], checks["account"][0]["status"]) == ("ok", "ok")
    assert (checks["app"][0]["status"], checks["app"][0]["advice"]) == ("fail", "gx cloud deploy")
    assert {row["status"] for row in checks["models"]} == {"fail"}
    assert "the app is not deployed" in here.gx("logs", code=1)[1]

    out, err = here.gx("deploy", "--recipe", "recipe.yaml", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    files = {digest(here.folder / name): name for name in ("model.gguf", "lora.gguf")}
    assert {row["sha256"]: row["name"] for row in rows if row["kind"] == "model"} == files
    assert rows[0]["is_current"] and rows[0]["app"] and "model.gguf: is there now" in err
    up = loopback.report()["blob_bytes"]
    _, err = here.gx("deploy", "--recipe", "recipe.yaml")
    assert "model.gguf: is there already" in err and loopback.report()["blob_bytes"] == up, "it went up once"

    assert {row["status"] for rows in here.checks("--recipe", "recipe.yaml").values() for row in rows} == {"ok"}
    rates = [row for row in here.rows("status") if row["kind"] == "rate"]
    assert {"L4", "H100"} <= {row["gpu"] for row in rates} and all(row["source"] and row["date"] for row in rates)
    assert "gx 0." in here.gx("status", "--plain")[0]
    assert "no container wrote anything" in here.gx("logs")[1]

    assert "add --yes" in here.gx("stop", code=2)[1]
    assert here.rows("stop", "--yes") == [{"stopped": True}]
    assert here.rows("stop", "--yes") == [{"stopped": False}]
    left = here.rows("status")
    assert left[0]["app"] is None and sum(row["kind"] == "model" for row in left) == 2, "models stay"


def test_logs_have_what_a_container_wrote(desk: Callable[[dict[str, str]], Desk], loopback: Loopback) -> None:
    here = desk(loopback.hello["environ"])
    here.gx("deploy")
    code = (  # a container that is called wrongly says so
        "import modal\n"
        "try: modal.Cls.from_name('gx', 'Bench')(run='r').execute.remote('a job', 'and another')\n"
        "except Exception: pass"
    )
    subprocess.run([sys.executable, "-c", code], env=here.env, capture_output=True, timeout=180, check=True)
    rows = here.rows("logs", "-n", "50")
    assert rows and any("TypeError" in row["text"] for row in rows)
    assert all(row["time"].endswith("Z") and row["source"] in ("stdout", "stderr", "system") for row in rows)
    assert any(row["text"][:20] in here.gx("logs", "--plain")[0] for row in rows if row["text"])


def test_an_app_of_another_gx_is_told_apart(desk: Callable[[dict[str, str]], Desk], loopback: Loopback) -> None:
    here = desk(loopback.hello["environ"])
    here.gx("deploy")
    code = (
        "import io, modal\n"
        "with modal.Volume.from_name('gx-models').batch_upload(force=True) as batch:\n"
        '    batch.put_file(io.BytesIO(b\'{"gx": "0.0.1", "code": "0123456789ab"}\'), "/deployed.json")'
    )
    subprocess.run([sys.executable, "-c", code], env=here.env, capture_output=True, timeout=180, check=True)
    (app,) = here.checks(code=1)["app"]
    assert app["status"] == "fail" and "is gx 0.0.1, code 0123456789ab; here is gx" in app["found"]
    assert here.rows("status")[0]["is_current"] is False


@pytest.mark.parametrize("verb", [("deploy",), ("status",), ("stop", "--yes"), ("logs",)])
def test_without_a_token_each_verb_says_how_to_get_one(
    desk: Callable[[dict[str, str]], Desk], verb: tuple[str, ...]
) -> None:
    _, err = desk({"MODAL_CONFIG_PATH": "/nonexistent"}).gx(*verb, code=1)
    assert "there is no token for Modal" in err and "modal token new" in err


def test_without_a_token_doctor_stops_there_and_says_the_command(desk: Callable[[dict[str, str]], Desk]) -> None:
    checks = desk({"MODAL_CONFIG_PATH": "/nonexistent"}).checks(code=1)
    assert list(checks) == ["sdk", "token"]
    assert checks["token"][0]["advice"].startswith("modal token new")


def test_a_model_that_is_not_here_is_named_before_anything_is_deployed(
    desk: Callable[[dict[str, str]], Desk], loopback: Loopback
) -> None:
    here = desk(loopback.hello["environ"])
    _, err = here.gx("deploy", "--model", "qwen3-4b", code=1)
    assert "qwen3-4b" in err and "gx models pull qwen3-4b" in err
