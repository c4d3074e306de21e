"""`slots=16,containers=4,gpu=L4,burst=auto` as a value, with clear errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from gx.core.errors import UsageError
from gx.core.message import Value
from gx.run.replay.trace import Burst

EXAMPLE = "slots=16,containers=4,gpu=L4,burst=auto,usd=2"


class Wanted(Value, frozen=True, kw_only=True):
    """A policy as it was asked for: what is `None` is as in the run that is played.

    `faster` is how many times as fast as this machine a container is, `start` its seconds until it takes tasks.
    """

    text: str = ""
    slots: int | None = None
    burst: Burst | None = None
    containers: int | None = None
    gpu: str | None = None
    usd: float | None = None
    deadline: float | None = None
    faster: float | None = None
    start: float | None = None

    @property
    def rents(self) -> Burst:
        """`burst`, which is "auto" where only containers or a GPU are named."""
        return self.burst or ("auto" if self.containers or self.gpu else "off")


def wanted(text: str, *, gpus: tuple[str, ...]) -> Wanted:
    """The policy that a text says. `gpus` are those with a known price.

    :raises UsageError: if a key is unknown or named twice, or its value is none.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, is_given, value = part.partition("=")
        name = name.strip()
        if name not in _READ:
            raise UsageError(_unknown(name), hint=f"keys are {', '.join(_READ)}; for example {EXAMPLE}")
        if not is_given or name in found:
            raise UsageError(f"policy `{text}`: expected {name}=value, once", hint=f"for example {EXAMPLE}")
        expected, read = _READ[name]
        try:
            found[name] = read(value.strip())
        except ValueError:
            raise UsageError(f"policy `{text}`: `{name}` must be {expected}, got {value.strip()!r}") from None
    if not found:
        raise UsageError("the policy says nothing", hint=f"for example {EXAMPLE}")
    policy = Wanted(text=text, **found)
    if policy.gpu is not None and policy.gpu not in gpus:
        raise UsageError(
            f"policy `{text}`: there is no price of a GPU {policy.gpu!r}", hint=f"known: {', '.join(gpus)}"
        )
    return policy


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, _READ, n=1)
    return f"a policy has no `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not least <= (number := int(text)) <= most:
            raise ValueError
        return number

    return read


def _positive(text: str) -> float:
    if not 0 < (number := float(text)) < 1e9:
        raise ValueError
    return number


def _burst(text: str) -> str:
    if text not in get_args(Burst):
        raise ValueError
    return text


def _seconds(text: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    return _positive(text[:-1]) * units[text[-1]] if text[-1:] in units else _positive(text)


_READ: dict[str, tuple[str, Callable[[str], Any]]] = {
    "slots": ("a whole number from 1 to 256", _whole(1, 256)),
    "burst": ("off, auto or always", _burst),
    "containers": ("a whole number from 0 to 1000", _whole(0, 1000)),
    "gpu": ("the name of a GPU", str),
    "usd": ("a positive number of dollars", _positive),
    "deadline": ("a positive time, such as 30m", _seconds),
    "faster": ("a positive number: times as fast as this machine", _positive),
    "start": ("a positive time, such as 60s", _seconds),
}
"""What each key takes, in words, and how it is read."""
