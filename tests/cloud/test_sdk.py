"""Modal's SDK where it can't be loaded, and a rented worker where something goes wrong that nobody foresaw."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from cloud.sdk import loading
from gx import wiring
from gx.core.errors import CloudError
from gx.settings import Settings
from tests.integration.project import SLOW, Project
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.anyio
BROKEN = "this is no [TOML\n"
MAY_RENT = SLOW.replace("steps:", "burst: {mode: force}\nbudget: {usd: 5}\nsteps:")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path).write(MAY_RENT, write_tiny_model(tmp_path / "tiny.gguf", context=512), rows=40)
    (tmp_path / "modal.toml").write_text(BROKEN)
    made.env["MODAL_CONFIG_PATH"] = str(tmp_path / "modal.toml")
    yield made
    made.close()


def test_a_configuration_that_can_t_be_read_is_named_by_each_verb_that_needs_it(project: Project) -> None:
    for words in (("cloud", "status"), ("burst", "--plan", "recipe.yaml", "-i", "rows.jsonl")):
        done = project.run(*words)
        assert done.status == 1 and "modal.toml" in done.err and "can't be loaded" in done.err, done.err


def test_a_run_that_may_rent_goes_on_here_and_says_why(project: Project) -> None:
    done = project.run("run", "recipe.yaml", "-i", "rows.jsonl")
    assert (done.status, len(done.records)) == (0, 40), done.err
    assert project.ask("SELECT data->>'$.code' FROM events WHERE type = 'rent.refused'") == [("cloud.sdk",)]


def test_without_the_sdk_the_extra_is_named() -> None:
    with pytest.raises(CloudError) as refused, loading():
        raise ModuleNotFoundError("No module named 'modal'")
    assert refused.value.code == "cloud.sdk" and "'.[cloud]'" in refused.value.hint


async def test_whatever_goes_wrong_in_a_rented_worker_is_an_error_of_the_cloud_and_ends_no_node(tmp_path: Path) -> None:
    class Broken:
        @asynccontextmanager
        async def rent(self, run: str, gpu: str) -> AsyncIterator[None]:
            async with anyio.create_task_group() as group:
                group.start_soon(self._fail)
                yield
                await anyio.sleep_forever()

        async def _fail(self) -> None:
            raise ZeroDivisionError("nobody foresaw it")

    wanted = wiring.Rented(models=(), timeout_s=None, is_rehearsal=False)
    landlord = wiring.landlord(Settings(), tmp_path, epoch=1, runs=lambda run: wanted)
    landlord._found = Broken()  # type: ignore[attr-defined]
    with pytest.raises(CloudError, match="ZeroDivisionError: nobody foresaw it"):
        async with landlord.rent("r", "L4"):
            await anyio.sleep_forever()
