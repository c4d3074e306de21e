"""Rates: the account's own through the real SDK where they can be believed, kept for a day; the table otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import grpclib.server
import pytest
from modal_proto import api_pb2

from cloud import prices
from cloud.cost import ENDING_S, RATES, offers
from cloud.loopback.faults import FaultCounter, Faults
from cloud.loopback.plane import tcp_listener
from cloud.loopback.rpc import Caller, Service
from cloud.rented import Account

pytestmark = pytest.mark.anyio
DAY_S = 24 * 3600.0
NOON = 1_700_000_000.0  # 2023-11-14


class Landlord:
    """The RPCs of a workspace that has prices."""

    def __init__(self, rates: dict[str, str]) -> None:
        self.rates, self.asked = rates, 0

    async def ClientHello(self, request: object, caller: Caller) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse()

    async def WorkspaceNameLookup(self, request: object, caller: Caller) -> api_pb2.WorkspaceNameLookupResponse:
        return api_pb2.WorkspaceNameLookupResponse(username="ada")

    async def WorkspaceBillingRates(self, request: object, caller: Caller) -> api_pb2.WorkspaceBillingRatesResponse:
        self.asked += 1
        return api_pb2.WorkspaceBillingRatesResponse(rates=self.rates)


@asynccontextmanager
async def serving(part: object, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Account]:
    """An account at a server that speaks that part; its address is in the environment, as Modal's own would be."""
    server = grpclib.server.Server([Service([part], FaultCounter(Faults()), lambda caller: True)])
    listener = tcp_listener()
    await server.start(sock=listener)
    monkeypatch.setenv("MODAL_SERVER_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
    try:
        yield Account(token_id="ak-1", token_secret="as-1")
    finally:
        server.close()
        await server.wait_closed()


async def test_the_accounts_rates_are_asked_once_a_day_and_dated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landlord, cache = Landlord({"gpu_l4": "0.000200", "H100": "4.32", "cpu": "0.1"}), tmp_path / "kept" / "rates.json"
    async with serving(landlord, monkeypatch) as account:
        found = await prices.current(account, cache=cache, now=lambda: NOON)
        assert found["L4"].gpu_usd_per_s == 0.0002 and found["L4"].date == "2023-11-14"
        assert found["H100"].gpu_usd_per_s == pytest.approx(0.0012), "told by the hour"
        assert found["T4"] == RATES["T4"], "nobody told"
        assert await prices.current(account, cache=cache, now=lambda: NOON + DAY_S / 2) == found
        assert landlord.asked == 1
        landlord.rates = {"L4": "0.000250"}
        later = await prices.current(account, cache=cache, now=lambda: NOON + 2 * DAY_S)
        assert (later["L4"].gpu_usd_per_s, later["L4"].date) == (0.00025, "2023-11-16")
    assert prices.known(cache) == later


async def test_an_account_that_does_not_tell_leaves_the_older_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "rates.json"
    async with serving(object(), monkeypatch) as account:
        assert await prices.current(account, cache=cache, now=lambda: NOON) == RATES
    async with serving(Landlord({"L4": "not a number"}), monkeypatch) as account:
        assert await prices.current(account, cache=cache, now=lambda: NOON) == RATES
    cache.write_text('{"at": 1700000000.0, "gpu_usd_per_s": {"L4": 0.0002, "Z9": 1.0}}')
    monkeypatch.setenv("MODAL_SERVER_URL", "http://127.0.0.1:9")
    nobody = Account(token_id="ak-1", token_secret="as-1")
    found = await prices.current(nobody, cache=cache, now=lambda: NOON + 9 * DAY_S)
    assert found["L4"].gpu_usd_per_s == 0.0002 and found["L4"].date == "2023-11-14" and "Z9" not in found


async def test_a_control_plane_of_ones_own_is_not_asked_and_nobody_needs_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert await prices.current(Account(url="http://127.0.0.1:9"), cache=tmp_path / "none.json") == RATES


def test_a_cache_that_cannot_be_read_or_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text("{")
    assert prices.known(tmp_path / "rates.json") == RATES
    (tmp_path / "file").write_text("")
    prices._write(tmp_path / "file" / "rates.json", prices.Kept(at=1.0, gpu_usd_per_s={}))


@pytest.mark.parametrize(
    ("name", "amount", "gpu"),
    [
        ("A100-40GB", "0.000583", "A100-40GB"),
        ("gpu_a100_80gb_per_second", "0.000694", "A100-80GB"),
        ("NVIDIA A10G per hour", "1.10", "A10"),
        ("l40s", "1.95", "L40S"),
        ("L4", "0.9", "L4"),
        ("L4", "90", None),
        ("H100 volume snapshot", "0.001", None),
        ("cpu", "0.0000131", None),
    ],
)
def test_a_rate_is_believed_by_its_name_and_its_size(name: str, amount: str, gpu: str | None) -> None:
    found = prices.believed({name: Decimal(amount)})
    assert list(found) == ([gpu] if gpu else [])
    for one, usd_per_s in found.items():
        assert RATES[one].gpu_usd_per_s / 2 < usd_per_s < RATES[one].gpu_usd_per_s * 2


def test_an_offer_reserves_all_that_a_container_can_cost_before_anybody_stops_it() -> None:
    offer = offers(RATES, timeout_s=120, start_limit_s=300)["L4"]
    assert offer.reserve_usd == pytest.approx(RATES["L4"].usd_per_s * (300 + 60 + 120 + 10 + ENDING_S))
    assert offer.window_s == 10 + ENDING_S
    assert (offer.timeout_s, offer.start_limit_s) == (120, 300) and offer.date
