"""Who rents containers out to runs: Modal, or for a rehearsal a control plane on this machine.

It puts together what others know: rates (`cloud.cost`), containers (`cloud.rented`), the worker over them, and the
stand of a rehearsal. What a run needs of its containers it is told by `Needs`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from cloud import deploy, prices
from cloud.app import START_UP_S
from cloud.cost import COLD_START_S, ENDING_S, SCALEDOWN_S, Rates, memory_gib, sized
from cloud.deploy import Deployed
from cloud.message import Weights
from cloud.rehearsal import Stand, rehearsing
from cloud.rented import Account, Pool, rent
from cloud.version import here
from cloud.worker import CloudWorker
from gx.core.errors import CloudError
from gx.core.gpus import times_a_laptop
from gx.core.ledger import LEASE_S
from gx.core.message import Value
from gx.core.task import Offer, Quote

SLOTS = 32
"""What a bench runs at once where nobody says otherwise."""
_REPORT_S = 5.0
_STALE = "gx cloud deploy; if gx was changed here since the node began, first: gx node stop"
REHEARSED_START_S = 5.0
"""What a start takes in a rehearsal: a process, and a model that is on this disk."""


class Needs(Value, frozen=True, kw_only=True):
    """What a run needs of a container: its models, with their files by SHA-256, and how long one input may take."""

    weights: tuple[Weights, ...]
    files: dict[str, Path]
    timeout_s: float
    slots: int = 0
    is_rehearsal: bool = False

    def model_bytes(self) -> int:
        """What its models come to; a file that is gone counts nothing."""
        return sum(file.stat().st_size for file in self.files.values() if file.is_file())


class ModalLandlord:
    """Rents to the runs of one driver, which is known as `driver`. `needs` says what a run needs, by its id.

    Rehearsals happen in `folder`, and leave their report there as RUN.json.
    """

    def __init__(self, *, driver: str, needs: Callable[[str], Needs], folder: Path, account: Account) -> None:
        self._driver, self._needs, self._folder, self._account = driver, needs, folder, account
        self._rates = prices.known()

    def offers(self, run: str, edge_tokens_per_s: float) -> Sequence[Offer]:
        """Every GPU that has a rate, as fast as its memory makes it beside this machine."""
        needs = self._needs(run)
        return [
            Offer(
                gpu=gpu,
                tokens_per_s=max(1.0, edge_tokens_per_s) * times_a_laptop(gpu),
                usd_per_s=rates.usd_per_s,
                cold_start_s=REHEARSED_START_S if needs.is_rehearsal else COLD_START_S,
                window_s=SCALEDOWN_S + ENDING_S,
                reserve_usd=rates.usd_per_s * (START_UP_S + LEASE_S + needs.timeout_s + SCALEDOWN_S + ENDING_S),
                start_limit_s=START_UP_S,
                timeout_s=needs.timeout_s,
                source=rates.source,
                date=rates.date,
            )
            for gpu, rates in self._rates_for(needs).items()
        ]

    @asynccontextmanager
    async def rent(self, run: str, gpu: str) -> AsyncIterator[CloudWorker]:
        """The containers of a run. :raises CloudError: without an account, this gx's app, or one of its models."""
        needs = self._needs(run)
        if gpu not in self._rates:
            raise CloudError(f"nobody knows what a container with {gpu or 'no GPU'} costs", code="cloud.gpu")
        async with AsyncExitStack() as exits:
            account = self._account
            if needs.is_rehearsal:
                stand = await exits.enter_async_context(self._rehearse(run, needs))
                account = stand.account
            else:
                await anyio.to_thread.run_sync(_check, await deploy.status(account), needs.files)
            pool = Pool(
                run=run,
                gpu=gpu or None,
                slots=needs.slots,
                inputs=needs.slots or SLOTS,
                scaledown_s=int(SCALEDOWN_S),
                timeout_s=int(needs.timeout_s),
                memory_gib=memory_gib(needs.model_bytes()),
            )
            calls = await exits.enter_async_context(rent(pool, account))
            rates, slots = self._rates_for(needs)[gpu], needs.slots or SLOTS
            worker = CloudWorker(
                calls,
                run=run,
                gpu=gpu,
                driver=self._driver,
                inputs=slots,
                timeout_s=needs.timeout_s,
                quote=Quote(usd_per_s=rates.usd_per_s, cold_start_s=COLD_START_S, source=rates.source, date=rates.date),
            )
            for weights in needs.weights:
                worker.register(weights)
            yield await exits.enter_async_context(worker)

    def _rates_for(self, needs: Needs) -> dict[str, Rates]:
        return sized(self._rates, needs.model_bytes())

    @asynccontextmanager
    async def _rehearse(self, run: str, needs: Needs) -> AsyncIterator[Stand]:
        """A stand for the run, with its models; what happened there is written down at its end."""
        report_file = self._folder / f"{run}.json"
        report_file.unlink(missing_ok=True)  # that of an earlier stand is not this one's
        async with rehearsing(self._folder / run, rates=self._rates_for(needs)) as stand:
            await stand.furnish(needs.files)
            try:
                yield stand
            finally:
                with anyio.move_on_after(_REPORT_S, shield=True):
                    report = await stand.report()
                    report_file.write_bytes(msgspec.json.encode(report))


def _check(found: Deployed, files: Mapping[str, Path]) -> None:
    """:raises CloudError: where no app stands, or that of another gx, or a model is not on the volume."""
    if found.app is None:
        raise CloudError("the app is not deployed", code="cloud.missing", hint="gx cloud deploy")
    if not found.is_current():
        what = f"the app is of {found.version or 'an unknown gx'}, and here is {here()}"
        raise CloudError(f"{what}: deploy it anew", code="cloud.stale", hint=_STALE)
    if missing := [file.name for sha256, file in files.items() if sha256 not in found.models]:
        raise CloudError(
            f"not on the volume: {', '.join(missing)}",
            code="cloud.model",
            hint="put it there with: gx cloud deploy --recipe FILE",
        )
