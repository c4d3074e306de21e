"""Who rents out looks first at what stands there: no container starts of another gx's app, or without its models."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import anyio
import modal
import pytest

from cloud import deploy, version
from cloud.cost import RATES, input_s, sized
from cloud.landlord import ModalLandlord, Needs
from cloud.message import Weights
from cloud.names import VOLUME
from cloud.rented import Account
from gx import wiring
from gx.core.errors import CloudError
from gx.run.rent.refusals import FOR_GOOD
from gx.settings import Settings
from tests.cloud.test_rented import account, digest, furnish
from tests.cloud.world import World, world
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", context=512)


@pytest.fixture
def stand(tmp_path: Path, tiny: Path) -> Iterator[World]:
    with world(tmp_path / "plane") as made:
        anyio.run(furnish, made, tiny)
        yield made


def landlord(made: World, folder: Path, *files: Path) -> ModalLandlord:
    hashes = {digest(file): file for file in files}
    weights = tuple(Weights(digest=sha256, sha256=sha256) for sha256 in hashes)
    needs = Needs(weights=weights, files=hashes, timeout_s=60.0)
    return ModalLandlord(driver="d", needs=lambda run: needs, folder=folder, account=account(made))


async def refusal(made: World, folder: Path, *files: Path) -> CloudError:
    with pytest.raises(CloudError) as refused:
        async with landlord(made, folder, *files).rent("r", "L4"):
            raise AssertionError
    assert refused.value.code in FOR_GOOD and "gx cloud deploy" in refused.value.hint
    return refused.value


async def test_what_this_gx_deployed_is_rented_and_what_another_one_did_is_not(
    stand: World, tmp_path: Path, tiny: Path
) -> None:
    async with landlord(stand, tmp_path, tiny).rent("r", "L4") as worker:
        assert worker.capacity().slots == 0, "nothing starts before it is told to"
    other = write_tiny_model(tmp_path / "other.gguf", context=256)
    refused = await refusal(stand, tmp_path, tiny, other)
    assert refused.code == "cloud.model" and "other.gguf" in refused.message and "tiny" not in refused.message

    mark = b'{"gx": "0.0.1", "code": "0123456789ab"}'
    volume = modal.Volume.from_name(VOLUME, client=stand.client)
    async with volume.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(mark), f"/{deploy.MARK}")
    refused = await refusal(stand, tmp_path, tiny)
    assert (
        refused.code == "cloud.stale" and "0123456789ab" in refused.message and version.here().code in refused.message
    )

    await deploy.stop(account(stand))
    assert (await refusal(stand, tmp_path, tiny)).code == "cloud.missing"


def test_a_gx_that_is_changed_on_the_disk_beside_a_node_is_not_the_one_that_it_has_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = wiring.Rented(models=(), timeout_s=None, is_rehearsal=False)
    version.here.cache_clear()
    landlord = wiring.landlord(Settings(), tmp_path, epoch=1, runs=lambda run: wanted)
    with monkeypatch.context() as changed:
        changed.setattr(version, "root", lambda: tmp_path)
        of_the_node = version.here().code
        with pytest.raises(CloudError, match="other code of gx stands on the disk") as caught:
            landlord.offers("r", 1.0)  # what it would load now is the changed one's
        assert caught.value.code == "cloud.stale"
        version.here.cache_clear()
        assert version.here().code != of_the_node, "another process would find the changed one"
    version.here.cache_clear()
    assert version.here().code == of_the_node


def test_what_could_not_be_read_as_the_process_began_counts_as_changed() -> None:
    version.here.cache_clear()
    assert version.is_changed(), "nobody knows what was loaded"
    version.here()
    assert not version.is_changed()


async def test_what_is_offered_is_priced_with_the_memory_that_the_models_need(tmp_path: Path) -> None:
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    for file, gib in ((small, 1), (large, 40)):
        with file.open("wb") as empty:
            empty.truncate(gib << 30)
    offered = []
    for file in (small, large):
        needs = Needs(weights=(), files={"ab" * 32: file}, timeout_s=60.0)
        landlord = ModalLandlord(driver="d", needs=lambda run: needs, folder=tmp_path, account=Account())  # noqa: B023
        offered.append({one.gpu: one for one in landlord.offers("r", 100.0)}["L4"])
    assert offered[0].usd_per_s == pytest.approx(RATES["L4"].usd_per_s)
    assert offered[1].usd_per_s == pytest.approx(sized(RATES, 40 << 30)["L4"].usd_per_s)
    assert offered[1].reserve_usd / offered[0].reserve_usd == pytest.approx(offered[1].usd_per_s / offered[0].usd_per_s)


def test_what_is_rented_has_time_for_a_turn_that_waits_for_another_one(tmp_path: Path) -> None:
    wanted = wiring.Rented(models=(), timeout_s=120.0, is_rehearsal=True)
    landlord = wiring.landlord(Settings(), tmp_path, epoch=1, runs=lambda run: wanted)
    assert {offer.timeout_s for offer in landlord.offers("r", 100.0)} == {input_s(120.0)}
