"""A damaged log is mended as far as its bytes allow, never without a copy, and what was lost is said."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gx.core.errors import LogError
from gx.core.event import NodeStopped
from gx.run.log import EventLog
from gx.run.log.head import HEAD_FILE
from gx.run.log.making import LOG_FILE, WAL_FILE
from gx.run.log.repair import WORK_FOLDER, Repair, are_entries, repair
from gx.run.log.verify import verify

WRITER = """
import os, sys
from pathlib import Path
from gx.core.event import NodeStopped
from gx.run.log import EventLog
log = EventLog.open(Path(sys.argv[1]))
for i in range(20):
    log.append_sync([NodeStopped(epoch=epoch) for epoch in range(50)], source="t")
    if i == 9:
        assert log.file.checkpoint()
os.kill(os.getpid(), 9)
"""
LAST = 1000
IN_MAIN = 500
AT = 1_700_000_000.0
COPIES = "damaged-20231114-221320"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """1,001 events, of which the last 500 are in the WAL."""
    subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)])
    return tmp_path


def mend(folder: Path, agrees: Callable[[Repair], bool] = lambda _: True) -> Repair:
    return repair(folder, agrees, now=lambda: AT)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def damage_entry(wal: Path, share: float) -> None:
    """Flip a byte in the middle of the entry of the WAL at that share of its length."""
    content = wal.read_bytes()
    place = next(end for end in range(8, 128) if are_entries(content[end:]))
    while (after := place + 16 + int.from_bytes(content[place : place + 8], "little")) < len(content) * share:
        place = after
    flip(wal, (place + 16 + after) // 2)


def goes_on(folder: Path) -> None:
    with EventLog.open(folder) as log:
        log.append_sync([NodeStopped(epoch=1)], source="test")
        assert verify(log).is_whole
    with EventLog.open(folder) as log:
        assert verify(log).is_whole


def test_a_flipped_byte_of_the_wal_costs_what_stands_after_it(killed: Path) -> None:
    damage_entry(killed / WAL_FILE, 3 / 4)
    before = bytes_of(killed)
    done = mend(killed)
    assert IN_MAIN < done.last_seq < LAST
    assert done.lost == LAST - done.last_seq
    assert done.problems == ()
    assert done.found[0].startswith(f"{WAL_FILE} is damaged at byte ")
    assert done.found[1] == f"the log ends at event {done.last_seq}, and event {LAST} was acknowledged"
    assert done.copies == str(killed / COPIES)
    assert bytes_of(killed / COPIES) == before
    goes_on(killed)


def test_a_truncated_wal_costs_what_was_cut_off(killed: Path) -> None:
    wal = killed / WAL_FILE
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    done = mend(killed)
    assert IN_MAIN < done.last_seq < LAST
    assert done.lost == LAST - done.last_seq
    goes_on(killed)


def test_a_missing_wal_costs_all_that_it_had(killed: Path) -> None:
    (killed / WAL_FILE).unlink()
    with pytest.raises(LogError, match="500 later ones were acknowledged"):
        EventLog.open(killed)
    done = mend(killed)
    assert (done.last_seq, done.lost) == (IN_MAIN, LAST - IN_MAIN)
    assert done.found[0] == f"{WAL_FILE} is missing"
    goes_on(killed)


@pytest.mark.parametrize("at", [0, 4, 8, 20, 28])
def test_a_damaged_beginning_of_the_wal_costs_nothing(killed: Path, at: int) -> None:
    flip(killed / WAL_FILE, at)
    done = mend(killed)  # some bytes don't matter to DuckDB
    assert (done.last_seq, done.lost, done.problems) == (LAST, 0, ())
    if at in (0, 4):
        assert done.mended[0] == f"they are given anew: events up to {LAST} are read, instead of {IN_MAIN}"
    goes_on(killed)


def test_a_beginning_and_an_entry_that_are_both_damaged_cost_what_stands_after_the_entry(killed: Path) -> None:
    damage_entry(killed / WAL_FILE, 1 / 2)
    flip(killed / WAL_FILE, 4)
    done = mend(killed)
    assert IN_MAIN < done.last_seq < LAST
    assert len(done.found) == 3
    goes_on(killed)


def test_a_wal_of_another_log_is_left_out(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    subprocess.run([sys.executable, "-c", WRITER.replace("range(50)", "range(7)"), str(other)])
    (killed / WAL_FILE).write_bytes((other / WAL_FILE).read_bytes())
    done = mend(killed)
    assert done.last_seq == IN_MAIN
    assert done.lost == LAST - IN_MAIN
    goes_on(killed)


@pytest.mark.parametrize(
    "content, found",
    [
        (b"", "log.head is missing, or can't be read"),
        (b"\0" * 128, "log.head is missing, or can't be read"),
        (None, "log.head is missing, or can't be read"),
        (b'{"seq": 9, "hash": "00"}', "log.head names another event 9 than the log has, whose chain of hashes decides"),
        (b'{"seq": 1000, "hash": "00"}', "log.head names another event 1000"),
    ],
)
def test_a_damaged_head_is_written_anew(killed: Path, content: bytes | None, found: str) -> None:
    if content is None:
        (killed / HEAD_FILE).unlink()
    else:
        (killed / HEAD_FILE).write_bytes(content)
    done = mend(killed)
    assert done.found[0].startswith(found)
    assert (done.last_seq, done.lost) == (LAST, 0)
    assert json.loads((killed / HEAD_FILE).read_bytes())["seq"] == LAST
    goes_on(killed)


def test_a_head_that_lags_is_brought_up(killed: Path) -> None:
    with EventLog.open(killed, read_only=True) as log:
        ((hash_,),) = log.file.ask("SELECT hash FROM events WHERE seq = 990")
    (killed / HEAD_FILE).write_text(json.dumps({"seq": 990, "hash": hash_.hex()}))
    done = mend(killed)
    assert done.found == ("log.head is 10 events behind, as after a kill",)
    assert json.loads((killed / HEAD_FILE).read_bytes())["seq"] == LAST


def test_a_whole_log_is_left_as_it_is(killed: Path) -> None:
    before = bytes_of(killed)
    done = mend(killed, lambda _: pytest.fail("nobody is asked"))
    assert (done.found, done.mended, done.problems, done.copies, done.lost) == ((), (), (), None, 0)
    assert bytes_of(killed) == before


def test_nothing_is_changed_if_nobody_agrees(killed: Path) -> None:
    (killed / WAL_FILE).unlink()
    before = bytes_of(killed)
    done = mend(killed, lambda planned: planned.lost == 0)
    assert (done.lost, done.copies) == (500, None)
    assert bytes_of(killed) == before
    assert not (killed / COPIES).exists() and not (killed / WORK_FOLDER).exists()


@pytest.mark.parametrize("at", [5, 4096 + 8])
def test_a_main_file_that_cannot_be_read_is_left_as_it_is(killed: Path, at: int) -> None:
    for place in (at, at + 8192):
        flip(killed / LOG_FILE, place)
    before = bytes_of(killed)
    with pytest.raises(LogError) as caught:
        mend(killed)
    assert "backup" in caught.value.hint
    assert WORK_FOLDER not in caught.value.message
    assert bytes_of(killed) == before


def test_a_missing_main_file_is_told(killed: Path) -> None:
    (killed / LOG_FILE).unlink()
    with pytest.raises(LogError, match=r"there is no log\.duckdb") as caught:
        mend(killed)
    assert "backup" in caught.value.hint


def test_a_repair_that_was_killed_halfway_can_be_done_again(killed: Path) -> None:
    """The mended file is in place, and the WAL of the damaged one beside it."""
    flip(killed / WAL_FILE, 4)
    wal, head = (killed / WAL_FILE).read_bytes(), (killed / HEAD_FILE).read_bytes()
    mend(killed)
    (killed / WAL_FILE).write_bytes(wal)
    (killed / HEAD_FILE).write_bytes(head)
    done = mend(killed)
    assert (done.last_seq, done.lost) == (LAST, 0)
    goes_on(killed)
