"""How a call ended, in the protocol's terms: results that the plane itself gives, and what a status means."""

from __future__ import annotations

from modal_proto import api_pb2

from cloud.loopback.backlog import Ending

_Status = api_pb2.GenericResult
_ENDINGS: dict[int, Ending] = {
    _Status.GENERIC_STATUS_SUCCESS: "succeeded",
    _Status.GENERIC_STATUS_TERMINATED: "cancelled",
    _Status.GENERIC_STATUS_TIMEOUT: "timed_out",
    _Status.GENERIC_STATUS_INTERNAL_FAILURE: "lost",
}


def ending(result: api_pb2.GenericResult) -> Ending:
    return _ENDINGS.get(result.status, "failed")


def reported(item: api_pb2.FunctionPutOutputsItem, task_id: str) -> bytes:
    """What a container put, as the client will get it."""
    given = api_pb2.FunctionGetOutputsItem(
        result=item.result,
        idx=0,
        input_id=item.input_id,
        data_format=item.data_format,
        task_id=task_id,
        input_started_at=item.input_started_at,
        output_created_at=item.output_created_at,
        retry_count=item.retry_count,
    )
    return bytes(given.SerializeToString())


def failed(result: api_pb2.GenericResult) -> bytes:
    """A container's own account of why it couldn't start. The SDK raises the exception that is in it."""
    return bytes(api_pb2.FunctionGetOutputsItem(result=result).SerializeToString())


# A cancelled call says nothing: the SDK raises RemoteError('').
CANCELLED = failed(api_pb2.GenericResult(status=_Status.GENERIC_STATUS_TERMINATED))


def lost(times: int) -> bytes:
    text = f"the container died while it held this input, {times} times"
    return failed(api_pb2.GenericResult(status=_Status.GENERIC_STATUS_INTERNAL_FAILURE, exception=text))


def timed_out(seconds: float) -> bytes:
    text = f"the input took longer than its time-out of {seconds:g} s"
    return failed(api_pb2.GenericResult(status=_Status.GENERIC_STATUS_TIMEOUT, exception=text))


def never_started(reason: str) -> bytes:
    text = f"the container ended before it took an input: {reason}"
    return failed(api_pb2.GenericResult(status=_Status.GENERIC_STATUS_INIT_FAILURE, exception=text))
