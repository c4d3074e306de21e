"""What clients ask of calls: spawn, follow, collect, cancel, by the id that outlives them.

Who waits for a result holds a future that is registered in the same step as the look at the call: a result that comes
in between can't be missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpclib
from grpclib.const import Status
from modal_proto import api_pb2

from cloud.loopback import outcomes
from cloud.loopback.backlog import Backlog, Call
from cloud.loopback.containers import Containers
from cloud.loopback.faults import FaultCounter
from cloud.loopback.functions import Functions
from cloud.loopback.rpc import Caller, new_id, not_found, settled


class Calls:
    """The RPCs of function calls on the client's side. `containers` is set once there is something to run them."""

    def __init__(
        self,
        *,
        functions: Functions,
        backlog: Backlog,
        faults: FaultCounter,
        is_stopped: Callable[[str], bool],
        now: Callable[[], float],
    ) -> None:
        self._functions, self._backlog, self._faults = functions, backlog, faults
        self._is_stopped, self._now = is_stopped, now
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self.containers: Containers

    def ended(self, call: Call) -> None:
        """A call ended: whoever waits for it looks again."""
        for future in self._waiting.pop(call.call_id, ()):
            if not future.done():
                future.set_result(None)

    def stop(self, function_id: str) -> None:
        """The app of a function stopped: what isn't finished is cancelled."""
        for call in [call for call in self._backlog if call.pool == function_id and call.ending is None]:
            self._cancel(call)
        self.containers.end_all(function_id, "its app stopped")

    async def FunctionMap(self, request: api_pb2.FunctionMapRequest, caller: Caller) -> api_pb2.FunctionMapResponse:
        if request.function_call_type != api_pb2.FUNCTION_CALL_TYPE_UNARY or len(request.pipelined_inputs) != 1:
            raise grpclib.GRPCError(Status.UNIMPLEMENTED, "the loopback speaks spawn and remote, not map")
        function = self._functions.get(request.function_id)
        if self._is_stopped(function.function_id):
            raise not_found(f"App {function.app_id} has stopped")
        if self._faults.is_refused():
            raise grpclib.GRPCError(Status.RESOURCE_EXHAUSTED, "refused for quota, as asked")
        item = request.pipelined_inputs[0]
        call = Call(
            call_id=new_id("fc"),
            input_id=new_id("in"),
            pool=function.function_id,
            argument=item.input.SerializeToString(),
            is_async=request.function_call_invocation_type == api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC,
        )
        self._backlog.add(call)
        self.containers.pump(call.pool)
        return api_pb2.FunctionMapResponse(
            function_call_id=call.call_id,
            pipelined_inputs=[api_pb2.FunctionPutInputsResponseItem(idx=item.idx, input_id=call.input_id)],
        )

    async def FunctionGetOutputs(
        self, request: api_pb2.FunctionGetOutputsRequest, caller: Caller
    ) -> api_pb2.FunctionGetOutputsResponse:
        call = self._find(request.function_call_id)
        if call.ending is None and request.timeout > 0:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(call.call_id, [])
            waiting.append(future)
            try:
                await settled(future, request.timeout)
            finally:
                if future in waiting:
                    waiting.remove(future)
        if call.ending is None:
            return api_pb2.FunctionGetOutputsResponse(num_unfinished_inputs=1)
        if self._now() - (call.ended_at_s or 0.0) > self._faults.faults.results_kept_s:
            call.result = b""
        if not call.result:
            return api_pb2.FunctionGetOutputsResponse()
        output = api_pb2.FunctionGetOutputsItem.FromString(call.result)
        return api_pb2.FunctionGetOutputsResponse(idxs=[0], outputs=[output], last_entry_id="1-0")

    async def FunctionCallCancel(self, request: api_pb2.FunctionCallCancelRequest, caller: Caller) -> None:
        self._cancel(self._find(request.function_call_id), and_container=request.terminate_containers)

    async def FunctionCallFromId(
        self, request: api_pb2.FunctionCallFromIdRequest, caller: Caller
    ) -> api_pb2.FunctionCallFromIdResponse:
        call = self._find(request.function_call_id)
        metadata = api_pb2.FunctionCallHandleMetadata(
            function_id=call.pool, app_id=self._functions.get(call.pool).app_id
        )
        return api_pb2.FunctionCallFromIdResponse(function_call_id=call.call_id, num_inputs=1, metadata=metadata)

    async def FunctionGetCurrentStats(
        self, request: api_pb2.FunctionGetCurrentStatsRequest, caller: Caller
    ) -> api_pb2.FunctionStats:
        self._functions.get(request.function_id)
        live = self.containers.live(request.function_id)
        return api_pb2.FunctionStats(
            backlog=self._backlog.queued(request.function_id),
            num_total_tasks=len(live),
            num_running_inputs=sum(self._backlog.held(container.task_id) for container in live),
        )

    def _find(self, call_id: str) -> Call:
        call = self._backlog.find(call_id)
        if call is None:
            raise not_found(f"FunctionCall {call_id} not found")
        return call

    def _cancel(self, call: Call, *, and_container: bool = False) -> None:
        holder = self.containers.find(call.holder) if call.holder else None
        if self._backlog.end(call.call_id, "cancelled", outcomes.CANCELLED, self._now()) is None:
            return
        self.ended(call)
        if holder is not None:
            self.containers.cancel(holder, and_container=and_container)
        else:
            self.containers.pump(call.pool)
