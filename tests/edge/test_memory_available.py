"""What may be taken is what both machine and container leave; what a model claims is the most that it comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.engine.llama import gpu_free_bytes, offloads
from edge.engine.memory import (
    Budget,
    Claim,
    available_bytes,
    check_host,
    claim_of,
    file_key,
    gpu_room,
    layers_that_fit,
    total,
)
from gx.core.errors import ModelError
from tests.tiny_bert import write_tiny_bert

MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n"


@pytest.mark.parametrize(
    ("most", "used", "expected"),
    [("max", "5", 20_000_000 * 1024), ("4000000000", "1000000500", 3_000_000_000), ("1000", "2000", 0)],
)
def test_the_tighter_limit_counts(tmp_path: Path, most: str, used: str, expected: int) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "memory.max").write_text(most + "\n")
    (tmp_path / "memory.current").write_text(used + "\n")
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 500\n")
    assert available_bytes(meminfo=tmp_path / "meminfo", cgroup=tmp_path) == expected


def test_a_system_that_says_nothing_counts_half_of_its_memory(tmp_path: Path) -> None:
    assert available_bytes(meminfo=tmp_path / "no", cgroup=tmp_path / "no") > 1 << 28


def test_this_machine_has_some() -> None:
    assert available_bytes() > 1 << 20


def claim(path: Path | str, *adapters: str, context_tokens: int = 256, cache_bytes: int = 0) -> Claim:
    return claim_of(
        str(path), adapters, context_tokens=context_tokens, text_tokens=(512, 2048), cache_bytes=cache_bytes
    )


def test_a_model_claims_its_files_and_its_caches_of_a_turn_at_least(tiny: str, packaged: str) -> None:
    size = Path(packaged).stat().st_size
    token_bytes = 30 * 3 * (64 + 64) * 2
    cache = 256 * token_bytes
    assert claim(packaged) == Claim(weights=size, cache=cache, turn=cache, layers=30, file=file_key(packaged))
    assert claim(packaged, cache_bytes=1 << 30).cache == 1 << 30
    assert claim(packaged, tiny).weights == size and claim(packaged, tiny).adapters == Path(tiny).stat().st_size
    assert claim(tiny, context_tokens=100_000).turn == claim(tiny, context_tokens=512).turn  # as it was trained


def test_what_embeds_texts_claims_no_cache_and_what_it_computes_at_once(tmp_path: Path) -> None:
    found = claim(write_tiny_bert(tmp_path / "bert.gguf"), cache_bytes=1 << 30)
    assert (found.cache, found.turn) == (0, 0)
    assert found.encoder >= 512 * 512 * 4 * 4  # each token's attention to each other one, of four heads


@pytest.mark.parametrize(
    ("room", "layers"), [(100, None), (99, 9), (50, 4), (9, 0), (0, 0), (-5, 0)], ids=lambda value: str(value)
)
def test_a_gpu_takes_as_many_layers_as_it_has_room_for(room: int, layers: int | None) -> None:
    assert layers_that_fit(Claim(weights=60, cache=40, layers=10), room) == layers


def test_a_model_that_fills_a_gpu_leaves_room_for_one_that_embeds() -> None:
    claim, room = Claim(weights=40 << 30, cache=2 << 30, turn=1 << 30, layers=80), 23 << 30
    layers = layers_that_fit(claim, room)
    assert layers is not None
    large = claim._replace(share=layers / (claim.layers + 1))
    budget = Budget(room, 0, is_gpu=True)
    assert room - budget.total([large]) >= 512 << 20 and budget.total([large]) > 0.9 * room
    assert budget.cache_for(Claim(weights=50 << 20, encoder=300 << 20, layers=6), [large]) == 0


def test_what_has_no_room_on_a_gpu_must_have_it_on_the_host() -> None:
    claim = Claim(weights=1 << 50, cache=1 << 20, turn=1 << 20, layers=80, share=0.25)
    with pytest.raises(ModelError, match=r"x doesn't fit into memory: it needs \d+.* GB beside the GPU's \(") as caught:
        check_host("x", claim)
    assert caught.value.code == "model.memory"
    check_host("x", claim._replace(share=1.0))


def test_some_of_a_gpus_memory_is_left_for_what_is_computed_there() -> None:
    assert gpu_room([]) is None
    assert gpu_room([24 << 30]) == 23 << 30
    assert gpu_room([1 << 30]) == 1 << 29
    assert gpu_room([24 << 30, 24 << 30]) == 46 << 30, "each of them computes"


def test_a_build_for_the_cpu_knows_no_gpu() -> None:
    assert offloads() or gpu_free_bytes() == []


def test_a_file_that_is_not_there_claims_nothing_of_its_own(tmp_path: Path) -> None:
    assert claim(tmp_path / "none.gguf", cache_bytes=7) == Claim(cache=7)


def test_sequences_move_through_one_pair_of_buffers_for_all_models() -> None:
    one = Claim(weights=1000, cache=10)
    assert total([]) == 0 and total([one]) == 1010 + 3000 and total([one, one]) == 2020 + 3000
    assert total([Claim(weights=1 << 40, cache=1)]) == (1 << 40) + 1 + 3 * (256 << 20)
    assert total([Claim(weights=1000)]) == 1000  # what only embeds moves nothing


def test_models_of_one_file_claim_its_weights_once_where_all_of_them_are_in_one_place() -> None:
    file = ("m.gguf", 1000, 1)
    one, other = (Claim(weights=1000, encoder=20, adapters=n, file=file) for n in (3, 4))
    assert total([one]) == 1023 and total([one, other]) == 1047
    assert total([one, other, other._replace(file=("m.gguf", 1000, 2))]) == 1047 + 1024, "it was replaced"
    assert total([one, other._replace(share=0.5)]) == 1023 + 512
    budget = Budget(2000, 0)
    assert budget.cache_for(other, [one]) == 0 and budget.cache_for(other._replace(file=None), [one]) is None


def test_a_budget_that_nobody_gave_grows_when_others_free_memory() -> None:
    budget = Budget(None, 0)
    free, budget.bytes = budget.bytes, 10
    budget.check("x", Claim(weights=free // 8))
    assert budget.bytes > free // 2
    with pytest.raises(ModelError, match=r"x doesn't fit into memory: it needs .* GB"):
        budget.check("x", Claim(weights=1 << 50))
