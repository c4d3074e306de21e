"""Whether a burst could begin: the SDK, a token, the account, the app and its version, the models, the rates.

Each check is one finding with the command that helps; what stands there is asked of `cloud.deploy`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gx.cli.account import awaited, files_of, sdk, size_text
from gx.core.errors import CloudError, GxError
from gx.node.check import Check

if TYPE_CHECKING:
    from cloud.cost import Rates
    from cloud.deploy import Deployed


def checks(recipe: Path | None) -> Iterator[Check]:
    """Each check, until one fails that the next ones need."""
    try:
        deploy, account = sdk()
    except CloudError as error:
        yield Check(name="sdk", status="fail", found=error.message, advice=error.hint)
        return
    import modal

    yield Check(name="sdk", status="ok", found=f"modal {modal.__version__}")
    token, source = _token()
    if not token:
        advice = "modal token new   (or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET)"
        yield Check(name="token", status="fail", found="none", advice=advice)
        return
    yield Check(name="token", status="ok", found=f"{token[:5]}…{token[-3:]}, from {source}")
    try:
        found = awaited(deploy.status, account)
    except CloudError as error:
        yield Check(name="account", status="fail", found=error.message, advice=error.hint or "try again")
        return
    yield Check(name="account", status="ok", found=f"it answers, at {_server()}")
    yield _app_check(found)
    yield from _model_checks(found, recipe)
    rates = next(iter(_known_rates().values()))
    yield Check(name="rates", status="ok", found=f"{rates.source}, {rates.date}")


def _app_check(found: Deployed) -> Check:
    from cloud.version import here

    if found.app is None:
        return Check(name="app", status="fail", found="not deployed", advice="gx cloud deploy")
    if not found.is_current():
        there = "of an unknown gx" if found.version is None else f"{found.version}"
        text = f"{found.app} is {there}; here is {here()}"
        return Check(name="app", status="fail", found=text, advice="gx cloud deploy")
    return Check(name="app", status="ok", found=f"{found.app}, {found.version}")


def _model_checks(found: Deployed, recipe: Path | None) -> Iterator[Check]:
    if recipe is None:
        total = size_text(sum(found.models.values()))
        if found.models:
            yield Check(name="models", status="ok", found=f"{len(found.models)} on the volume, {total}")
        else:
            advice = "gx cloud deploy --recipe FILE"
            yield Check(name="models", status="warn", found="none on the volume", advice=advice)
        return
    try:
        wanted = files_of(recipe, [])
    except GxError as error:
        yield Check(name="models", status="fail", found=error.message, advice=error.hint)
        return
    for sha256, file in wanted.items():
        there = found.models.get(sha256)
        if there == file.stat().st_size:
            yield Check(name="models", status="ok", found=f"{file.name}, {size_text(there)}")
        else:
            why = "not on the volume" if there is None else f"{there:,} bytes of {file.stat().st_size:,}"
            advice = f"gx cloud deploy --recipe {recipe}"
            yield Check(name="models", status="fail", found=f"{file.name}: {why}", advice=advice)


def _token() -> tuple[str, str]:
    """The token that the SDK would use, and where it is from; empty if there is none."""
    from modal.config import config, user_config_path

    if not config["token_id"] or not config["token_secret"]:
        return "", ""
    source = "MODAL_TOKEN_ID" if os.environ.get("MODAL_TOKEN_ID") else user_config_path
    return str(config["token_id"]), source


def _server() -> str:
    from modal.config import config

    return str(config["server_url"])


def _known_rates() -> dict[str, Rates]:
    from cloud import prices

    return prices.known()
