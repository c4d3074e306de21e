"""What a run has to tell somebody who isn't looking, and to whom: pure values.

A notice has counts and ids, and no content: no prompt, answer, question or message of an error. An address is a secret,
as whoever knows it may post there; of it only the scheme and the host are ever written down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from gx.core.errors import UsageError
from gx.core.message import Value
from gx.core.view import RunState
from gx.node.client import RunEnd
from gx.node.standing import waits_for_person

About = Literal["ended", "cap", "person"]
COMMAND = "command"
MOST_TARGETS = 8
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Counts(Value, frozen=True, kw_only=True, omit_defaults=False):
    """Tasks by what became of them."""

    succeeded: int
    failed: int
    skipped: int
    cancelled: int
    left: int


class Notice(Value, frozen=True, kw_only=True, omit_defaults=False):
    """What is told. `at` is wall-clock seconds; `exit_code` is that of the run once it ended, else null.

    `usd` is what is known to be spent. `question` is the id of what a person is asked, if that is what it is about.
    """

    event: About
    run: str
    status: str
    exit_code: int | None
    tasks: Counts
    tokens_in: int
    tokens_out: int
    usd: float
    at: float
    question: str = ""


class Due(NamedTuple):
    """Something to tell; `key` tells it from what was told before."""

    key: str
    about: About
    question: str = ""


def due(run: RunState, told: Collection[str]) -> list[Due]:
    """What of a run that goes on is to be told, and was not yet: its cap, each question, steps that only wait."""
    found = [Due(f"question {name}", "person", name) for name in run.questions]
    if not run.questions and run.paused_steps and waits_for_person(run):
        found.append(Due(f"paused {' '.join(sorted(run.paused_steps))}", "person"))
    if run.rent is not None and run.rent.capped is not None:
        found.append(Due(f"cap {run.rent.capped.cap_usd}", "cap"))
    return [one for one in found if one.key not in told]


def notice(run: RunState, end: RunEnd, about: About, *, at: float, question: str = "") -> Notice:
    """The run at the instant `at`; `end` is how it ended, or stands."""
    return Notice(
        event=about,
        run=run.id,
        status=str(run.status.value),
        exit_code=int(end.exit_code) if about == "ended" else None,
        tasks=Counts(
            succeeded=end.succeeded,
            failed=end.failed + end.excused,
            skipped=end.skipped,
            cancelled=end.cancelled,
            left=end.left,
        ),
        tokens_in=end.tokens_in,
        tokens_out=end.tokens_out,
        usd=0.0 if run.rent is None else round(run.rent.paid_usd, 6),
        at=at,
        question=question,
    )


def is_address(target: str) -> bool:
    """Whether it is an address, and no command."""
    return target.lower().startswith(("http://", "https://"))


def destination(target: str) -> str:
    """What is written down of a target: "command", or the scheme and the host of an address."""
    if not is_address(target):
        return COMMAND
    parts = urlsplit(target)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme.lower()}://{parts.hostname}{port}"


def without_secrets(targets: Iterable[str]) -> tuple[str, ...]:
    """The targets that may be written down: commands."""
    return tuple(target for target in targets if not is_address(target))


def told_again(words: Sequence[str]) -> list[str]:
    """A command line with its addresses cut to the host: what is printed stays in the logs of cron and CI."""
    found = list[str]()
    for n, word in enumerate(words):
        flag = "--notify=" if word.startswith("--notify=") else ""
        is_target = bool(flag) or (n > 0 and words[n - 1] == "--notify")
        target = word.removeprefix(flag)
        found.append(f"{flag}{destination(target)}/…" if is_target and is_address(target) else word)
    return found


def check_targets(targets: Collection[str], *, is_offline: bool) -> None:
    """:raises UsageError: naming the first that can't be told anything."""
    if len(targets) > MOST_TARGETS:
        raise UsageError(f"--notify: expected at most {MOST_TARGETS}, got {len(targets)}")
    for target in targets:
        if not target.strip() or "\0" in target:
            raise UsageError("--notify: expected a command or an https:// address, got nothing")
        if not is_address(target):
            continue
        try:
            parts = urlsplit(target)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or any(c.isspace() or not c.isprintable() for c in target):
            raise UsageError("--notify: expected an address such as https://hooks.example/run, got one without a host")
        if parts.scheme.lower() == "http" and host not in _LOOPBACK:
            raise UsageError(f"--notify: expected https:// for an address elsewhere, got http://{host}")
        if is_offline and host not in _LOOPBACK:
            raise UsageError(f"--notify: nothing is sent to {host}, as gx is offline (GX_OFFLINE)")
