"""A node puts what searches find in a reranker's order where one is named, and answers nothing without it then."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gx.core import event as e
from gx.core.errors import GxError, ModelError, UsageError
from gx.core.memory import Draft, Found, Query, Source, Written
from gx.node.client import Started
from gx.node.memoryroutes import Remember, Search
from gx.node.runmemory import RunMemory
from gx.run.history.story import task_story
from gx.settings import Settings
from tests.node.served import Served, records, serve
from tests.tiny_bert import write_tiny_bert
from tests.tiny_reranker import write_counting_reranker

FACTS = ["ferry boat", "boat zz zz", "boat z", "no ship"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reranker, one that lost its head, and an embedding model."""
    folder = tmp_path_factory.mktemp("rerank")
    write_counting_reranker(folder / "z.gguf")
    write_counting_reranker(folder / "headless.gguf", has_head=False)
    write_tiny_bert(folder / "bert.gguf")
    return folder


@pytest.fixture(scope="module")
def node(place: Path) -> Iterator[Served]:
    settings = Settings(threads=1, slots=2, memory_model="none", models_dir=place / "models")
    with serve(place / ".gx", settings) as served:
        drafts = (*(Draft(body=body) for body in FACTS), Draft(body="a boat", source=Source(heading="Zz zz zz")))
        served.client.ask("POST", "/v1/memory", Remember(memories=drafts), kind=Written, timeout_s=60)
        yield served


RECIPE = """\
version: 1
name: asked
models: {m: ./tiny.gguf}
agents: {a: {model: m, sampling: {max_tokens: 4}}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}", memory: {rerank: RERANK}}
"""


def search(node: Served, reranker: str | None, text: str = "ferry boat", **more: Any) -> Found:
    asked = Search(query=Query(text=text, **more), reranker=reranker)
    found: Found = node.client.ask("POST", "/v1/memory/search", asked, kind=Found, timeout_s=60)
    return found


def test_what_is_found_comes_in_the_rerankers_order_with_its_scores_and_the_place_before(
    node: Served, place: Path
) -> None:
    plain = search(node, None)
    assert plain.hits[0].memory.body == "ferry boat" and plain.reranker == "" and plain.hits[0].relevance is None
    found = search(node, str(place / "z.gguf"))
    assert [hit.memory.body for hit in found.hits[:3]] == ["a boat", "boat zz zz", "boat z"]
    assert found.reranker == hashlib.sha256((place / "z.gguf").read_bytes()).hexdigest()
    assert {hit.memory.uid for hit in found.hits} == {hit.memory.uid for hit in plain.hits}
    relevances = [hit.relevance for hit in found.hits if hit.relevance is not None]
    assert len(relevances) == len(found.hits) and relevances == sorted(relevances, reverse=True)
    was = {hit.memory.uid: (number, hit.score) for number, hit in enumerate(plain.hits, 1)}
    assert all((hit.fused_rank, hit.score) == was[hit.memory.uid] for hit in found.hits)
    assert search(node, str(place / "z.gguf")) == found


def test_more_is_read_than_is_asked_for_and_min_score_says_what_is_read(node: Served, place: Path) -> None:
    z = str(place / "z.gguf")
    assert search(node, None, k=2).hits[0].memory.body == "ferry boat"
    assert [hit.memory.body for hit in search(node, z, k=2).hits] == ["a boat", "boat zz zz"]
    best = search(node, z, k=2, min_score=1.0)
    assert [(hit.memory.body, hit.score) for hit in best.hits] == [("ferry boat", 1.0)]


def test_a_passage_that_is_longer_than_the_model_takes_is_read_to_its_end(node: Served, place: Path) -> None:
    long = "lighthouse " * 80 + "zzzz " * 20
    drafts = (Draft(body=long), Draft(body="lighthouse z"))
    uids = node.client.ask("POST", "/v1/memory", Remember(memories=drafts), kind=Written, timeout_s=60).uids
    found = search(node, str(place / "z.gguf"), "lighthouse")
    assert [hit.memory.uid for hit in found.hits] == list(uids)


@pytest.mark.parametrize(
    "reranker, more, told",
    [
        ("none.gguf", {}, "there is no model file|is not on this machine"),
        ("no-such-model", {}, "there is no model `no-such-model`"),
        ("bert.gguf", {}, "is no reranker: .* is an embedding model"),
        ("headless.gguf", {}, "headless.gguf` says that it is a reranker, and .* no weights that make a score"),
        ("z.gguf", {"text": "ferry boat " * 60}, "can't be reranked .* the question is too long"),
    ],
)
def test_where_a_reranker_is_named_nothing_is_answered_without_it(
    node: Served, place: Path, reranker: str, more: dict[str, Any], told: str
) -> None:
    source = str(place / reranker) if reranker.endswith(".gguf") else reranker
    with pytest.raises(ModelError, match=told) as caught:
        search(node, source, **more)
    assert caught.value.hint


def test_a_search_that_must_be_reranked_needs_one_and_one_that_must_not_has_none(node: Served, place: Path) -> None:
    for source in (None, "none"):
        with pytest.raises(UsageError, match="no reranker is set"):
            search(node, source, rerank=True)
    assert search(node, str(place / "z.gguf"), rerank=False) == search(node, None)


def test_a_runs_searches_have_the_reranker_of_its_settings(node: Served, place: Path) -> None:
    async def found(source: str, **more: Any) -> str:
        query = Query(text="ferry boat", k=1, **more)
        return (await RunMemory(node.node.memories, source).search(query)).hits[0].memory.body

    z = str(place / "z.gguf")
    asked = [
        node.in_loop(lambda: found(z)),
        node.in_loop(lambda: found("none")),
        node.in_loop(lambda: found(z, rerank=False)),
    ]
    assert asked == ["a boat", "ferry boat", "ferry boat"]


def test_a_run_that_must_be_reranked_is_refused_before_it_begins(node: Served, place: Path) -> None:
    (place / "tiny.gguf").write_bytes(b"GGUF")
    text = RECIPE.replace("RERANK", "true")
    for source, told in (("none", "no reranker is set"), (str(place / "bert.gguf"), "is no reranker")):
        asked = node.asked(text)
        settings = Settings(models_dir=place / "models", memory_reranker=source)
        with pytest.raises(GxError, match=told):
            node.client.ask("POST", "/v1/runs", msgspec.structs.replace(asked, settings=settings), kind=Started)
    assert not node.inside(node.node.runs.live)


def test_a_runs_record_says_what_was_found_in_which_order_and_by_which_reranker(
    node: Served, place: Path, long: Path
) -> None:
    (place / "tiny.gguf").unlink(missing_ok=True)
    (place / "tiny.gguf").symlink_to(long)
    text = RECIPE.replace("RERANK", "true, k: 1, query: ferry boat")
    settings = Settings(models_dir=place / "models", memory_reranker=str(place / "z.gguf"))
    asked = msgspec.structs.replace(node.asked(text, 1), settings=settings)
    run = node.client.ask("POST", "/v1/runs", asked, kind=Started, timeout_s=60).run
    assert len(records(node.watch(run))) == 1
    (prepared,) = node.bodies(run, e.TaskPrepared)
    assert prepared.reranker == hashlib.sha256((place / "z.gguf").read_bytes()).hexdigest()
    (one,) = prepared.found or ()
    best = search(node, str(place / "z.gguf"), k=1).hits[0]
    assert (one.uid, one.relevance, one.fused_rank) == (best.memory.uid, best.relevance, best.fused_rank)
    shown = task_story(node.node.log, prepared.task)
    assert shown["reranker"] == prepared.reranker and best.memory.body in shown["prompt"][-1]["content"]
    assert [(m["id"], m["fused_rank"]) for m in shown["memories"]] == [("m1", best.fused_rank)]
    sql = "SELECT rank, relevance, fused_rank FROM recalled WHERE run = ?"
    assert node.node.log.file.ask(sql, [run]) == [(1, best.relevance, best.fused_rank)]
