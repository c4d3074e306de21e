"""Functions and classes: their definitions, their variants, and the settings of their autoscalers.

A class runs as one *service function*, tagged `Name.*`, that knows all its methods. `with_options` and parameters make
a variant: a function of its own, with a pool of its own, whose definition follows that of its base. Equal options give
the same variant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
from modal_proto import api_pb2

from cloud.loopback.apps import Apps
from cloud.loopback.rpc import Caller, new_id, not_found
from cloud.loopback.scaling import SCALEDOWN_WINDOW_S, Limits

_NO_OPTIONS = api_pb2.FunctionOptions()


class Function(msgspec.Struct, kw_only=True):
    """A function as it was sent. `options` and `parameters` are those of a variant; `base_id` is then its base."""

    function_id: str
    app_id: str
    sent: api_pb2.Function
    base_id: str = ""
    parameters: bytes = b""
    options: api_pb2.FunctionOptions = _NO_OPTIONS
    override: api_pb2.AutoscalerSettings | None = None
    generation: int = 0


class Functions:
    """The RPCs of functions and classes. `on_settings` hears of a function whose autoscaler was set."""

    def __init__(self, apps: Apps, on_settings: Callable[[str], None]) -> None:
        self._apps = apps
        self._on_settings = on_settings
        self._functions: dict[str, Function] = {}

    def get(self, function_id: str) -> Function:
        """:raises GRPCError: NOT_FOUND, if there is none."""
        if function_id not in self._functions:
            raise not_found(f"Function {function_id} not found")
        return self._functions[function_id]

    def of_app(self, app_id: str) -> list[Function]:
        return [function for function in self._functions.values() if function.app_id == app_id]

    def definition(self, function_id: str) -> api_pb2.Function:
        """What a container of it runs: the definition, with a variant's options laid over its base's."""
        function = self.get(function_id)
        if not function.base_id:
            return function.sent
        merged = api_pb2.Function()
        merged.CopyFrom(self.get(function.base_id).sent)
        return _overlaid(merged, function.options)

    def generation(self, function_id: str) -> int:
        """How often its definition, or its base's, was replaced by another."""
        function = self.get(function_id)
        return self.get(function.base_id).generation if function.base_id else function.generation

    def limits(self, function_id: str) -> Limits:
        """Its autoscaler's settings: the definition's, with what `update_autoscaler` said since its deployment."""
        definition, settings = self.definition(function_id), self._settings(function_id)
        return Limits(
            min_containers=settings.min_containers,
            max_containers=settings.max_containers or None,
            buffer_containers=settings.buffer_containers,
            scaledown_window_s=settings.scaledown_window or SCALEDOWN_WINDOW_S,
            inputs_per_container=definition.target_concurrent_inputs or definition.max_concurrent_inputs or 1,
        )

    def layout(self, function_id: str) -> api_pb2.AppLayout:
        """What a container of it is told of its app."""
        app = self._apps.get(self.get(function_id).app_id)
        objects = [
            api_pb2.Object(object_id=known, function_handle_metadata=self._handle(known))
            for known in app.functions.values()
        ]
        objects += [
            api_pb2.Object(object_id=known, class_handle_metadata=api_pb2.ClassHandleMetadata())
            for known in app.classes.values()
        ]
        return api_pb2.AppLayout(objects=objects, function_ids=app.functions, class_ids=app.classes)

    async def FunctionPrecreate(
        self, request: api_pb2.FunctionPrecreateRequest, caller: Caller
    ) -> api_pb2.FunctionPrecreateResponse:
        function_id = request.existing_function_id or new_id("fu")
        if function_id not in self._functions:
            sent = api_pb2.Function(
                function_name=request.function_name,
                function_type=request.function_type,
                method_definitions=request.method_definitions,
                function_schema=request.function_schema,
                supported_input_formats=request.supported_input_formats,
                supported_output_formats=request.supported_output_formats,
            )
            self._functions[function_id] = Function(function_id=function_id, app_id=request.app_id, sent=sent)
        return api_pb2.FunctionPrecreateResponse(function_id=function_id, handle_metadata=self._handle(function_id))

    async def FunctionCreate(
        self, request: api_pb2.FunctionCreateRequest, caller: Caller
    ) -> api_pb2.FunctionCreateResponse:
        sent = request.function
        if request.HasField("function_data") and request.function_data.ranked_functions:
            sent = request.function_data.ranked_functions[0].function
        known = self._functions.get(request.existing_function_id)
        function = known or Function(function_id=new_id("fu"), app_id=request.app_id, sent=sent)
        if function.sent != sent:
            function.sent, function.override = sent, None
            function.generation += 1
        self._functions[function.function_id] = function
        return api_pb2.FunctionCreateResponse(
            function_id=function.function_id,
            function=sent,
            handle_metadata=self._handle(function.function_id),
            function_data=self._summary(function.function_id),
        )

    async def FunctionGet(self, request: api_pb2.FunctionGetRequest, caller: Caller) -> api_pb2.FunctionGetResponse:
        function_id = self._apps.tagged(request.app_name, request.object_tag, "Function")
        return api_pb2.FunctionGetResponse(
            function_id=function_id, handle_metadata=self._handle(function_id), function=self._summary(function_id)
        )

    async def FunctionGetById(
        self, request: api_pb2.FunctionGetByIdRequest, caller: Caller
    ) -> api_pb2.FunctionGetByIdResponse:
        return api_pb2.FunctionGetByIdResponse(
            handle_metadata=self._handle(request.function_id), function=self._summary(request.function_id)
        )

    async def FunctionBindParams(
        self, request: api_pb2.FunctionBindParamsRequest, caller: Caller
    ) -> api_pb2.FunctionBindParamsResponse:
        base = self.get(request.function_id)
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()[:20]
        bound = self._functions.setdefault(
            f"fu-{digest}",
            Function(
                function_id=f"fu-{digest}",
                app_id=base.app_id,
                sent=base.sent,
                base_id=base.function_id,
                parameters=request.serialized_params,
                options=request.function_options,
            ),
        )
        return api_pb2.FunctionBindParamsResponse(
            bound_function_id=bound.function_id, handle_metadata=self._handle(bound.function_id)
        )

    async def ClassCreate(self, request: api_pb2.ClassCreateRequest, caller: Caller) -> api_pb2.ClassCreateResponse:
        class_id = request.existing_class_id or new_id("cs")
        return api_pb2.ClassCreateResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())

    async def ClassGet(self, request: api_pb2.ClassGetRequest, caller: Caller) -> api_pb2.ClassGetResponse:
        class_id = self._apps.tagged(request.app_name, request.object_tag, "Cls")
        return api_pb2.ClassGetResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())

    async def FunctionUpdateSchedulingParams(
        self, request: api_pb2.FunctionUpdateSchedulingParamsRequest, caller: Caller
    ) -> api_pb2.FunctionUpdateSchedulingParamsResponse:
        function = self.get(request.function_id)
        function.override = function.override or api_pb2.AutoscalerSettings()
        function.override.MergeFrom(request.settings)
        self._on_settings(function.function_id)
        return api_pb2.FunctionUpdateSchedulingParamsResponse(current_settings=self._settings(function.function_id))

    async def FunctionGetSchedulingParams(
        self, request: api_pb2.FunctionGetSchedulingParamsRequest, caller: Caller
    ) -> api_pb2.FunctionGetSchedulingParamsResponse:
        configuration = api_pb2.AutoscalerConfiguration(settings=self._settings(request.function_id))
        return api_pb2.FunctionGetSchedulingParamsResponse(autoscaler_configuration=configuration)

    def _settings(self, function_id: str) -> api_pb2.AutoscalerSettings:
        function, merged = self.get(function_id), api_pb2.AutoscalerSettings()
        merged.CopyFrom(self.definition(function_id).autoscaler_settings)
        if function.override is not None:
            merged.MergeFrom(function.override)
        return merged

    def _handle(self, function_id: str) -> api_pb2.FunctionHandleMetadata:
        """What a client keeps of a function. Without an input plane's URL it talks to this server for everything."""
        function, definition = self.get(function_id), self.definition(function_id)
        handle = api_pb2.FunctionHandleMetadata(
            function_name=definition.function_name,
            function_type=definition.function_type,
            definition_id=f"de-{function_id}-{function.generation}",
            class_parameter_info=definition.class_parameter_info,
            function_schema=definition.function_schema,
            supported_input_formats=definition.supported_input_formats,
            supported_output_formats=definition.supported_output_formats,
            app_id=function.app_id,
            base_function_id=function.base_id,
        )
        for name, method in definition.method_definitions.items():
            handle.method_handle_metadata[name].CopyFrom(
                api_pb2.FunctionHandleMetadata(
                    function_name=method.function_name,
                    function_type=method.function_type,
                    is_method=True,
                    use_method_name=name,
                    function_schema=method.function_schema,
                    supported_input_formats=method.supported_input_formats,
                    supported_output_formats=method.supported_output_formats,
                    app_id=function.app_id,
                )
            )
        return handle

    def _summary(self, function_id: str) -> api_pb2.FunctionData:
        definition = self.definition(function_id)
        ranked = api_pb2.FunctionData.RankedFunction(rank=0, function=definition)
        return api_pb2.FunctionData(
            module_name=definition.module_name,
            function_name=definition.function_name,
            function_type=definition.function_type,
            is_class=definition.is_class,
            autoscaler_settings=definition.autoscaler_settings,
            timeout_secs=definition.timeout_secs,
            ranked_functions=[ranked],
        )


def _overlaid(definition: api_pb2.Function, options: api_pb2.FunctionOptions) -> api_pb2.Function:
    """A definition with the options of `with_options` and `with_concurrency` laid over it."""
    definition.resources.MergeFrom(options.resources)
    if options.replace_secret_ids:
        definition.secret_ids[:] = options.secret_ids
    if options.replace_volume_mounts:
        del definition.volume_mounts[:]
        definition.volume_mounts.extend(options.volume_mounts)
    scaler = definition.autoscaler_settings
    if options.HasField("concurrency_limit"):
        scaler.max_containers = options.concurrency_limit
    if options.HasField("buffer_containers"):
        scaler.buffer_containers = options.buffer_containers
    if options.HasField("task_idle_timeout_secs"):
        scaler.scaledown_window = options.task_idle_timeout_secs
    if options.HasField("timeout_secs"):
        definition.timeout_secs = options.timeout_secs
    if options.HasField("max_concurrent_inputs"):
        definition.max_concurrent_inputs = options.max_concurrent_inputs
        definition.target_concurrent_inputs = options.target_concurrent_inputs
    return definition
