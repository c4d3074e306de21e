"""What the log says of the memory: the same whenever it is read, whatever was archived, without what was forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.cutting import halves
from gx.core.errors import ModelError
from gx.core.memory import Change, Chosen, Draft, Drop, Mark, Put, Source
from gx.core.message import Label
from gx.run.contents import blob_of
from gx.run.log import EventLog
from gx.run.log.compact import compact
from gx.run.log.erase import erase
from gx.run.log.erase_forgotten import erase_forgotten
from gx.run.log.verify import verify
from gx.run.memory.embedding import embed_all
from gx.run.memory.remembering import MOST_AT_ONCE, forgotten, hash_at, replayed, written

pytestmark = pytest.mark.anyio


def write(log: EventLog, *drafts: Draft) -> list[str]:
    events, blobs = written(drafts, by="ada", now=5.0)
    log.append_sync(events, blobs, source="test")
    return [one.uid for event in events for one in event.memories]


def forget(log: EventLog, *uids: str) -> None:
    log.append_sync(forgotten(uids, by="ada"), source="test")


def told(log: EventLog, after: int = -1) -> list[Change]:
    return [change for changes, _ in replayed(log, after=after) for change in changes]


def bodies(log: EventLog) -> list[str]:
    return [change.memory.body for change in told(log) if isinstance(change, Put)]


def run(log: EventLog, name: str, answer: str) -> None:
    """A run that ended, with one answer."""
    made = blob_of(answer.encode())
    log.append_sync(
        [
            e.RunCreated(run=name, name=name, fingerprint=name, recipe="", params="", started_at=0.0),
            e.TaskQueued(run=name, task=f"t-{name}", step="s", path="0", index=0, id="0"),
            e.TaskSucceeded(run=name, task=f"t-{name}", attempt=1, key=name, output=made.digest),
            e.RunFinished(run=name, succeeded=1, failed=0),
        ],
        [made],
        source="test",
    )


def test_what_was_written_is_read_with_all_that_it_said(tmp_path: Path) -> None:
    source = Source(by="ada", path="/a", ordinal=1, heading="H", page=2, run="r", task="t")
    with EventLog.open(tmp_path) as log:
        (uid,) = write(log, Draft(body="b" * 50_000, namespace="n", source=source, label=Label.shared, at=7.5))
        ((changes, mark),) = replayed(log)
        (put,) = changes
        assert isinstance(put, Put)
        one = put.memory
        assert (one.uid, one.namespace, one.body, one.source) == (uid, "n", "b" * 50_000, source)
        assert (one.at, one.label, one.seq) == (7.5, Label.shared, mark.seq)
        assert mark == Mark(log.last_seq, log.last_hash) and hash_at(log, mark.seq) == mark.hash
        assert hash_at(log, 0) is None and told(log, after=mark.seq) == []


def test_many_are_several_events_and_equal_ones_are_one() -> None:
    events, blobs = written([Draft(body=f"{n % 200}") for n in range(400)], by="", now=1.0)
    assert [len(event.memories) for event in events] == [MOST_AT_ONCE] * 3 + [8] and len(blobs) == 200


def test_what_was_forgotten_is_not_brought_up_and_what_was_written_again_is(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        first, _ = write(log, Draft(body="one"), Draft(body="two"))
        forget(log, first)
        assert told(log)[-1] == Drop(first) and bodies(log) == ["two"]
        write(log, Draft(body="one"))
        assert bodies(log) == ["two", "one"]
        log.append_sync([e.MemoryModelled(name="m", model="ab", dimensions=3)], source="test")
        assert told(log)[-1] == Chosen("m", "ab", 3)


def test_only_what_nobody_needs_is_erased(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path)
    run(log, "r", "shared with a run")
    uids = write(log, *(Draft(body=b, source=Source(heading="H")) for b in ("gone", "kept", "shared with a run")))
    write(log, Draft(body="gone twice", namespace="a"), Draft(body="gone twice", namespace="b"))
    assert erase_forgotten(log) is None
    forget(log, uids[0], uids[2])
    report = erase_forgotten(log)
    assert report is not None and report.blobs == 1 and len(report.kept) == 1
    with EventLog.open(tmp_path) as log:
        assert bodies(log) == ["kept", "gone twice", "gone twice"]
        assert verify(log).is_whole and erase_forgotten(log) is None
        write(log, Draft(body="gone"))
        assert bodies(log)[-1] == "gone" and erase_forgotten(log) is None


def test_erasing_a_run_leaves_what_a_memory_says_and_tells_which(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path)
    run(log, "r", "an answer")
    (uid,) = write(log, Draft(body="an answer"))
    assert set(erase(log, "r").kept.values()) == {f"memory {uid}"}
    with EventLog.open(tmp_path) as log:
        assert bodies(log) == ["an answer"]
        forget(log, uid)
        report = erase_forgotten(log)  # the run was erased, and needs it no more
        assert report is not None and report.blobs == 1


def test_archiving_leaves_the_memory_whole(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path)
    (gone,) = write(log, Draft(body="gone"))
    for name in ("r1", "r2"):
        run(log, name, name)
        write(log, Draft(body=f"of {name}"))
    forget(log, gone)
    before = [(changes, mark) for changes, mark in replayed(log)]
    compact(log, ["r1", "r2"])
    with EventLog.open(tmp_path) as log:
        assert bodies(log) == ["of r1", "of r2"]
        assert [mark for _, mark in replayed(log)][-1] == before[-1][1]
        assert verify(log).is_whole
        rows = log.file.ask("SELECT body FROM memories ORDER BY seq")
        assert rows == [("of r1",), ("of r2",)]
        report = erase_forgotten(log)
        assert report is not None and report.blobs == 1
    with EventLog.open(tmp_path) as log:
        assert verify(log).is_whole and bodies(log) == ["of r1", "of r2"]


class ShortSighted:
    """Embeds texts of at most 20 characters: how many letters a and b they have."""

    async def embed(self, model: str, texts: list[str]) -> list[bytes]:
        from array import array

        if any(len(text) > 20 for text in texts):
            raise ModelError("too long", code="context")
        counts = [(text.count("a") + 1e-9, text.count("b")) for text in texts]
        norms = [(a * a + b * b) ** 0.5 for a, b in counts]
        return [array("f", (a / n, b / n)).tobytes() for (a, b), n in zip(counts, norms, strict=True)]


async def test_a_text_that_is_too_long_has_the_mean_of_its_parts() -> None:
    from array import array

    long = "a" * 40 + " " + "b" * 40
    vectors = [list(array("f", one)) for one in await embed_all(ShortSighted(), "m", ["aa", long, "bb"])]
    assert vectors[0] == pytest.approx([1, 0], abs=1e-6) and vectors[2] == pytest.approx([0, 1], abs=1e-6)
    assert vectors[1] == pytest.approx([0.5**0.5, 0.5**0.5], abs=0.1)
    assert await embed_all(ShortSighted(), "m", []) == []


@pytest.mark.parametrize("text", ["ab", "a b c d e f", "x" * 99, "one two three four", " " * 10])
def test_halves_lose_nothing_and_are_shorter(text: str) -> None:
    first, second = halves(text)
    assert first + second == text and 0 < len(first) < len(text)
