"""The page of a report in a real browser, where there is one: it shows what is written, and asks for nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from gx.cli import report as verb
from tests.verbs.writing import ONE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def seen(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """What the browser says of the page, and on stderr whatever it complains of."""
    words = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    return subprocess.run(
        [*words, profile, *flags, page.as_uri()], capture_output=True, text=True, timeout=180, check=True
    )


def test_the_browser_builds_the_page_as_it_is_written_and_has_no_complaint(
    place: Path, call: Callable[..., Result], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    call(verb.register, "report", ONE, "-o", str(page))
    done = seen(page, "--dump-dom")
    written = page.read_text()
    for tag in ("<svg ", "<table>", "<tr>", "<figure", "<summary>"):
        assert done.stdout.count(tag) == written.count(tag) > 0
    assert "CONSOLE" not in done.stderr, "a script, a style or a picture was refused, or the page is broken"


def test_a_printed_report_has_its_charts_and_words(place: Path, call: Callable[..., Result], tmp_path: Path) -> None:
    import pypdfium2

    page = tmp_path / "report.html"
    call(verb.register, "report", ONE, "-o", str(page))
    seen(page, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    with pypdfium2.PdfDocument(tmp_path / "report.pdf") as paper:
        words = "".join(sheet.get_textpage().get_text_bounded() for sheet in paper)
    assert "Tasks a second" in words and "seconds of the run" in words and "for_each: inputs" in words
