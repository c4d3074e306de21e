"""What each entry point really loads, seen in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["llama_cpp", "duckdb", "textual", "modal", "numpy", "anyio", "jinja2", "httpx", "rich"]


def loaded(code: str) -> set[str]:
    """The modules that `code` loads."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nsys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_the_first_words_of_gx_load_nothing_heavy(flag: str) -> None:
    modules = loaded(f"sys.argv = ['gx', '{flag}']; import gx.cli.main as m; m.main()")
    assert "gx.cli.main" in modules
    assert modules.isdisjoint(HEAVY)


def test_the_package_itself_imports_nothing() -> None:
    assert {m for m in loaded("import gx") if m.startswith("gx")} == {"gx"}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("gx.core.projection", ["anyio", "duckdb", "jinja2", "yaml", "edge", "typer", "rich", "numpy"]),
        ("gx.flow.graph", ["anyio", "duckdb", "edge", "typer", "rich", "numpy", "gx.run"]),
        ("gx.run.dispatcher", ["edge", "typer", "rich", "numpy", "llama_cpp", "gx.node", "gx.settings"]),
        ("edge.worker", ["edge.engine", "llama_cpp", "numpy", "duckdb", "typer", "rich", "gx.run", "gx.flow"]),
        ("edge.models", ["edge.engine", "llama_cpp", "numpy", "duckdb", "typer", "rich", "httpx"]),
        ("edge.bench", ["duckdb", "typer", "rich", "modal", "gx.run", "gx.flow", "gx.node"]),
        ("gx.node.local", ["edge.engine", "llama_cpp", "numpy", "typer", "rich", "modal", "textual"]),
        ("cloud.version", ["modal", "anyio", "edge"]),
    ],
)
def test_a_layer_loads_nothing_that_it_must_not_know(module: str, forbidden: list[str]) -> None:
    modules = loaded(f"import {module}")
    assert module in modules
    assert modules.isdisjoint(forbidden)
