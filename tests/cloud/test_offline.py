"""Whoever is offline rents nothing: by the node's own settings, and by those of whoever asked for a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gx import wiring
from gx.core import event as e
from gx.core.errors import CloudError, GxError
from gx.core.terms import Terms
from gx.node.bounds import check_offline
from gx.node.client import Started
from gx.run.rent.refusals import FOR_GOOD
from gx.settings import Settings
from tests.node.served import ROWS, Served, ended, serve
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.anyio
FORCED = Terms(mode="force", usd=5.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node that is not offline itself."""
    folder = tmp_path_factory.mktemp("online")
    write_tiny_model(folder / "tiny.gguf", context=512)
    with serve(folder / "ws") as served:
        yield served
        served.end_runs()


@pytest.mark.parametrize(("node", "asker"), [(True, False), (False, True)])
async def test_whoever_is_offline_rents_nothing_and_that_is_for_good(tmp_path: Path, node: bool, asker: bool) -> None:
    wanted = wiring.Rented(models=(), timeout_s=None, is_rehearsal=False, is_offline=asker)
    landlord = wiring.landlord(Settings(offline=node), tmp_path, epoch=1, runs=lambda run: wanted)
    with pytest.raises(CloudError) as refused:
        landlord.offers("r", 100.0)
    assert refused.value.code == "cloud.offline" and refused.value.code in FOR_GOOD
    with pytest.raises(CloudError, match="GX_OFFLINE"):
        async with landlord.rent("r", "L4"):
            raise AssertionError


def test_a_rehearsal_is_on_this_machine_and_allowed_offline(tmp_path: Path) -> None:
    wanted = wiring.Rented(models=(), timeout_s=None, is_rehearsal=True, is_offline=True)
    landlord = wiring.landlord(Settings(offline=True), tmp_path, epoch=1, runs=lambda run: wanted)
    assert {offer.gpu for offer in landlord.offers("r", 100.0)} >= {"L4"}
    check_offline(msgspec.structs.replace(FORCED, is_rehearsal=True), is_offline=True)


def test_a_run_whose_recipe_may_rent_goes_on_here_where_its_asker_is_offline(served: Served) -> None:
    text = ROWS.replace("NAME", "recipe-rents").replace("TOKENS", "200")
    text = text.replace("steps:", "burst: {mode: force}\nbudget: {usd: 5}\nsteps:")
    asked = served.asked(text, rows=1000)
    offline = msgspec.structs.replace(asked, settings=msgspec.structs.replace(asked.settings, offline=True))
    started = served.client.ask("POST", "/v1/runs", offline, kind=Started, timeout_s=60)
    with served.watched(started.run):
        served.until(lambda: served.bodies(started.run, e.RentRefused))
        before = len(served.bodies(started.run, e.TaskSucceeded))
        served.until(lambda: len(served.bodies(started.run, e.TaskSucceeded)) > before)
    served.post(f"/v1/runs/{started.run}/stop", {})
    assert ended(served, started.run).run.succeeded > before
    assert [body.code for body in served.bodies(started.run, e.RentRefused)] == ["cloud.offline"]
    assert not served.bodies(started.run, e.ContainerReserved) and not served.bodies(started.run, e.Egress)


def test_containers_that_are_asked_for_by_who_is_offline_are_refused_before_anything_is_written(served: Served) -> None:
    asked = served.asked(ROWS.replace("NAME", "asked-for").replace("TOKENS", "4"), burst=FORCED)
    offline = msgspec.structs.replace(asked, settings=msgspec.structs.replace(asked.settings, offline=True))
    with pytest.raises(GxError) as refused:
        served.client.ask("POST", "/v1/runs", offline, kind=Started, timeout_s=60)
    assert refused.value.code == "cloud.offline" and "--rehearse" in refused.value.hint
    assert not served.inside(served.node.runs.live)
