"""Whom the monitor reads from: a node, its successor after a kill, or the file; and what a person asks of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from gx.core import event as e
from gx.core.errors import UsageError
from gx.core.event import RunCreated
from gx.core.protocol import Measured, Signal, SlotNow
from gx.core.terms import Terms
from gx.core.view import RunState, TaskState
from gx.node.previews import KEPT_CHARS, MOST, Previews
from gx.node.workspace import Workspace
from gx.tui.app import Monitor
from gx.tui.feed import RUNS_EVERY_S, RUNS_SELDOM_S, Feed, rest_s
from gx.tui.glyphs import UNICODE
from gx.tui.intents import Intents, Offer
from gx.tui.limits import limits_of
from gx.tui.screens.detail import Detail, editor_of
from gx.tui.screens.dialogs import Choose, Confirm
from gx.tui.states import State
from tests.integration.project import ENDLESS as ENDLESS_RECIPE
from tests.integration.project import Project
from tests.node.served import ENDLESS, Served, ended, recipe, serve
from tests.tiny_model import write_tiny_model
from tests.tui.screens import monitor, screen_of, settled, until, watching
from tests.tui.written import OLDER, RUN, a_run

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fed")
    write_tiny_model(made / "tiny.gguf", context=32768)
    return made


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serve(folder / "ws") as found:
        yield found


async def test_a_live_run_is_followed_and_its_answers_come_as_they_are_written(served: Served) -> None:
    run = served.submit(recipe("live", tokens=ENDLESS), 2, is_detached=True).run
    async with watching(served.folder) as pilot:
        app = monitor(pilot)
        await until(pilot, lambda: app.model.run == run and app.model.running and app.feed.state == "node")
        await pilot.press("3")
        length_and_pace = re.compile(r"decode +[\d,]+ +[\d.k]+ +\d+s  s, edge")
        await until(pilot, lambda: length_and_pace.search(screen_of(pilot)))
        await until(pilot, lambda: "2/2 slots" in screen_of(pilot))
        await pilot.press("2", "enter")
        await until(pilot, lambda: app.feed.running is not None and any(one.text for one in app.feed.running.tasks))
        await until(pilot, lambda: "as it comes" in screen_of(pilot))
        await pilot.press("escape", "x")
        await pilot.pause()
        await pilot.press("y")
        await until(pilot, lambda: app.model.status == "cancelled")
    assert ended(served, run).run.run == run


async def test_what_is_asked_of_a_live_run_is_done(served: Served) -> None:
    run = served.submit(recipe("asked", tokens=ENDLESS), 2, is_detached=True).run
    intents = Intents(served.folder)
    async with watching(served.folder) as pilot:
        app = monitor(pilot)
        await until(pilot, lambda: run in app.feed.live and app.model.run == run)
        await pilot.press("p")
        await until(pilot, lambda: app.model.status == "paused")
        await pilot.press("p")
        await until(pilot, lambda: app.model.status == "running")
        await pilot.press("c")
        await pilot.pause()
        await pilot.press("3", "enter", "enter", "enter")
        await until(pilot, lambda: app.model.concurrency == 3)
        await until(pilot, lambda: "at most 3 at once" in screen_of(pilot))
    intents.cancel(run)
    ended(served, run)
    with pytest.raises(UsageError):
        intents.fork(run, "no such step")


def has_told(app: Monitor, text: str) -> bool:
    return any(text in one.message for one in app._notifications)


def n_events(app: Monitor, kind: str) -> int:
    return sum(line.type == kind for line in app.model.events)


def has_more(app: Monitor, kind: str, before: int) -> bool:
    return n_events(app, kind) > before


async def test_what_is_asked_of_a_task_is_done_and_what_would_be_rented_is_shown_first(served: Served) -> None:
    run = served.submit(recipe("tasks", tokens=ENDLESS), 2, is_detached=True).run
    asked: list[e.Body] = [e.QuestionAsked(run=run, question="q", text="Really so?", choices=("go", "stop"))]
    served.in_loop(lambda: served.node._dispatcher.commit(asked))
    offer = Offer(lines=("1 x L4  $0.10", "Rent for at most $0.10?"), terms=Terms(mode="off", usd=0.1))
    async with watching(served.folder, wanted=run, plan_burst=lambda _: offer) as pilot:
        app = monitor(pilot)
        await until(pilot, lambda: run in app.feed.live and app.model.questions)  # nothing begins before it is answered
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await until(pilot, lambda: not app.model.questions)
        for key, said in (("n", "nothing was rented"), ("y", "may rent up to")):
            await pilot.press("b")
            await until(pilot, lambda: isinstance(app.screen, Confirm) and "1 x L4  $0.10" in screen_of(pilot))
            await pilot.press(key)
            await until(pilot, partial(has_told, app, said))
        await until(pilot, lambda: "of $0.10 spent" in screen_of(pilot))
        await pilot.press("2", "enter")
        for key, kind in (("r", "task.leased"), ("x", "task.cancelled")):
            before = n_events(app, kind)
            await until(pilot, lambda: isinstance(app.screen, Detail) and State(app.model.states[0]) is State.running)
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await until(pilot, partial(has_more, app, kind, before))
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: len(app.feed.live) == 2)
    served.end_runs()


@pytest.mark.parametrize("is_same_inode", [False, True])
async def test_the_file_is_read_where_there_is_no_node_and_another_log_in_its_place_is_noticed(
    tmp_path: Path, is_same_inode: bool
) -> None:
    place = a_run().write(tmp_path / "one" / ".gx")
    other = a_run(row="ANOTHER").write(tmp_path / "two" / ".gx")
    async with watching(place) as pilot:
        app = monitor(pilot)
        assert app.feed.state == "file"
        seen = app.model
        if is_same_inode:  # which a file system may give again, too
            for one in other.iterdir():
                shutil.copyfile(one, place / one.name)
        else:
            shutil.rmtree(place)
            shutil.copytree(other, place)
        await until(pilot, lambda: app.model is not seen and app.model.rows[:1] == ["ANOTHER"])


async def test_a_node_that_is_killed_is_missed_and_the_next_one_followed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GX_NODE_LINGER_S", "0.3")
    project = Project(tmp_path).write(ENDLESS_RECIPE, folder / "tiny.gguf", rows=3)
    try:
        project.start("run", "recipe.yaml", "-i", "rows.jsonl", "--detach").process.wait(60)
        async with watching(project.workspace) as pilot:
            app = monitor(pilot)
            run = app.model.run
            await until(pilot, lambda: run in app.feed.live and app.model.running)
            seq = app.model.seq
            project.kill_node()
            await until(pilot, lambda: app.feed.state != "node" and run not in app.feed.live)
            assert app.model.total == 3, "what it wrote is still there"
            await until(pilot, lambda: "p lets it go on" in screen_of(pilot))
            assert app.farewell.endswith(f"gx resume {run}")
            await pilot.press("p")
            await until(pilot, lambda: run in app.feed.live and app.feed.state == "node" and app.model.seq > seq)
            await until(pilot, lambda: app.model.running)
            await until(pilot, lambda: "p lets it go on" not in screen_of(pilot))
            assert app.model.total == 3
            Intents(project.workspace).cancel(run)
            await until(pilot, lambda: app.model.status == "cancelled")
    finally:
        project.close()


async def test_a_workspace_without_a_run_says_so(tmp_path: Path) -> None:
    app = Monitor(Feed(Workspace(tmp_path / ".gx")), UNICODE)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no run yet" in screen_of(pilot))
        await pilot.press(*"pcbxra")  # nothing to do anything to
        assert app.is_running


async def test_steps_that_come_later_have_room_on_a_small_screen(tmp_path: Path) -> None:
    place = tmp_path / ".gx"
    app = Monitor(Feed(Workspace(place)), UNICODE)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no run yet" in screen_of(pilot))
        a_run().write(place)
        await until(pilot, lambda: "replies" in screen_of(pilot))
        assert "triage" in screen_of(pilot)  # the step before it isn't pushed out


async def test_a_run_is_named_by_the_start_of_its_id(tmp_path: Path) -> None:
    place = a_run().write(tmp_path / ".gx")
    async with watching(place, wanted="triage-a") as pilot:
        assert monitor(pilot).model.run == OLDER
    app = Monitor(Feed(Workspace(place)), UNICODE, wanted="nothing")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no run, or several" in screen_of(pilot))


async def test_a_terminal_that_is_resized_shows_all_of_it(tmp_path: Path) -> None:
    place = a_run().write(tmp_path / ".gx")
    async with watching(place, (80, 24)) as pilot:
        for size in ((200, 60), (40, 12), (120, 40)):
            await pilot.resize_terminal(*size)
            await settled(pilot)
            assert len(screen_of(pilot).splitlines()) == size[1]
        assert RUN in screen_of(pilot)


def test_previews_are_bounded_and_a_later_attempt_begins_anew() -> None:
    previews = Previews()
    for number in range(MOST + 10):
        previews.take(Signal(task=f"t{number}", attempt=1, text="a", tokens_out=1))
    assert len(previews._last) == MOST
    for _ in range(3):
        previews.take(Signal(task="t", attempt=1, text="x" * KEPT_CHARS, tokens_out=9))
    assert len(previews._last["t"].text) == KEPT_CHARS
    assert previews._last["t"].is_cut
    previews.take(Signal(task="t", attempt=2, text="anew", tokens_out=1))
    previews.take(Signal(task="t", attempt=1, text="late", tokens_out=10))
    assert (previews._last["t"].text, previews._last["t"].is_cut) == ("anew", False)


def test_a_slot_stands_as_the_last_reading_has_it_with_what_was_written_since() -> None:
    previews, run = (
        Previews(),
        RunState(id="r", created=RunCreated(run="r", name="", fingerprint="", recipe="", params="")),
    )
    for task in ("reads", "began", "writes", "waits"):
        run.leased[task] = TaskState(id=task, step="s", path="", index=0, row_id=task, order=0)
    prompt = SlotNow(conversation="reads 1", tokens=20, prompt_tokens=50, is_prefill=True, tokens_per_s=900.0)
    writes = SlotNow(conversation="writes 1", tokens=55, prompt_tokens=50, tokens_out=6, tokens_per_s=12.0)
    began = replace(prompt, conversation="began 1")
    previews.take(Measured(slots_busy=3, sequences=(prompt, began, writes, replace(writes, conversation="waits 2"))))
    previews.take(Signal(task="began", attempt=1, text="a", tokens_out=3))
    previews.take(Signal(task="writes", attempt=1, text="a", tokens_out=8))
    found = {one.task: one.slot for one in previews.of(run).tasks}
    assert found == {
        "reads": prompt,
        "began": replace(began, tokens=53, tokens_out=3, is_prefill=False, tokens_per_s=None),
        "writes": replace(writes, tokens=57, tokens_out=8),
        "waits": None,  # what is said of another attempt is not said of this one
    }
    assert previews.read is not None and previews.read.slots_busy == 3


def test_the_runs_are_asked_for_seldom_where_that_takes_long_but_never_minutes_apart() -> None:
    assert [rest_s(took_s) for took_s in (0.0, 0.04, 0.1, 60.0)] == [RUNS_EVERY_S, RUNS_EVERY_S, 10.0, RUNS_SELDOM_S]


def test_limits_are_numbers_or_an_error_that_names_them() -> None:
    assert limits_of("4", "20_000", "90s") == (4, 20_000, 90.0)
    assert limits_of("", " ", "") == (None, None, None)
    for typed in (("x", "", ""), ("", "-1", ""), ("", "", "soon")):
        with pytest.raises(UsageError):
            limits_of(*typed)


@pytest.mark.parametrize("name", ["VISUAL", "EDITOR"])
def test_an_editor_is_a_command_or_an_error_that_names_the_variable(name: str) -> None:
    assert editor_of({name: "code --wait"}) == ["code", "--wait"]
    assert editor_of({name: " "}) == ["vi"] == editor_of({})
    with pytest.raises(UsageError, match=name):
        editor_of({name: "'vi"})
