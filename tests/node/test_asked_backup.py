"""A node makes a backup of its own log while runs go on, and says whether both are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core.errors import UsageError, WorkspaceError
from gx.core.event import TaskSucceeded
from gx.node import reader
from gx.node.start import send_home
from gx.node.workspace import Workspace
from gx.run.log import EventLog
from gx.run.log.verify import verify
from tests.node.served import ENDLESS, Served, recipe


def test_a_backup_is_made_while_a_run_goes_on(served: Served, tmp_path: Path) -> None:
    started = served.submit(recipe("backed", tokens=400), rows=400, is_detached=True)
    served.until(lambda: served.bodies(started.run, TaskSucceeded))
    done = [reader.ask(Workspace(served.folder), lambda one: one.backup(tmp_path / "copy-0"))]
    served.until(lambda: served.node.log.last_seq > done[0].seq)
    done.append(reader.ask(Workspace(served.folder), lambda one: one.backup(tmp_path / "copy-1")))
    assert started.run in served.inside(served.node.runs.live)
    assert done[0].seq < done[1].seq
    for one in done:
        with EventLog.open(Path(one.path), read_only=True) as copy:
            assert verify(copy).is_whole
            assert (copy.last_seq, copy.last_hash.hex()) == (one.seq, one.hash)
            assert copy.is_unfinished(started.run)
    assert reader.ask(Workspace(served.folder), lambda one: one.verify()).is_whole
    served.tell(started.run, "cancel")


def test_a_backup_needs_a_place_of_its_own(served: Served, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is there already"):
        reader.ask(Workspace(served.folder), lambda one: one.backup(served.folder))
    with pytest.raises(UsageError, match="expected an absolute path"):
        served.client.ask("POST", "/v1/log/backup", {"path": "copy"})


def test_a_node_with_a_live_run_is_not_sent_home(served: Served) -> None:
    started = served.submit(recipe("live", tokens=ENDLESS), rows=2, is_detached=True)
    with pytest.raises(WorkspaceError, match=f"{started.run} is live"):
        send_home(served.folder)
