"""Peers in environments of their own, with pinned versions, made once and kept in the user's cache folder."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import platformdirs


def environment(*packages: str) -> Path:
    """The Python of an environment that holds these pinned packages and nothing of gx."""
    name = "-".join(package.replace("==", "-") for package in packages)
    folder = Path(platformdirs.user_cache_dir("gx", appauthor=False)) / "bench" / name
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "--quiet", str(folder)], check=True)
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), *packages], check=True)
    return python


def run_script(python: Path | str, *words: str) -> str:
    """What a script prints. :raises CalledProcessError: if it fails."""
    done = subprocess.run([str(python), *words], capture_output=True, text=True, check=True, timeout=900)
    return done.stdout.strip()


def median(values: list[float]) -> float:
    return statistics.median(values)


def verdict(*claims: tuple[str, float, float, bool]) -> int:
    """Print (what, got, wanted, is at least) for each claim; 1 if one is missed."""
    missed = 0
    for what, got, wanted, is_floor in claims:
        holds = got >= wanted if is_floor else got <= wanted
        missed |= not holds
        sign = "≥" if is_floor else "≤"
        sys.stdout.write(f"{what:58} {got:8.2f}  {sign} {wanted:<6g} {'ok' if holds else 'MISSED'}\n")
    return int(missed)
