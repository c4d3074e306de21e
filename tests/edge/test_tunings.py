"""A model is measured in a child process; the choice is kept for this file and machine, and the engine goes by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edge import tunings
from edge.engine.tuning import Tuning
from gx.core.errors import ModelError

DIGEST = "d" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> tuple[Path, tunings.Note, tunings.Tuned]:
    cache_dir = tmp_path_factory.mktemp("cache")
    return cache_dir, *tunings.make(Path(tiny), DIGEST, seconds=8, cache_dir=cache_dir)


def test_what_was_measured_is_told(made: tuple[Path, tunings.Note, tunings.Tuned]) -> None:
    _, note, tuned = made
    calibration = tuned.calibration
    first, *others = calibration.trials
    assert first.what == "defaults" and first.speeds is not None and first.speeds.prefill > 0
    varied = {trial.what for trial in others} | {left.rsplit(" ", 1)[0] for left in calibration.left_out}
    assert varied >= {"flash attention", "tokens a pass", "slots"}
    assert "cache" in varied or calibration.chosen.tuning.flash is False  # which a cache of eight bits can't be
    assert calibration.chosen.tuning.cache == "f16" and note.tuning == tunings.chosen_tuning(tuned)
    assert tuned.format == "F16" and not tuned.copies


def test_a_choice_is_found_for_its_file_and_machine_alone(
    made: tuple[Path, tunings.Note, tunings.Tuned], tiny: str, tmp_path: Path
) -> None:
    cache_dir, note, _ = made
    assert tunings.find_note(DIGEST, tiny, cache_dir=cache_dir) == note
    assert tunings.find(DIGEST, tiny, cache_dir=cache_dir) == note.tuning
    assert tunings.find("e" * 64, tiny, cache_dir=cache_dir) == Tuning()
    (tmp_path / "copy.gguf").write_bytes(b"another file of the same model")
    assert tunings.find(DIGEST, str(tmp_path / "copy.gguf"), cache_dir=cache_dir) == Tuning()
    keys = {tunings.key_of(*of) for of in [(1, "1", "x", 2), (2, "1", "x", 2), (1, "2", "x", 2), (1, "1", "y", 2)]}
    assert len(keys | {tunings.key_of(1, "1", "x", 4)}) == 5


def test_threads_compared_beside_other_work_are_not_kept(made: tuple[Path, tunings.Note, tunings.Tuned]) -> None:
    calm = msgspec.structs.replace(made[2], others=tunings.DISTURBED / 2)
    busy = msgspec.structs.replace(made[2], others=tunings.DISTURBED * 2)
    assert tunings.chosen_tuning(calm) == calm.calibration.chosen.tuning
    assert tunings.chosen_tuning(busy) == msgspec.structs.replace(tunings.chosen_tuning(calm), threads=None)


def test_a_note_that_can_not_be_read_counts_as_none(tmp_path: Path, tiny: str) -> None:
    (tmp_path / tunings.FOLDER).mkdir()
    tunings._place(tmp_path / tunings.FOLDER, DIGEST, tiny).write_bytes(b"{")
    assert tunings.find(DIGEST, tiny, cache_dir=tmp_path) == Tuning()


def test_what_can_not_be_measured_says_why(tmp_path: Path) -> None:
    source = tmp_path / "x.gguf"
    source.write_bytes(b"no model")
    with pytest.raises(ModelError, match="isn't a GGUF file"):
        tunings.make(source, DIGEST, cache_dir=tmp_path)


def test_a_measurement_that_does_not_end_is_ended(tmp_path: Path, tiny: str) -> None:
    with pytest.raises(ModelError, match=r"not measured within 0\.05 s") as caught:
        tunings.make(Path(tiny), DIGEST, longest_s=0.05, cache_dir=tmp_path)
    assert caught.value.code == "model.tune" and not list(tmp_path.iterdir())


def test_a_choice_does_not_outlive_another_build_of_the_engine(tmp_path: Path, tiny: str) -> None:
    """The same version in other libraries, as after an update with CUDA or other instruction sets."""
    found: list[str] = []
    record = "llama_cpp/lib/libggml-cpu.so,sha256={},1\nllama_cpp/__pycache__/x.pyc,,\n"
    for built in (record.format("a"), record.format("a") + "llama_cpp/__pycache__/y.pyc,,\n", record.format("b")):
        folder = tmp_path / str(len(found)) / "llama_cpp_python-0.3.36.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 0.3.36\n")
        (folder / "RECORD").write_text(built)
        code = (
            f"import sys; sys.path.insert(0, {str(folder.parent)!r}); from edge import tunings; "
            "assert 'llama_cpp' not in sys.modules; from pathlib import Path; "
            f"print(tunings._place(Path('x'), 'd', {tiny!r}))"
        )
        found.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert found[0] == found[1] != found[2]


def test_a_small_file_in_few_bits_is_measured_beside_its_copies(tmp_path: Path, tiny: str) -> None:
    from edge.engine.llama import requantize
    from edge.tune import tune

    small = str(tmp_path / "small.gguf")
    requantize(tiny, small, "q8_0", threads=1)
    tuned = tune(small, seconds=0.1)
    assert tuned.format == "Q8_0" and [copy.kind for copy in tuned.copies] == ["bf16"]
    assert tuned.calibration.left_out


def test_the_engine_computes_as_was_chosen(tiny: str) -> None:
    from edge.engine.engine import Completion, Engine, Request
    from gx.core.message import Message, Sampling

    asked: list[tuple[str, str]] = []

    def tuning_of(digest: str, path: str) -> Tuning:
        asked.append((digest, path))
        return Tuning(threads=1, pass_tokens=64, flash=False)

    engine = Engine(slots=2, tuning_of=tuning_of)
    try:
        engine.register(DIGEST, tiny)
        message = Message(role="user", content="Count: " + "one two three " * 40)
        result = engine.submit(Request(model=DIGEST, messages=(message,), sampling=Sampling(max_tokens=2))).result(60)
        assert isinstance(result, Completion) and result.usage.tokens_in > 64
        with engine._shelf.borrow(DIGEST) as loaded:
            lane = loaded.lanes._lanes[0]
            assert (lane._cache.pass_tokens, lane._pace.threads) == (64, 1)
    finally:
        engine.close()
    assert asked == [(DIGEST, tiny)]


def test_threads_that_are_set_count_more_than_the_chosen_ones(tiny: str) -> None:
    from edge.engine.engine import Engine

    engine = Engine(threads=2, slots=2, tuning_of=lambda digest, path: Tuning(threads=1))
    try:
        engine.register(DIGEST, tiny)
        with engine._shelf.borrow(DIGEST) as loaded:
            assert loaded.lanes._pace.threads == 2
    finally:
        engine.close()


def test_a_context_is_made_as_the_tuning_says(tiny: str) -> None:
    from edge.engine.llama import Context, Model

    model = Model(DIGEST, tiny)
    try:
        Context(model, slots=1, slot_tokens=256, threads=1, tuning=Tuning(flash=False)).close()
        with pytest.raises(ModelError):  # heads of 16 numbers don't fill the blocks of 32
            Context(model, slots=1, slot_tokens=256, threads=1, tuning=Tuning(cache="q8_0"))
    finally:
        model.close()


def test_a_note_reads_back_as_it_was_written(made: tuple[Path, tunings.Note, tunings.Tuned]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(made[1]), type=tunings.Note) == made[1]
