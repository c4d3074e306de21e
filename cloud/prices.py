"""What containers cost today: the account's own rates where they can be had, kept for a day, else `cloud.cost`'s table.

Modal documents neither the names nor the unit of `Workspace.billing.rates()`. So a rate is believed only if its name is
a GPU's and its amount, by the second or by the hour, lies near the table's; for any other GPU the table holds.

Invariant: asking never fails. Whatever goes wrong, the answer is older, and its date says so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import platformdirs

from cloud.cost import RATES, Rates
from cloud.rented import Account, connect, mapped
from gx.core.errors import CloudError

FRESH_S = 24 * 3600.0
"""How long rates are taken for today's."""
PATIENCE_S = 5.0
"""How long an account may take to answer: somebody waits for an estimate."""
NEAR = 4.0
"""By what factor a rate may differ from the table's: an hour's is 3,600 times a second's."""
SOURCE = "this account's rates at Modal"
_WORDS = {"gpu", "nvidia", "usd", "per", "second", "seconds", "hour", "hours", "rate", "price", "cost", "s", "h"}
"""What may stand around a GPU's name in the name of its rate."""
_OTHER_NAMES = {"a10g": "a10"}


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file in the cache: dollars a second by GPU, as of `at`, in wall-clock seconds."""

    at: float
    gpu_usd_per_s: dict[str, float]


def cache_file() -> Path:
    """Where this user's copy of the rates is, whether or not it exists."""
    return Path(platformdirs.user_cache_dir("gx", appauthor=False)) / "modal-rates.json"


def known(cache: Path | None = None) -> dict[str, Rates]:
    """The rates by GPU that are known without asking anybody."""
    kept = _read(cache or cache_file())
    return dict(RATES) if kept is None else dated(kept)


async def current(
    account: Account, *, cache: Path | None = None, now: Callable[[], float] = time.time
) -> dict[str, Rates]:
    """Today's rates by GPU. A control plane of one's own (`account.url`) has none, and isn't asked."""
    place = cache or cache_file()
    kept = await anyio.to_thread.run_sync(_read, place)
    is_fresh = kept is not None and 0 <= now() - kept.at < FRESH_S
    if not is_fresh and account.url is None and (found := believed(await _asked(account))):
        kept = Kept(at=now(), gpu_usd_per_s=found)
        await anyio.to_thread.run_sync(_write, place, kept)
    return dict(RATES) if kept is None else dated(kept)


def believed(told: Mapping[str, Decimal]) -> dict[str, float]:
    """Dollars a second by GPU, of those rates that can be told to be that."""
    names = {_bare(gpu): gpu for gpu in RATES}
    found: dict[str, float] = {}
    for name, amount in told.items():
        gpu = names.get(_bare(name))
        if gpu is None:
            continue
        expected = RATES[gpu].gpu_usd_per_s
        for usd_per_s in (float(amount), float(amount) / 3600):
            if expected / NEAR <= usd_per_s <= expected * NEAR:
                found[gpu] = usd_per_s
    return found


def dated(kept: Kept) -> dict[str, Rates]:
    """All rates, those that were kept with their own date."""
    date = datetime.fromtimestamp(kept.at, UTC).strftime("%Y-%m-%d")
    fresh = {
        gpu: msgspec.structs.replace(RATES[gpu], gpu_usd_per_s=usd, source=SOURCE, date=date)
        for gpu, usd in kept.gpu_usd_per_s.items()
        if gpu in RATES and usd > 0
    }
    return RATES | fresh


async def _asked(account: Account) -> dict[str, Decimal]:
    """What the account says; nothing where it doesn't."""
    from modal import Workspace

    with anyio.move_on_after(PATIENCE_S):
        try:
            client = await connect(account)
            try:
                with mapped():
                    told = await Workspace.from_context(client=client).billing.rates.aio()
                    return {name: Decimal(amount) for name, amount in told.items()}
            finally:
                await client.close.aio()
        except (CloudError, ArithmeticError, ValueError):
            return {}
    return {}


def _bare(name: str) -> str:
    """A GPU's name as rates may have it: small letters and digits, without the words around it."""
    bare = "".join(word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in _WORDS)
    return _OTHER_NAMES.get(bare, bare)


def _read(place: Path) -> Kept | None:
    try:
        return msgspec.json.decode(place.read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(place: Path, kept: Kept) -> None:
    """Keep it; a cache that can't be written is none."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(kept))
        part.replace(place)
    except OSError:
        return
