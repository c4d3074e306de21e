"""What is known of a model is forgotten with the bench that said it, and with the place where it was."""

from __future__ import annotations

import msgspec
import pytest

from edge.registered import Registered
from gx.core.errors import ModelError
from gx.core.message import ModelCard
from gx.core.protocol import Load

pytestmark = pytest.mark.anyio


def known() -> Registered:
    """A model that was introduced, and loaded."""
    models = Registered()
    models.add(Load(request=0, digest="m", path="/m.gguf"))
    models.introduced("m")
    models.described(CARD)
    return models


CARD = ModelCard(digest="m", path="/m.gguf", context_tokens=8, warnings=("slow",))


async def test_the_same_model_once_more_changes_nothing_and_one_that_is_elsewhere_is_unknown_to_the_bench() -> None:
    models = known()
    models.add(Load(request=0, digest="m", path="/m.gguf"))
    assert models.is_introduced("m") and await models.warnings("m", build="") == (("slow",), True)
    models.add(Load(request=0, digest="m", path="/elsewhere.gguf"))
    assert not models.is_introduced("m") and await models.warnings("m", build="") == ((), False)
    assert models.place("m").path == "/elsewhere.gguf"


async def test_another_bench_knows_no_model_and_all_stay_registered() -> None:
    models = known()
    models.forget_bench()
    assert not models.is_introduced("m") and await models.warnings("m", build="") == ((), False)
    assert models.place("m").path == "/m.gguf"


def test_there_are_as_many_slots_as_the_models_in_use_have_room_for_together() -> None:
    models = Registered()
    assert models.slots(32) == 32
    for digest, slots in (("embeds", 0), ("large", 4), ("small", 12), ("tiny", 99)):
        models.add(Load(request=0, digest=digest, path=f"/{digest}.gguf"))
        models.introduced(digest)
        if digest != "tiny":
            models.described(msgspec.structs.replace(CARD, digest=digest, slots=slots))
    assert models.slots(32) == 12, "of whichever comes next"
    assert [models.slots(32, use) for use in ({"large"}, {"large", "small"}, {"large", "embeds", "tiny"})] == [4, 16, 4]
    models.described(msgspec.structs.replace(CARD, digest="tiny", slots=99))
    assert models.slots(32, {"large", "tiny"}) == 32
    models.forget_bench()
    assert models.slots(32, {"large"}) == 32


async def test_a_model_that_nobody_registered_is_an_error() -> None:
    with pytest.raises(ModelError, match="no model with the digest unheard is registered"):
        await known().warnings("unheard", build="")
