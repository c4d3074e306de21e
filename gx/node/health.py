"""The checks of `gx doctor`: what is needed and what would be better, each with what to do about it.

A check never raises. `fail` means that runs on this machine can't work as it stands, `warn` that they work less well
or not for everything. The log is only read, and only as long as nobody writes it.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from edge.cpu import cores, cpu_quota, cpu_sets, default_threads
from gx import __version__, wiring
from gx import settings as settings_module
from gx.core.errors import GxError, LogError, ModelError, SettingsError, WorkspaceError
from gx.core.extras import installing
from gx.core.message import Answer, Message, Sampling, Turn
from gx.core.ports import AttemptEnded, BenchDown
from gx.core.recipe import Agent, Model, Recipe
from gx.node import machine, speed
from gx.node.check import Check
from gx.node.workspace import Workspace
from gx.settings import Settings

DEFAULT_MODEL = "smollm2"
LOW_DISK_BYTES = 4 * 10**9
"""Less than a model of the middle of the catalogue takes."""
QUICK_EVENTS = 200_000
"""A longer log takes more than a few seconds to verify."""
SMOKE_S = 120.0


def checks(*, workspace: Path | None = None, quick: bool = False, model_name: str = DEFAULT_MODEL) -> Iterator[Check]:
    """Every check in turn; `quick` leaves out the bench, which loads the model of that name."""
    yield _python()
    yield _platform()
    engine = machine.probe_engine()
    yield _engine(engine)
    if not engine.error:
        yield speed.cpu(engine, cpu_sets())
        yield speed.gpu(engine, machine.gpu())
    try:
        settings = settings_module.load(workspace=workspace)
    except SettingsError as error:
        yield Check(name="settings", status="fail", found=error.message, advice=error.hint or "see `gx config --help`")
        return
    yield _settings(workspace)
    yield _threads(settings)
    yield _models_folder(settings)
    model = find_model(model_name, settings)
    yield model if isinstance(model, Check) else _model_found(model)
    if not isinstance(model, Check) and not engine.error:
        yield from speed.of_model(model, engine, settings)
    place = Workspace.find(settings.workspace)
    yield (found := _workspace(place))
    if found.status != "fail":
        yield _log(place)
    if quick or engine.error or isinstance(model, Check):
        return
    yield _bench(settings, model)


# ── the installation ─────────────────────────────────────────────────────────────────────────────────────────────


def _python() -> Check:
    return Check(name="gx", status="ok", found=f"gx {__version__} on Python {platform.python_version()}")


def _platform() -> Check:
    found = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if sys.platform == "linux":
        return Check(name="platform", status="ok", found=found)
    if sys.platform == "darwin":
        return Check(name="platform", status="ok", found=f"{found}; a bench outlives a killed gx for a moment")
    return Check(name="platform", status="fail", found=found, advice="gx runs on Linux and macOS; on Windows, use WSL")


def _engine(engine: machine.Engine) -> Check:
    if not engine.error:
        found = f"llama-cpp-python {engine.version} ({' '.join(engine.sets) or 'no vector instructions'})"
        return Check(name="engine", status="ok", found=found)
    is_missing = "No module named" in engine.error
    advice = installing("edge") if is_missing else speed.rebuild()
    return Check(name="engine", status="fail", found=engine.error, advice=advice)


# ── settings, models ─────────────────────────────────────────────────────────────────────────────────────────────


def _settings(workspace: Path | None) -> Check:
    own = [f"{name} from {s.source}" for name, s in settings_module.explain(workspace=workspace).items()
           if s.source != "default"]  # fmt: skip
    return Check(name="settings", status="ok", found="; ".join(own) or "all defaults")


def _threads(settings: Settings) -> Check:
    n_cores, quota = cores(), cpu_quota()
    threads = settings.threads or default_threads()
    if quota is not None and threads > max(1, round(quota)):
        found = f"{threads} threads, and the container's limit is {quota:g} CPUs"
        return Check(name="threads", status="warn", found=found, advice="leave `threads` out of the settings")
    if threads > n_cores:
        found = f"{threads} threads on {n_cores} cores get in each other's way"
        return Check(name="threads", status="warn", found=found, advice="leave `threads` out of the settings")
    return Check(name="threads", status="ok", found=f"{threads} threads on {n_cores} cores")


def _models_folder(settings: Settings) -> Check:
    folder = settings.models_dir
    there = _nearest(folder)
    free = shutil.disk_usage(there).free
    found = f"{folder}, {free / 1e9:.1f} GB free"
    if not os.access(there, os.W_OK | os.X_OK):
        advice = "models can't be fetched; choose another folder with GX_MODELS_DIR"
        return Check(name="models", status="warn", found=f"{folder} can't be written", advice=advice)
    if free < LOW_DISK_BYTES:
        advice = "make room, or choose another folder with GX_MODELS_DIR"
        return Check(name="models", status="warn", found=found, advice=advice)
    return Check(name="models", status="ok", found=found)


def find_model(name: str, settings: Settings) -> wiring.LocalModel | Check:
    """The model of that name or source, or why there is none."""
    agents = {"a": Agent(name="a", model=name)}
    recipe = Recipe(name="doctor", steps=(), agents=agents, models={name: Model(source=name)})
    try:
        return wiring.resolve_models(recipe, settings, Path.cwd())[name]
    except ModelError as error:
        status: Literal["warn", "fail"] = "warn" if error.code == "model.missing" else "fail"
        return Check(name="model", status=status, found=error.message, advice=error.hint)


def _model_found(model: wiring.LocalModel) -> Check:
    return Check(name="model", status="ok", found=f"{model.name}: {model.path} ({model.size_bytes / 1e6:,.0f} MB)")


# ── the workspace ────────────────────────────────────────────────────────────────────────────────────────────────


def _workspace(place: Workspace) -> Check:
    folder = _nearest(place.folder)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        found = f"{place.folder} can't be used: {folder} can't be written or locked: {error.strerror}"
        advice = "choose a folder on a local disk with GX_WORKSPACE or --workspace"
        return Check(name="workspace", status="fail", found=found, advice=advice)
    if folder != place.folder:
        return Check(name="workspace", status="ok", found=f"{place.folder}, to be made by the first run")
    return Check(name="workspace", status="ok", found=str(place.folder))


def _log(place: Workspace) -> Check:
    """The log, if there is one and nobody writes it now."""
    from gx.node.start import send_home
    from gx.run.log.verify import verify

    began = time.monotonic()
    keep = f"keep a copy of {place.folder}; new runs in another folder are safe: --workspace DIR"
    try:
        send_home(place.folder)
        with place.shared(wait_s=2.0) as log:
            size = sum(file.stat().st_size for file in place.folder.glob("log.*") if file.is_file())
            found = f"{log.last_seq + 1:,} events, {size / 1e6:,.1f} MB"
            if log.last_seq >= QUICK_EVENTS:
                return Check(name="log", status="ok", found=f"{found}; too long to verify here")
            report = verify(log)
    except WorkspaceError as error:
        if error.code == "workspace.empty":
            return Check(name="log", status="ok", found="nothing has run here yet")
        is_held = error.code in ("workspace.locked", "workspace.busy")
        advice = "nothing, if that is your own run; the log is checked when it has ended" if is_held else error.hint
        return Check(name="log", status="warn" if is_held else "fail", found=error.message, advice=advice)
    except LogError as error:
        return Check(name="log", status="fail", found=error.message, advice=error.hint or keep)
    if not report.is_whole:
        return Check(name="log", status="fail", found="; ".join(report.problems), advice=keep)
    took = time.monotonic() - began
    return Check(name="log", status="ok", found=f"{found}, its chain of hashes is whole ({took:.1f} s)")


def _nearest(folder: Path) -> Path:
    """The folder itself, or the first above it that can be seen, be it a folder or not."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110  Path raises


# ── the bench ────────────────────────────────────────────────────────────────────────────────────────────────────


def _bench(settings: Settings, model: wiring.LocalModel) -> Check:
    import anyio

    try:
        return Check(name="bench", status="ok", found=anyio.run(_smoke, settings, model))
    except (GxError, TimeoutError, ExceptionGroup) as error:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        found = "; ".join(getattr(cause, "message", None) or f"it did not answer in {SMOKE_S:g} s" for cause in causes)
        hint = next((cause.hint for cause in causes if isinstance(cause, GxError) and cause.hint), "")
        return Check(name="bench", status="fail", found=found, advice=hint)


async def _smoke(settings: Settings, model: wiring.LocalModel) -> str:
    """Start a bench, load the model, have it write a few tokens; the times of it in words."""
    import anyio

    began = time.monotonic()
    with anyio.fail_after(SMOKE_S):
        async with wiring.edge_worker(settings, 0, lambda: [model]) as worker:
            up = time.monotonic()
            await worker.describe(model.digest)
            loaded = time.monotonic()
            messages = (Message(role="user", content="Say hello."),)
            sampling = Sampling(max_tokens=4)
            worker.submit(
                Turn(run="doctor", task="0", attempt=1, model=model.digest, messages=messages, sampling=sampling)
            )
            while True:
                for event in await worker.events():
                    if isinstance(event, AttemptEnded) and isinstance(event.outcome, Answer):
                        answered = time.monotonic()
                        return (
                            f"up in {up - began:.1f} s, {model.name} loaded in {loaded - up:.1f} s, "
                            f"{event.outcome.usage.tokens_out} tokens in {answered - loaded:.1f} s"
                        )
                    if isinstance(event, AttemptEnded):
                        raise GxError(f"a turn failed: {getattr(event.outcome, 'message', 'it ended in calls')}")
                    if isinstance(event, BenchDown):
                        raise GxError(f"the bench ended: {event.reason}")
