"""Settings and where each came from: defaults < user file < project file < GX_* variables < flags.

The user file is `config.toml` in the platform's configuration folder; the project file is `gx.toml`, found by walking
up from the current folder. This file reads the environment; nothing below the command line does.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from gx.core.errors import SettingsError

NONE = "none"
"""The source that stands for no model."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, with its default. `None` means that the engine chooses."""

    workspace: Path | None = None
    """The `.gx` folder; by default the nearest one above the current folder, else the user's data folder."""
    models_dir: Path = msgspec.field(default_factory=Path)
    """Where models are kept; by default `models` in the user's data folder."""
    offline: bool = False
    """Refuse to touch the network."""
    hub_endpoint: str = "https://huggingface.co"
    """Where `hf:` sources are fetched from."""
    context_tokens: int | None = None
    """What one turn may fill, prompt and answer; by default what the model was trained on, 8192 at most."""
    threads: int | None = None
    """Threads of the engine; by default one a core that this process may use."""
    slots: int | None = None
    """Turns that the engine runs at once, side by side in one decode; by default 32."""
    max_row_bytes: int = 16 * 1024 * 1024
    """A longer input row fails as a row."""
    drain_s: float = 30.0
    """How long the first Ctrl-C waits for what is running."""
    memory_model: str = "minilm"
    """The model that embeds what is remembered, where the workspace has none yet; `none` searches by words only."""
    memory_reranker: str = NONE
    """The reranker that puts what searches of the memory find in its order; `none` leaves it in the searches' own."""
    node_linger_s: float = 10.0
    """How long the node stays, with the model loaded, when no run is live and nothing was asked."""
    monitor_theme: str = "dark"
    """The monitor's colours: dark, light, contrast or plain."""
    monitor_ascii: bool | None = None
    """Whether the monitor draws with ASCII alone; by default as the terminal's encoding allows."""
    monitor_keys: dict[str, str] | None = None
    """Other keys of the monitor, by what its help calls them, such as quit = "ctrl+q"."""
    otel: bool = False
    """Send runs' traces and metrics, without content, to the collector that OTEL_EXPORTER_OTLP_* name."""


_PATHS = {"workspace", "models_dir"}
_MODELS = {"memory_reranker"}
"""A model's source, which may be a path."""
_ENV_ALIASES = {"hub_endpoint": "HF_ENDPOINT"}


class Sourced(msgspec.Struct, frozen=True, kw_only=True):
    """A setting's value and the source that won, in words."""

    value: Any
    source: str


def user_config_file() -> Path:
    """The user's file, whether or not it exists."""
    import platformdirs

    return Path(platformdirs.user_config_dir("gx", appauthor=False)) / "config.toml"


def user_data_dir() -> Path:
    """Where models and the workspace of last resort live."""
    import platformdirs

    return Path(platformdirs.user_data_dir("gx", appauthor=False))


def project_config_file(start: Path) -> Path | None:
    """The nearest `gx.toml` at or above `start`."""
    for folder in (start, *start.parents):
        if (found := folder / "gx.toml").is_file():
            return found
    return None


def load(**flags: Any) -> Settings:
    """The settings in force. Flags that are `None` were not given.

    :raises SettingsError: if a source holds an unknown name or a value of the wrong type, naming the source.
    """
    return msgspec.convert({name: s.value for name, s in explain(**flags).items()}, Settings, dec_hook=_as_path)


def explain(**flags: Any) -> dict[str, Sourced]:
    """Every setting with its value and its source."""
    cwd = Path.cwd()
    found = {f.name: Sourced(value=f.default, source="default") for f in msgspec.structs.fields(Settings)}
    found["models_dir"] = Sourced(value=user_data_dir() / "models", source="default")
    for file in (user_config_file(), project_config_file(cwd)):
        if file is not None and file.is_file():
            _merge(found, _read(file), source=str(file), base=file.parent)
    _merge(found, _environment(), source="environment", base=cwd)
    _merge(found, {k: v for k, v in flags.items() if v is not None}, source="flag", base=cwd)
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: {error}", hint="expected TOML, such as: threads = 4") from None


def _environment() -> dict[str, Any]:
    values: dict[str, Any] = {}
    for f in msgspec.structs.fields(Settings):
        text = os.environ.get(f"GX_{f.name.upper()}") or os.environ.get(_ENV_ALIASES.get(f.name, ""))
        if text:
            values[f.name] = text
    return values


def _merge(found: dict[str, Sourced], values: dict[str, Any], *, source: str, base: Path) -> None:
    types = {f.name: f.type for f in msgspec.structs.fields(Settings)}
    for name, raw in values.items():
        if name not in types:
            import difflib

            near = difflib.get_close_matches(name, types, n=1)
            raise SettingsError(
                f"{source}: there is no setting `{name}`",
                hint=f"did you mean `{near[0]}`?" if near else "`gx config` lists them",
            )
        where = f"GX_{name.upper()}" if source == "environment" else source
        try:
            if name in _PATHS:
                value: Any = (base / Path(str(raw)).expanduser()).resolve()
            elif name in _MODELS and isinstance(raw, str) and is_path(raw):
                value = str((base / Path(raw).expanduser()).absolute())  # links keep the name that was given
            else:
                value = msgspec.convert(raw, types[name], strict=source != "environment")
        except msgspec.ValidationError as error:
            raise SettingsError(f"{where}: `{name}` can't be {raw!r}: {error}") from None
        found[name] = Sourced(value=value, source=where)


def is_path(source: str) -> bool:
    """Whether a model's source names a file of this machine."""
    return not source.startswith(("hf:", "https://", "http://")) and ("/" in source or source.endswith(".gguf"))


def _as_path(kind: type, value: Any) -> Any:
    return Path(value) if kind is Path else value
