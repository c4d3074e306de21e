"""What becomes of calls when the way to the landlord breaks: they are asked for again, and nothing fails by it."""

from __future__ import annotations

import aiohttp
import grpclib.exceptions
import pytest

from cloud.rented import mapped
from gx.core.errors import CloudError


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        TimeoutError("no answer"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("cut short"),
        grpclib.exceptions.StreamTerminatedError("gone"),
        grpclib.exceptions.ProtocolError("garbled"),
    ],
)
def test_a_connection_that_breaks_is_an_error_of_the_cloud_also_where_what_is_large_goes_by_http(
    error: Exception,
) -> None:
    with pytest.raises(CloudError), mapped():
        raise error
