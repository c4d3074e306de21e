"""What each key of the monitor does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from textual.widgets import DataTable, Input

from gx.core.errors import SettingsError
from gx.tui import keys
from gx.tui.feed import Began
from gx.tui.screens.detail import Detail, edited
from gx.tui.screens.dialogs import Choose, Confirm, Fill, Tell
from gx.tui.screens.help import Help
from gx.tui.states import State
from gx.tui.story import written
from gx.tui.themes import PALETTES
from gx.tui.widgets.grid import TaskGrid
from gx.tui.widgets.longtext import LongText
from gx.tui.widgets.rows import Rows
from tests.tui.screens import PATIENCE_S, monitor, screen_of, settled, stand_still, until, watching
from tests.tui.written import OLDER, RUN, a_run

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run().write(tmp_path_factory.mktemp("pressed") / ".gx")


async def test_digits_show_the_views(place: Path) -> None:
    async with watching(place) as pilot:
        for number, tab in enumerate(keys.TABS, 1):
            await pilot.press("escape", str(number))
            assert monitor(pilot).tab == tab.id


async def test_q_leaves_and_says_how_to_come_back(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("q")
        await pilot.pause()
        assert not pilot.app.is_running
        assert RUN in monitor(pilot).farewell


async def test_q_leaves_once_the_node_was_told_and_at_once_when_it_is_pressed_again(place: Path) -> None:
    for keys_pressed, waits in (("q", True), ("ctrl+q", True), ("qq", False)):
        said = threading.Event()
        async with watching(place) as pilot:
            monitor(pilot).ask_node(lambda: str(said.wait(PATIENCE_S)))  # noqa: B023
            await pilot.press(*([keys_pressed] if waits else keys_pressed))
            if waits:
                await pilot.pause()
                assert pilot.app.is_running
            else:
                await until(pilot, lambda: not pilot.app.is_running)
            said.set()
            await until(pilot, lambda: not pilot.app.is_running)


async def test_vim_keys_and_arrows_walk_the_grid(place: Path) -> None:
    async with watching(place, (80, 24)) as pilot:
        await pilot.press("2")
        grid = pilot.app.query_one("#grid", TaskGrid)
        await pilot.press("l", "l", "right", "h")
        assert grid.cursor == 2
        await pilot.press("G")
        assert grid.cursor == 62
        await pilot.press("g")
        assert grid.cursor == 0
        await pilot.press("j")
        assert grid.cursor == 0, "there is one line only"


async def test_vim_keys_walk_a_list(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("5")
        rows = pilot.app.query_one("#decisions", Rows)
        await settled(pilot)
        await pilot.press("g")
        assert rows.cursor == 0
        await pilot.press("j", "down", "k")
        assert rows.cursor == 1
        await pilot.press("G")
        assert rows.cursor == len(monitor(pilot).model.decisions) - 1


async def test_s_shows_the_tasks_of_one_state_after_the_other_then_all(place: Path) -> None:
    async with watching(place) as pilot:
        app, grid = monitor(pilot), pilot.app.query_one("#grid", TaskGrid)
        for state in (State.queued, State.prepared, State.running):
            await pilot.press("s")
            assert app.state_wanted is state
        for _ in range(4):
            await pilot.press("s")
        assert grid.place is not None
        await pilot.press("s")
        assert app.state_wanted is None


async def test_a_filter_leaves_the_tasks_that_fit(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("slash", *"T-01")
        await pilot.press("enter")
        grid = pilot.app.query_one("#grid", TaskGrid)
        assert grid.place == 10
        await pilot.press("G")
        assert grid.place == 19
        assert not isinstance(pilot.app.focused, Input)


async def test_events_are_filtered_by_any_of_their_words(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("7", "slash", *"container")
        await pilot.press("enter")
        await settled(pilot)
        shown = [line for line in screen_of(pilot).splitlines() if " container." in line]
        assert len(shown) == 2
        assert "task.leased" not in screen_of(pilot)


async def test_enter_opens_a_task_and_escape_comes_back(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("2", "enter")
        await settled(pilot)
        assert isinstance(pilot.app.screen, Detail)
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, Detail)


async def test_enter_on_a_failure_opens_its_first_task(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("4")
        await settled(pilot)
        await pilot.press("enter")
        await settled(pilot)
        await settled(pilot)
        assert "timeout" in screen_of(pilot)


async def test_y_copies_the_answer_and_Y_the_prompt(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("2", "enter")
        await settled(pilot)
        await settled(pilot)
        await pilot.press("y")
        assert '"category": "bug"' in pilot.app.clipboard
        await pilot.press("Y")
        assert pilot.app.clipboard == "user:\nSort this."


async def test_e_says_what_is_wrong_with_the_editor(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(place) as pilot:
        await pilot.press("2", "enter")
        await settled(pilot)
        for editor, why in (("'vi", "expected a command"), ("vi", "can't be handed over")):
            monkeypatch.setenv("VISUAL", editor)
            await pilot.press("e")
            await pilot.pause()
            assert any(why in note.message for note in pilot.app._notifications), why


async def test_vim_keys_and_pages_scroll_a_text(place: Path) -> None:
    async with watching(place, (80, 24)) as pilot:
        await pilot.press("2", "enter")
        await settled(pilot)
        await settled(pilot)
        text = pilot.app.screen.query_one(LongText)
        end = text.max_scroll_y
        assert end > 3
        for key, y in (("j", 1), ("down", 2), ("k", 1), ("up", 0), ("G", end), ("home", 0), ("end", end), ("g", 0),
                       ("pagedown", end), ("pageup", 0), ("ctrl+f", end), ("ctrl+b", 0),
                       ("ctrl+d", min(end, text.size.height // 2)), ("ctrl+u", 0)):  # fmt: skip
            await pilot.press(key)
            assert text.scroll_y == y, key


async def test_pages_of_a_list_and_a_grid_and_their_arrows(place: Path) -> None:
    async with watching(place, (40, 14)) as pilot:
        await pilot.press("7")
        await settled(pilot)
        rows = pilot.app.query_one("#events", Rows)
        last, page = rows.cursor, rows.size.height
        for key, at in (("home", 0), ("end", last), ("ctrl+b", last - page), ("ctrl+f", last), ("pageup", last - page),
                        ("ctrl+u", last - page - page // 2), ("ctrl+d", last - page),
                        ("pagedown", last), ("up", last - 1)):  # fmt: skip
            await pilot.press(key)
            assert rows.cursor == at, key
        await pilot.press("2")
        await settled(pilot)
        grid = pilot.app.query_one("#grid", TaskGrid)
        columns = grid._columns
        for key, at in (("j", columns), ("k", 0), ("down", columns), ("up", 0), ("left", 0), ("end", 62), ("home", 0)):
            await pilot.press(key)
            assert grid.cursor == at, key


async def test_enter_on_an_event_or_a_decision_shows_all_of_it(place: Path) -> None:
    async with watching(place) as pilot:
        for tab, wanted in (("5", "Spend two dollars more?"), ("7", '"choices"')):
            await pilot.press(tab)
            await settled(pilot)
            await pilot.press("enter")
            await pilot.pause()
            assert isinstance(pilot.app.screen, Tell)
            assert wanted in screen_of(pilot)
            await pilot.press("escape")


async def test_enter_on_a_worker_opens_its_task(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("G", "enter")
        await settled(pilot)
        assert isinstance(pilot.app.screen, Detail)
        assert "T-048: running" in screen_of(pilot)


async def test_a_slash_in_a_question_is_a_slash_and_escape_gives_the_keys_back(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("8")
        question = pilot.app.query_one("#question", Input)
        question.value = "select 4"
        await pilot.press("end", "slash", "2", "enter")
        await settled(pilot)
        assert question.value == "select 4/2"
        assert "Filter" not in screen_of(pilot)
        await pilot.press("escape")
        await pilot.pause()
        assert "Filter" in screen_of(pilot).splitlines()[-1]
        await pilot.press("1")
        assert monitor(pilot).tab == "run"


async def test_a_choice_of_the_palette_is_done(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("ctrl+p", *"decisions")
        await until(pilot, lambda: "key: 5" in screen_of(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: monitor(pilot).tab == "decisions")


async def test_w_says_why_a_task_has_its_state(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("2", "enter")
        await settled(pilot)
        await pilot.press("w")
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        assert "succeeded" in screen_of(pilot).split("status")[0]


async def test_t_goes_through_the_themes(place: Path) -> None:
    async with watching(place) as pilot:
        seen = []
        for _ in PALETTES:
            await pilot.press("t")
            seen.append(pilot.app.theme)
        assert sorted(seen) == sorted(PALETTES)


async def test_brackets_go_from_run_to_run(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("left_square_bracket")
        await settled(pilot)
        assert monitor(pilot).model.run == OLDER
        assert OLDER in screen_of(pilot).splitlines()[0]
        await pilot.press("right_square_bracket")
        await settled(pilot)
        assert monitor(pilot).model.run == RUN


async def test_enter_on_a_run_shows_it(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("9")
        await settled(pilot)
        await pilot.press("j", "enter")
        await settled(pilot)
        assert monitor(pilot).model.run == OLDER


async def test_a_task_closes_when_another_run_is_shown(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("2", "G", "enter")
        await settled(pilot)
        assert isinstance(pilot.app.screen, Detail)
        await pilot.press("left_square_bracket")
        await settled(pilot)
        assert monitor(pilot).model.run == OLDER
        assert not isinstance(pilot.app.screen, Detail)
        assert OLDER in screen_of(pilot).splitlines()[0]


async def test_a_task_whose_log_was_written_anew_closes_once_nothing_is_asked_about_it(place: Path) -> None:
    async with watching(place) as pilot:
        app = monitor(pilot)
        stand_still(app)
        await pilot.press("2", "enter")
        await settled(pilot)
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        app.feed.blocks.put(Began(RUN))
        await until(pilot, lambda: app.model.total == 0)
        assert isinstance(app.screen, Confirm)
        await pilot.press("n")
        await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_enter_on_the_run_that_is_shown_leaves_it_on_the_screen(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("9")
        await settled(pilot)
        await pilot.press("enter")
        await pilot.pause()
        app = monitor(pilot)
        assert (app.tab, app.model.run, app.model.total) == ("run", RUN, 63)


async def test_sql_is_answered_in_a_table(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("8")
        pilot.app.query_one("#question", Input).value = "select count(*) as n from tasks"
        await pilot.press("enter")
        await settled(pilot)
        assert pilot.app.query_one(DataTable).row_count == 1
        assert "64" in screen_of(pilot)


async def test_a_question_that_the_log_refuses_is_told_below_the_table(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("8")
        pilot.app.query_one("#question", Input).value = "delete from events"
        await pilot.press("enter")
        await settled(pilot)
        assert "expected a question" in screen_of(pilot)


async def test_what_destroys_is_asked_first_and_anything_but_y_is_a_no(place: Path) -> None:
    async with watching(place) as pilot:
        for key in ("enter", "n", "escape", "q"):
            await pilot.press("x")
            await pilot.pause()
            assert isinstance(pilot.app.screen, Confirm)
            await pilot.press(key)
            await pilot.pause()
            assert not isinstance(pilot.app.screen, Confirm)
        assert monitor(pilot).model.status == "running"


async def test_a_asks_for_one_of_the_choices(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("a")
        await pilot.pause()
        assert isinstance(pilot.app.screen, Choose)
        assert "Spend two dollars more?" in screen_of(pilot)
        await pilot.press("escape")


async def test_what_needs_a_live_run_says_so(place: Path) -> None:
    async with watching(place) as pilot:
        for key in ("c", "b"):
            await pilot.press(key)
            await pilot.pause()
            assert not isinstance(pilot.app.screen, Fill | Confirm)
            assert any("isn't live" in note.message for note in pilot.app._notifications)


async def test_the_help_and_the_palette_open(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.press("question_mark")
        assert isinstance(pilot.app.screen, Help)
        await pilot.press("escape", "colon")
        await pilot.pause()
        assert "Search" in screen_of(pilot)
        await pilot.press("escape")


async def test_a_click_goes_to_a_view_and_two_open_a_task(place: Path) -> None:
    async with watching(place) as pilot:
        await pilot.click("#tabs", offset=(10, 0))
        assert monitor(pilot).tab == "tasks"
        await pilot.click("#grid", offset=(3, 0))
        assert pilot.app.query_one("#grid", TaskGrid).cursor == 3
        await pilot.click("#grid", offset=(3, 0))
        await pilot.pause()
        assert isinstance(pilot.app.screen, Detail)


async def test_keys_of_the_settings_take_the_place_of_the_own(place: Path) -> None:
    async with watching(place, keymap={"tab-events": "e", "help": "f2"}) as pilot:
        await pilot.press("7")
        assert monitor(pilot).tab == "run"
        await pilot.press("e")
        assert monitor(pilot).tab == "events"
        await pilot.press("f2")
        assert "f2" in screen_of(pilot)


def test_a_key_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="no key is called `quti`"):
        keys.keymap({"quti": "z"})


def test_no_two_keys_of_a_place_are_the_same() -> None:
    for where, bindings in keys.groups().items():
        pressed = [key for one in bindings for key in one.key.split(",")]
        assert len(pressed) == len(set(pressed)), where
        assert len({one.id for one in bindings}) == len(bindings), where


async def test_the_help_has_a_line_for_each_key_on_the_narrowest_screen(place: Path) -> None:
    async with watching(place, (80, 24)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        text = pilot.app.screen.query_one(LongText)
        wanted = sum(1 + len(group) + 1 for group in keys.groups().values()) + 1
        assert text.virtual_size.height == wanted, [line for line, _ in text._lines]


async def test_the_palette_names_keys_as_they_stand_on_a_keyboard_and_says_what_they_do(place: Path) -> None:
    async with watching(place, keymap={"burst": "question_mark,B"}) as pilot:
        told = {one.title: one.help for one in pilot.app.get_system_commands(pilot.app.screen)}
        assert told["Filter"] == "only rows that have a text, key: /"
        assert told["Burst"] == "plan it, see the price, then agree, key: ? B"
        assert {"Pause", "Change", "Cancel", "Retry", "Answer", "Theme: light", "Workers"} <= told.keys()


def test_an_editor_that_is_not_there_is_a_sentence_and_no_error_that_would_keep_the_screen() -> None:
    assert edited(["no-such-editor-anywhere", "file"]).startswith("no-such-editor-anywhere can't be started: No such")
    assert edited(["false"]) == "false ended with status 1"
    assert edited(["true"]) == ""


def test_prompt_and_answer_are_a_file_and_what_was_never_sent_has_no_prompt() -> None:
    part = {"role": "user", "content": "Sort this."}
    assert written({"prompt": [part], "output": {"a": 1}}, None) == 'user:\nSort this.\n\nanswer:\n{\n  "a": 1\n}\n'
    assert written({"output": "fine"}, None) == "answer:\nfine\n"
