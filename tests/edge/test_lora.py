"""A model with an adapter is another model, over the same file."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.engine.engine import Completion, Engine, Request
from edge.engine.llama import Context, Encoder, Model
from edge.engine.llama.library import llama_cpp
from edge.engine.loaded import Place
from edge.engine.memory import total
from gx.core.errors import ModelError
from gx.core.message import Message, Sampling
from tests.tiny_lora import write_tiny_lora
from tests.tiny_model import write_tiny_model


@pytest.mark.parametrize("kind", ["context", "encoder"])
def test_what_adapters_can_not_be_put_on_is_freed(
    kind: str, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[object] = []
    free = llama_cpp.llama_free

    def counted(context: object) -> None:
        freed.append(context)
        free(context)

    adapter = str(write_tiny_lora(tmp_path / "lora.gguf"))
    model = Model("m", tiny, [(adapter, 1.0)])
    monkeypatch.setattr(llama_cpp, "llama_free", counted)
    monkeypatch.setattr(llama_cpp, "llama_set_adapters_lora", lambda *_: -1)
    try:
        with pytest.raises(ModelError, match="can't be used together"):
            if kind == "context":
                Context(model, slots=1, slot_tokens=256, threads=1)
            else:
                Encoder(model, threads=1, batch_tokens=64)
        assert len(freed) == 1
    finally:
        model.close()


def test_what_embeds_texts_has_the_adapters_too(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted: list[int] = []
    put = llama_cpp.llama_set_adapters_lora

    def counted(context: object, pointers: object, n: int, strengths: object) -> int:
        adapted.append(n)
        return int(put(context, pointers, n, strengths))

    monkeypatch.setattr(llama_cpp, "llama_set_adapters_lora", counted)
    model = Model("m", tiny, [(str(write_tiny_lora(tmp_path / "lora.gguf")), 1.0)])
    Encoder(model, threads=1, batch_tokens=64).close()
    model.close()
    assert adapted == [1]


def test_models_of_one_file_have_its_weights_in_common(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("llama_model_load_from_file", "llama_adapter_lora_free", "llama_model_free"):
        monkeypatch.setattr(llama_cpp, name, counting(name, calls))
    adapter = str(write_tiny_lora(tmp_path / "lora.gguf"))
    path = str(shutil.copy(tiny, tmp_path / "own.gguf"))  # which nobody else has loaded
    plain, adapted = Model("plain", path), Model("adapted", path, [(adapter, 1.0)])
    context = Context(adapted, slots=1, slot_tokens=256, threads=1)
    assert calls == ["llama_model_load_from_file"]
    plain.close()
    assert plain.is_closed and not adapted.is_closed and adapted.encode((Message(role="user", content="Hi"),)).size
    with pytest.raises(ModelError, match=r"misfit\.gguf"):
        Model("misfit", path, [(str(write_tiny_lora(tmp_path / "misfit.gguf", width=96)), 1.0)])
    assert not adapted.is_closed
    context.close()
    adapted.close()
    adapted.close()
    assert calls[1:] == ["llama_adapter_lora_free", "llama_model_free"]


def test_a_file_that_was_replaced_is_loaded_though_the_old_one_is_in_use(tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    shutil.copyfile(tiny, path)
    before = Model("before", str(path))
    write_tiny_model(tmp_path / "new.gguf", seed=5).replace(path)
    after = Model("after", str(path))
    assert before._pointer != after._pointer
    before.close()
    after.close()


def test_as_many_as_load_a_file_at_once_load_it_once(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    path = str(shutil.copy(tiny, tmp_path / "own.gguf"))
    monkeypatch.setattr(
        llama_cpp, "llama_model_load_from_file", counting("llama_model_load_from_file", calls, slow_s=0.2)
    )
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda n: Model(str(n), path), range(4)))
    for model in models:
        model.close()
    assert len(calls) == 1


def test_a_set_of_adapters_that_makes_way_for_another_leaves_it_the_weights(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    path = str(shutil.copy(tiny, tmp_path / "own.gguf"))
    adapters = [str(write_tiny_lora(tmp_path / f"{number}.gguf")) for number in range(2)]
    for name in ("llama_model_load_from_file", "llama_model_free"):
        monkeypatch.setattr(llama_cpp, name, counting(name, calls))
    places = [Place(path=path, context_tokens=256, adapters=((adapter, 1.0),)) for adapter in adapters]
    budget = total([places[0].claim(256, 0)])  # for one of them
    engine = Engine(threads=1, slots=1, cache_bytes=0)
    engine._shelf._budget.bytes, engine._shelf._budget._is_given = budget, True
    for digest, place in zip("ab", places, strict=True):
        engine._shelf.register(digest, place)
    for _ in range(2):
        for digest in "ab":
            assert written(engine, digest)
            assert engine._shelf.digests() == [digest]
    assert calls == ["llama_model_load_from_file"]
    engine.close()
    assert calls == ["llama_model_load_from_file", "llama_model_free"]


def counting(name: str, calls: list[str], *, slow_s: float = 0.0) -> Callable[..., object]:
    """A call of llama.cpp that is noted down."""
    call = getattr(llama_cpp, name)

    def counted(*arguments: object) -> object:
        calls.append(name)
        time.sleep(slow_s)
        return call(*arguments)

    return counted


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
