"""The checks of `gx doctor` for what is slower than it need be: each says what, how much slower, and what to do.

Nothing is measured here and no model is loaded; `gx doctor --tune` measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge import slowness
from edge.cpu import SETS, default_threads
from gx import wiring
from gx.node import machine
from gx.node.check import Check
from gx.node.strain import ON_CPU
from gx.settings import Settings

if TYPE_CHECKING:
    from edge.tunings import Note

STALLED_PERCENT = 1.0
"""Of a minute: less is what any machine does now and then."""
CONTEXT_TOKENS = 8192
"""Of a turn, where neither a recipe nor the settings say: the engine's own default."""
_REBUILD = (
    'CMAKE_ARGS="-DGGML_NATIVE=ON{more}" pip install --force-reinstall --no-deps '
    "--no-binary llama-cpp-python llama-cpp-python{version}"
)
_GPU_OPTIONS = {"NVIDIA": " -DGGML_CUDA=ON", "AMD": " -DGGML_HIP=ON", "Metal": " -DGGML_METAL=ON"}


def rebuild(version: str = "", more: str = "") -> str:
    """The command that builds the engine for this machine, with `more` options."""
    return _REBUILD.format(more=more, version=f"=={version}" if version else "")


def cpu(engine: machine.Engine, has: frozenset[str] | None) -> Check:
    """Whether the engine's build fits the CPU, which has these instruction sets."""
    if has is None:
        return Check(name="cpu", status="ok", found="this machine doesn't tell its vector instructions")
    lacking = [name for name in engine.sets if SETS[name] not in has]
    if lacking:
        found = f"the engine was built for {', '.join(lacking)}, which this CPU lacks"
        return Check(name="cpu", status="fail", found=found, advice=rebuild(engine.version))
    if found := slowness.unused(engine.sets, has):
        advice = f"a build for this CPU is faster: {rebuild(engine.version)}"
        return Check(name="cpu", status="warn", found=found, advice=advice)
    return Check(name="cpu", status="ok", found="the engine uses this CPU's vector instructions")


def gpu(engine: machine.Engine, seen: str) -> Check:
    """Whether the engine's build uses the GPU that was seen, if any."""
    if engine.offloads:
        found = f"layers go to the GPU ({seen})" if seen else "the engine can use a GPU, and none is seen"
        return Check(name="gpu", status="ok", found=found)
    if not seen:
        return Check(name="gpu", status="ok", found="none; everything runs on the CPU")
    advice = rebuild(engine.version, _GPU_OPTIONS[seen])
    found = f"the engine was built without a GPU, and this machine has one ({seen}): {ON_CPU}"
    return Check(name="gpu", status="warn", found=found, advice=advice)


def of_model(model: wiring.LocalModel, engine: machine.Engine, settings: Settings) -> Iterator[Check]:
    """What can be told of a model on this machine before it is loaded."""
    from edge import tunings
    from edge.engine.memory import available_bytes, gpu_room
    from edge.header import read_header

    file = wiring.file_of(model, settings)
    weights_bytes, header = file.stat().st_size, read_header(file)
    turn_bytes = 0
    if header is not None:
        tokens = min(model.context_tokens or CONTEXT_TOKENS, header.trained_tokens() or CONTEXT_TOKENS)
        turn_bytes = (header.token_bytes() or 0) * tokens
    if not engine.offloads:
        yield format_(model.name, slowness.slow_format(file, engine.flags))
    elif machine.gpu() == "NVIDIA":
        yield gpu_memory(weights_bytes + turn_bytes, gpu_room(machine.gpu_free_bytes()))
    yield memory(weights_bytes, turn_bytes, available_bytes())
    yield pressure(machine.stalled_percent(), machine.swapped_bytes())
    yield tuned(model.name, tunings.find_note(model.sha256, str(file)), settings, is_copy=file != model.path)


def format_(name: str, slow: slowness.SlowFormat | None) -> Check:
    """Whether the CPU has a fast path for the format of a model's weights."""
    if slow is None:
        return Check(name="format", status="ok", found=f"the engine has a fast path for the weights of {name}")
    advice = f"gx models prepare {name} --as {slow.kind}" if slow.kind else "choose a file in another format"
    return Check(name="format", status="warn", found=f"{name}: {slow}", advice=advice)


def memory(weights_bytes: int, turn_bytes: int, available_bytes: int) -> Check:
    """Whether a model and the cache of one turn fit in the memory."""
    needs = f"{weights_bytes / 1e9:.1f} GB of weights and at least {turn_bytes / 1e9:.1f} GB of cache"
    if weights_bytes + turn_bytes <= available_bytes:
        found = f"{needs}; {available_bytes / 1e9:.1f} GB are available"
        return Check(name="memory", status="ok", found=found)
    found = (
        f"{needs}, and {available_bytes / 1e9:.1f} GB are available: weights would be read from the disk for every "
        "token, a hundred times as slowly or worse"
    )
    advice = "choose a smaller model or file, a smaller GX_CONTEXT_TOKENS, or close other programs"
    return Check(name="memory", status="warn", found=found, advice=advice)


def pressure(stalled_percent: float | None, swapped_bytes: int | None) -> Check:
    """Whether programs wait for memory now."""
    swapped = f"{(swapped_bytes or 0) / 1e9:.1f} GB swapped out"
    if stalled_percent is None:
        return Check(name="swap", status="ok", found="this machine doesn't tell" if swapped_bytes is None else swapped)
    if stalled_percent < STALLED_PERCENT:
        return Check(name="swap", status="ok", found=f"{swapped}, and nothing waits for memory")
    found = f"in {stalled_percent:g} % of the last minute something waited for memory ({swapped})"
    advice = "close other programs, or choose a smaller model; what is swapped out takes a thousand times as long"
    return Check(name="swap", status="warn", found=found, advice=advice)


def gpu_memory(needed_bytes: int, room_bytes: int | None) -> Check:
    """Whether a model with the cache of one turn fits on the GPU, which has room for so much."""
    if room_bytes is None:
        return Check(name="layers", status="ok", found="the GPU's memory isn't known; nvidia-smi would tell")
    found = f"{needed_bytes / 1e9:.1f} GB are needed on the GPU, and there is room for {room_bytes / 1e9:.1f} GB there"
    if needed_bytes <= room_bytes:
        return Check(name="layers", status="ok", found=found)
    share = 1 - room_bytes / needed_bytes
    found += f": {share:.0%} of the layers have no room there, and each runs ten times as slowly or worse on the CPU"
    advice = "choose a smaller file of the model, or a smaller GX_CONTEXT_TOKENS, or free the GPU's memory"
    return Check(name="layers", status="warn", found=found, advice=advice)


def tuned(name: str, note: Note | None, settings: Settings, *, is_copy: bool) -> Check:
    """Whether it was measured how this machine computes a model best."""
    of = f"the prepared copy of {name}" if is_copy else name
    if note is None:
        found = f"{of} is computed with the defaults; `gx doctor --tune -m {name}` measures what is faster here"
        return Check(name="tuning", status="ok", found=found)
    threads = settings.threads or note.tuning.threads or default_threads()
    own = " (GX_THREADS or `threads` in your settings)" if settings.threads else ""
    flash = "off" if note.tuning.flash is False else "on"
    gain = f"; {note.gain:.2f} times as fast as the defaults" if threads == note.tuning.threads else ""
    found = (
        f"{of} is computed as was measured here: {threads} threads{own}, {note.tuning.pass_tokens} tokens a pass, "
        f"flash attention {flash}{gain}"
    )
    return Check(name="tuning", status="ok", found=found)
