"""The page "In the shell" of gx/README.md: each line of it runs, and ends well, in a folder with what it names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.project import Project

README = Path(__file__).parents[2] / "gx" / "README.md"
PAGE = README.read_text().partition("\n## In the shell\n")[2].partition("\n## ")[0]
MAY_BE_MISSING = ("jq", "parallel", "make", "xargs")
RECIPE = """\
version: 1
name: reviews
models: {m: ./model.gguf}
agents:
  a:
    model: m
    output: {type: object, required: [sentiment], properties: {sentiment: {enum: [good, bad]}}}
inputs: reviews.csv
steps:
  - {id: sort, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
"""
TEXTS = ("It leaks.", "Light, and quick to put up.", 'They said "soon".')


def block(kind: str) -> str:
    """The page's only block of that kind."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


LINES = [line for line in block("sh").splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("shell"))
    (made.folder / "model.gguf").symlink_to(tiny)
    (made.folder / "recipe.yaml").write_text(RECIPE)
    (made.folder / "reviews.csv").write_text("text\n" + "".join(f"{json.dumps(t)}\n" for t in TEXTS[:2]) + "plain\n")
    (made.folder / "errors.log").write_text("".join(f"error {n % 5}: no route to host\n" for n in range(30)))
    programs = made.folder / "bin"
    programs.mkdir()
    (programs / "gx").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m gx.cli.main "$@"\n')
    (programs / "gx").chmod(0o755)
    made.env |= {"PATH": f"{programs}:{made.env['PATH']}", "GX_MODEL": "./model.gguf", "GX_NODE_LINGER_S": "5"}
    yield made
    made.close()


def run(place: Project, line: str, *, cwd: Path | None = None, path: str = "") -> subprocess.CompletedProcess[str]:
    """The line, as sh runs it: in the place's own folder and with its PATH, or in another one and with another."""
    for program in MAY_BE_MISSING:
        if re.search(rf"(^|\| *){program} ", line) and shutil.which(program) is None:
            pytest.skip(f"{program} isn't installed")
    env = place.env | ({"PATH": path} if path else {})
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=cwd or place.folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "Traceback" not in done.stderr and "error:" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_runs_and_ends_well(place: Project, line: str) -> None:
    done = run(place, line)
    assert done.returncode == 0, done.stderr
    written = re.search(r"> (\w+\.\w+)$", line.partition(";")[0])
    assert (place.folder / written[1]).stat().st_size if written else done.stdout.strip() or "gx wait" in line


def test_the_crontab_runs_in_another_folder_and_with_no_path_but_its_own(place: Project) -> None:
    text = block("cron").replace("/home/ada/tickets", str(place.folder))
    path, line = text.replace("/home/ada/gx/.venv/bin", str(place.folder / "bin")).splitlines()
    fields = line.split(" ", 5)
    assert path.startswith("PATH=") and len(fields) == 6
    done = run(place, fields[5], cwd=Path("/"), path=path.removeprefix("PATH="))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len((place.folder / "today.jsonl").read_text().splitlines()) == 3


def test_the_makefile_makes_its_target_once(place: Project) -> None:
    (place.folder / "Makefile").write_text(block("make"))
    assert run(place, "make sorted.jsonl").returncode == 0
    assert len((place.folder / "sorted.jsonl").read_text().splitlines()) == 3
    assert "up to date" in run(place, "make sorted.jsonl").stdout
