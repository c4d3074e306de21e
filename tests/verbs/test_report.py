"""The figures of a report: what the log says of a run, counted by SQL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from gx.cli import report as verb
from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.core.message import Label
from gx.run.history.report.amounts import BINS, MOMENTS, bin_width, moment_width
from gx.run.history.report.clock import Absence, Clock
from gx.run.log import EventLog
from tests.verbs.writing import ONE, RECIPE, Writing

Call = Callable[..., Result]
RUN, NOW = "slow-222222", 1_700_000_000.0
EVIL = "<script>alert(1)</script>\x1b[31m&\u202e"


class Told(Writing):
    """Events that are written at their own times."""

    def __init__(self, folder: Path, recipe: str = RECIPE) -> None:
        super().__init__()
        self.folder, self.recipe, self.at_s = folder, recipe, 0.0
        folder.mkdir()
        self.log = EventLog.open(folder, now=lambda: NOW + self.at_s)

    def begin(self, run: str, **created: Any) -> None:
        recipe, params = self.put(self.recipe), self.put("{}")
        self.bodies.append(
            e.RunCreated(run=run, name="slow", fingerprint=run, recipe=recipe, params=params, by="ada", **created)
        )

    def at(self, at_s: float) -> None:
        """Write what there is, and go on at that time."""
        self.log.append_sync(self.bodies, list(self.blobs.values()), source="node:1")
        self.bodies, self.blobs, self.at_s = [], {}, at_s

    def close(self) -> None:
        self.at(self.at_s)
        self.log.close()


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Two rows in 10 s, then 1,000 s without the run, then one more row and two failures of one cause in 10 s."""
    w = Told(tmp_path / ".gx")
    w.begin(RUN)
    tasks = [w.queue(RUN, n, f"T-{n}", {"text": EVIL}) for n in range(6)]
    for task in tasks[:2]:
        w.lease(RUN, task)
    w.at(10)
    w.succeed(RUN, tasks[0], {"said": EVIL}, ms=10_000.0)
    w.succeed(RUN, tasks[1], {"said": "well"}, ms=6_000.0)
    w.bodies.append(e.RunInterrupted(run=RUN, reason="its client went away"))
    w.at(1010)
    w.bodies.append(e.RunResumed(run=RUN, by="bob"))
    for task in tasks[2:5]:
        w.lease(RUN, task)
    w.at(1015)
    w.succeed(RUN, tasks[2], {"said": "well"}, ms=5_000.0)
    w.at(1020)
    for n, task in enumerate(tasks[3:5]):
        message = f"after {n + 2} s it said '{EVIL}'"
        w.bodies.append(
            e.AttemptFailed(run=RUN, task=task, attempt=1, worker="edge", code="timeout", message=message, tok_in=5)
        )
        w.fail(RUN, task, "timeout", message)
    w.succeed(RUN, tasks[5], {"said": "well"}, cached="f" * 16)
    w.bodies.append(e.RunFinished(run=RUN, succeeded=4, failed=2))
    w.close()
    return tmp_path / ".gx"


def figures(call: Call, *args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(verb.register, "report", *args, "--json").stdout)
    return found


# ── the figures ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_time_that_a_run_was_away_is_not_in_its_seconds(slow: Path, call: Call) -> None:
    found = figures(call, RUN)
    assert (found["seconds"], found["away_s"], found["resumed"]) == (20.0, 1000.0, 1)
    moments = found["moments"]
    assert sum(m["succeeded"] for m in moments) == 4 and sum(m["failed"] for m in moments) == 2
    at = [m["at_s"] for m in moments if m["succeeded"]]
    assert at == pytest.approx([10.0, 15.0, moments[-1]["at_s"]], abs=0.5)


def test_counts_and_tokens_are_those_of_the_log(slow: Path, call: Call) -> None:
    found = figures(call, "slow")
    counts = {"tasks": 6, "succeeded": 4, "failed": 2, "cancelled": 0, "skipped": 0, "cached": 1}
    assert found["counts"] == counts and [step["step"] for step in found["steps"]] == ["s"]
    assert (found["tok_in"], found["tok_out"]) == (3 * 7 + 2 * 5, 9)
    assert sum(m["tok_in"] for m in found["moments"]) == found["tok_in"]
    assert found["latency"]["p50"] == pytest.approx(6.0) and found["latency"]["count"] == 3
    for name in ("latency", "tokens_in", "tokens_out"):
        spread = found[name]
        assert sum(one["count"] for one in spread["bins"]) == spread["count"]
        assert all(a["stop"] == b["start"] for a, b in pairwise(spread["bins"]))


def test_a_worker_is_as_busy_as_its_attempts_were_long(slow: Path, call: Call) -> None:
    found = figures(call, RUN)
    (worker,) = found["workers"]
    assert (worker["worker"], worker["attempts"]) == ("this machine", 5)
    assert sum(worker["levels"]) * found["moment_s"] == pytest.approx(10 + 10 + 5 + 10 + 10)


def test_failures_of_one_cause_are_one_line(slow: Path, call: Call) -> None:
    (cause,) = figures(call, RUN)["causes"]
    assert (cause["code"], cause["tasks"], cause["attempts"]) == ("timeout", 2, 2)
    assert cause["shape"] == "after … s it said …" and len(set(cause["examples"])) == 2


def test_decisions_are_told_with_their_reasons(slow: Path, call: Call) -> None:
    told = [decision["text"] for decision in figures(call, RUN)["decisions"]]
    assert told[:3] == ["begun by ada", "interrupted: its client went away", "resumed by bob"]


def test_a_run_that_did_nothing_yet_has_a_report(tmp_path: Path, call: Call) -> None:
    w = Told(tmp_path / ".gx")
    w.begin(RUN)
    w.close()
    found = figures(call, RUN)
    assert found["counts"]["tasks"] == 0 and found["latency"] is None and found["workers"] == []
    assert "<svg" not in call(verb.register, "report", RUN, "-o", "-").stdout


def test_containers_have_their_time_and_cost(tmp_path: Path, call: Call) -> None:
    w = Told(tmp_path / ".gx")
    w.begin(RUN)
    rates = {"gpu": "L4", "usd_per_s": 0.001, "timeout_s": 60, "cold_start_s": 1, "lease_s": 10, "window_s": 5}
    w.bodies.append(e.ContainerReserved(run=RUN, container="c1", at=NOW + 10, **rates))
    w.at(100)
    w.bodies.append(e.ContainerEnded(run=RUN, container="c1", at=NOW + 70))
    w.close()
    found = figures(call, RUN)
    (rented,) = found["containers"]
    assert (rented["start_s"], rented["end_s"]) == (10.0, 70.0)
    assert rented["usd"] == pytest.approx(0.06) == found["usd"]
    assert "$0.0600" in call(verb.register, "report", RUN, "-o", "-").stdout


INSTANTS = st.integers(0, 10**9)


@given(st.lists(INSTANTS, min_size=2, max_size=8, unique=True), INSTANTS, INSTANTS)
def test_the_clock_never_goes_back_and_never_runs_faster_than_time(marks: list[int], one: int, two: int) -> None:
    marks.sort()
    gaps = tuple(Absence(start=a, end=b) for a, b in list(pairwise(marks))[::2])
    clock = Clock(began=marks[0], absences=gaps)
    early, late = sorted((one, two))
    assert 0 <= clock.at_s(late) - clock.at_s(early) <= (late - early) / 1e6 + 1e-9


@given(st.floats(0, 1e7))
def test_moments_cover_the_run_and_are_never_many(seconds: float) -> None:
    width_s, n = moment_width(seconds)
    assert width_s * n >= seconds * (1 - 1e-9) and 1 <= n <= MOMENTS + 1


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_bins_are_round_and_few(one: float, two: float) -> None:
    least, high = sorted((one, two))
    assert (high - least) / bin_width(least, high, "s") <= BINS + 1e-6
    assert bin_width(least, high, "tokens") == int(bin_width(least, high, "tokens")) >= 1


# ── what is private ──────────────────────────────────────────────────────────────────────────────────────────────


def private(tmp_path: Path, recipe: str) -> Told:
    w = Told(tmp_path / ".gx", recipe)
    w.begin(RUN)
    tasks = [w.queue(RUN, n, f"SECRET-{n}", {"text": "SECRET"}) for n in range(2)]
    w.succeed(RUN, tasks[0], "SECRET")
    w.fail(RUN, tasks[1], "schema", "SECRET is no number")
    return w


def test_contents_of_a_private_run_are_withheld_until_they_are_asked_for(tmp_path: Path, call: Call) -> None:
    private(tmp_path, RECIPE.replace("a: {model: m}", "a: {model: m, private: true}")).close()
    page = call(verb.register, "report", RUN, "-o", "-").stdout
    assert "SECRET" not in page and "--with-content" in page and "schema" in page
    assert "SECRET" not in json.dumps(figures(call, RUN))
    assert "SECRET is no number" in call(verb.register, "report", RUN, "-o", "-", "--with-content").stdout


def test_a_run_is_private_when_one_of_its_tasks_became_so(tmp_path: Path, call: Call) -> None:
    w = private(tmp_path, RECIPE)
    task = w.queue(RUN, 3, "SECRET-3")
    prepared = e.TaskPrepared(run=RUN, task=task, attempt=1, key="k", model="m", prompt=(), label=Label.private)
    w.bodies.append(prepared)
    w.close()
    assert figures(call, RUN)["is_withheld"]
    assert "SECRET" not in call(verb.register, "report", RUN, "-o", "-").stdout


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Page(HTMLParser):
    """What is on a page: its tags, and what they ask for. An element that isn't closed, or a stray end, is an error."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input", "col"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_stands_alone_and_what_a_model_wrote_is_inert(slow: Path, call: Call) -> None:
    text = call(verb.register, "report", RUN, "-o", "-").stdout
    page = Page(text)
    names = {name for name, _ in page.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "form", "a"})
    assert not [attrs for _, attrs in page.tags if {"href", "src", "xlink:href", "onclick", "onload"} & set(attrs)]
    assert "url(" not in text and "@import" not in text
    assert "<script>alert(1)</script>" in page.words
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv"))
    assert "default-src 'none'" in str(policy["content"])


def test_what_was_rehearsed_is_not_told_as_having_left_this_machine(tmp_path: Path, call: Call) -> None:
    w = Told(tmp_path / ".gx")
    w.begin(RUN)
    task = w.queue(RUN, 0, "T-0")
    for to, size in (("rehearsal", 300), ("modal", 70)):
        w.bodies.append(e.Egress(run=RUN, task=task, attempt=1, to=to, fields=(), bytes=size, digest="d" * 32))
    w.close()
    words = Page(call(verb.register, "report", RUN, "-o", "-").stdout).words
    assert "Left this machine1turns, 70 bytes" in words
    assert "1 turns left this machine for modal, 70 bytes." in words
    assert "1 turns went to a rehearsal and did not leave this machine, 300 bytes." in words


def test_behind_each_chart_stands_a_table_and_a_sentence(slow: Path, call: Call) -> None:
    page = Page(call(verb.register, "report", RUN, "-o", "-").stdout)
    charts = page.all("svg")
    assert len(charts) == 7
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in charts)
    assert len(page.all("figure")) == len(page.all("details")) == len(charts)
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"


def test_charts_are_written_as_files_that_need_nothing_else(slow: Path, call: Call, tmp_path: Path) -> None:
    from lxml import etree

    call(verb.register, "report", RUN, "--svg", str(tmp_path / "charts"))
    files = sorted((tmp_path / "charts").iterdir())
    assert [file.name for file in files][:2] == ["answers.svg", "latency.svg"]
    for file in files:
        root = etree.fromstring(file.read_bytes())
        assert root.tag.endswith("svg") and b"var(" not in file.read_bytes()


def test_a_file_is_written_whole_or_not_at_all(slow: Path, call: Call, tmp_path: Path) -> None:
    result = call(verb.register, "report", RUN, "-o", str(tmp_path / "r.html"))
    assert result.stdout == "" and "r.html" in result.stderr
    assert (tmp_path / "r.html").read_text().endswith("</html>\n")
    with pytest.raises(Exception, match="can't be written"):
        call(verb.register, "report", RUN, "-o", str(tmp_path / "nowhere" / "r.html"))
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".r.html")]


def test_a_report_that_stdout_can_not_take_is_an_error_in_words(slow: Path, tmp_path: Path) -> None:
    for form in (("-o", "-"), ("--json",)):
        words = [sys.executable, "-P", "-m", "gx.cli.main", "report", RUN, *form, "--workspace", str(slow)]
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=180, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.startswith("error: stdout can't be written"), done.stderr
        assert "Traceback" not in done.stderr


def test_what_is_no_run_or_two_forms_at_once_is_refused(place: Path, call: Call) -> None:
    with pytest.raises(NotFound, match="there is no run nope"):
        call(verb.register, "report", "nope")
    with pytest.raises(UsageError, match="--json and --svg"):
        call(verb.register, "report", ONE, "--json", "--svg", "charts")


def test_no_field_is_left_out_of_the_json(slow: Path, call: Call) -> None:
    from gx.run.history.report.values import Report

    found = figures(call, RUN)
    assert set(found) == set(Report.__struct_fields__)
    assert msgspec.convert(found, Report, strict=False).run == RUN
