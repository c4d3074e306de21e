"""A report is the same whoever answers: the node while it is up, the file once it is gone."""

from __future__ import annotations

from pathlib import Path

from gx.cli.asking import asked
from gx.node.workspace import Workspace
from gx.run.history.report.asking import report_of
from tests.node.served import recipe, serve


def test_a_report_through_the_node_is_that_of_the_file(tmp_path: Path, long: Path) -> None:
    (tmp_path / "tiny.gguf").symlink_to(long)
    place = Workspace(tmp_path / "ws")
    with serve(place.folder) as served:
        run = served.submit(recipe("told")).run
        served.watch(run)
        through = asked(place, lambda ask: report_of(ask, run))
    assert through.counts.tasks == through.counts.succeeded == 3 and through.latency is not None
    assert [row.id for row in through.rows] == ["r0", "r1", "r2"]
    alone = asked(place, lambda ask: report_of(ask, run))
    same = [name for name in through.__struct_fields__ if name not in ("seq", "standing")]
    assert [getattr(alone, name) for name in same] == [getattr(through, name) for name in same]
