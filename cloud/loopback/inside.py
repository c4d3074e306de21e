"""What containers ask: an input, to hand in its result, a heartbeat, and to say why they couldn't start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from modal_proto import api_pb2

from cloud.loopback import outcomes
from cloud.loopback.backlog import Backlog, Call
from cloud.loopback.containers import Container, Containers
from cloud.loopback.functions import Functions
from cloud.loopback.process import HEARTBEAT_S
from cloud.loopback.rpc import Caller, not_found, settled

# How long a request for an input is held; the SDK asks again at once.
_INPUT_POLL_S = 30.0


class Inside:
    """The RPCs of the container entry point."""

    def __init__(
        self, *, functions: Functions, backlog: Backlog, containers: Containers, on_ended: Callable[[Call], None]
    ) -> None:
        self._functions, self._backlog, self._containers, self._on_ended = functions, backlog, containers, on_ended

    async def ContainerHello(self, request: object, caller: Caller) -> None:
        self._container(caller)

    async def FunctionGetInputs(
        self, request: api_pb2.FunctionGetInputsRequest, caller: Caller
    ) -> api_pb2.FunctionGetInputsResponse:
        container = self._container(caller)
        future = self._containers.ask(container)
        try:
            if not await settled(future, _INPUT_POLL_S):
                self._containers.unask(container, future)
                return api_pb2.FunctionGetInputsResponse()
        except asyncio.CancelledError:
            self._containers.unask(container, future)
            raise
        call = future.result()
        if call is None:
            return api_pb2.FunctionGetInputsResponse(inputs=[api_pb2.FunctionGetInputsItem(kill_switch=True)])
        return api_pb2.FunctionGetInputsResponse(inputs=[_item(call)])

    async def FunctionPutOutputs(self, request: api_pb2.FunctionPutOutputsRequest, caller: Caller) -> None:
        container = self._containers.find(caller.task_id)
        if container is None:
            return
        for item in request.outputs:
            result = outcomes.reported(item, caller.task_id)
            call = self._containers.report(container, item.input_id, outcomes.ending(item.result), result)
            if call is not None:
                self._on_ended(call)

    async def FunctionGetDynamicConcurrency(
        self, request: api_pb2.FunctionGetDynamicConcurrencyRequest, caller: Caller
    ) -> api_pb2.FunctionGetDynamicConcurrencyResponse:
        """Up to its maximum while anything waits, its target otherwise."""
        waits = self._backlog.queued(self._container(caller).function_id)
        concurrency = request.max_concurrency if waits else request.target_concurrency
        return api_pb2.FunctionGetDynamicConcurrencyResponse(concurrency=concurrency)

    async def ContainerHeartbeat(
        self, request: api_pb2.ContainerHeartbeatRequest, caller: Caller
    ) -> api_pb2.ContainerHeartbeatResponse:
        """Held until an input is to be cancelled, or until just before the SDK would give up and ask again.

        An input that is still held is named again each time: a container may hear of it before it has begun it.
        """
        container = self._container(caller)
        if not container.has_news:
            container.beating = asyncio.get_running_loop().create_future()
            await settled(container.beating, HEARTBEAT_S - 0.1)
        container.has_news = False
        held = [call.input_id for call in self._backlog.holds(caller.task_id) if call.ending == "cancelled"]
        event = api_pb2.CancelInputEvent(input_ids=held) if held else None
        return api_pb2.ContainerHeartbeatResponse(cancel_input_event=event)

    async def TaskResult(self, request: api_pb2.TaskResultRequest, caller: Caller) -> None:
        """It failed in its import or in an `enter` method, and goes."""
        self._container(caller).start_failure = outcomes.failed(request.result)

    async def ContainerStop(
        self, request: api_pb2.ContainerStopRequest, caller: Caller
    ) -> api_pb2.ContainerStopResponse:
        container = self._containers.find(request.task_id)
        if container is not None:
            self._containers.leave(container, "stopped by a client")
        return api_pb2.ContainerStopResponse()

    def _container(self, caller: Caller) -> Container:
        container = self._containers.find(caller.task_id)
        if container is None:
            raise not_found(f"container {caller.task_id or '(no task id was sent)'} is not running")
        return container


def _item(call: Call) -> api_pb2.FunctionGetInputsItem:
    kind = api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC if call.is_async else api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC
    return api_pb2.FunctionGetInputsItem(
        input_id=call.input_id,
        input=api_pb2.FunctionInput.FromString(call.argument),
        function_call_id=call.call_id,
        function_call_invocation_type=kind,
    )
