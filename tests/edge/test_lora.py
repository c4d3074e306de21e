"""A model with an adapter is another model, over the same file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge.engine.engine import Completion, Engine, Request
from gx.core.errors import ModelError
from gx.core.message import Message, Sampling
from tests.tiny_lora import write_tiny_lora


@pytest.fixture(scope="module")
def adapted(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("adapters")
    adapter = str(write_tiny_lora(folder / "lora.gguf"))
    engine = Engine(threads=1, slots=2)
    engine.register("plain", tiny, 256)
    engine.register("full", tiny, 256, ((adapter, 1.0),))
    engine.register("none", tiny, 256, ((adapter, 0.0),))
    engine.register("misfit", tiny, 256, ((str(write_tiny_lora(folder / "wide.gguf", width=96)), 1.0),))
    engine.register("no adapter", tiny, 256, ((tiny, 1.0),))
    engine.register("missing", tiny, 256, ((str(folder / "gone.gguf"), 1.0),))
    yield engine
    engine.close()


def written(engine: Engine, model: str) -> str:
    request = Request(
        model=model,
        messages=(Message(role="user", content="Say something."),),
        sampling=Sampling(max_tokens=24),
        ignores_end=True,
    )
    result = engine.submit(request).result(60)
    assert isinstance(result, Completion), result
    return result.text


def test_each_request_is_answered_with_its_own_model_s_adapter(adapted: Engine) -> None:
    plain, full = written(adapted, "plain"), written(adapted, "full")
    assert plain != full
    assert written(adapted, "none") == plain
    assert (written(adapted, "plain"), written(adapted, "full")) == (plain, full)


@pytest.mark.parametrize("model", ["misfit", "no adapter", "missing"])
def test_an_adapter_that_does_not_fit_is_named(adapted: Engine, model: str) -> None:
    with pytest.raises(ModelError, match="gguf"):
        adapted.describe(model)
    assert written(adapted, "plain")
