"""Apps: made, deployed under a name, found by it, heard of and stopped.

An app is a list of functions and classes by tag; what they are is in `functions`, what runs is in `fleet`. Stopping and
redeploying are told to `on_stop` and `on_publish`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from modal_proto import api_pb2

from cloud.loopback.images import BUILDER_VERSION
from cloud.loopback.rpc import Caller, new_id, not_found

ENVIRONMENT = "main"


class App(msgspec.Struct, kw_only=True):
    """One app. `name` is empty until it is deployed; `functions` and `classes` are ids by tag."""

    app_id: str
    description: str
    name: str = ""
    is_stopped: bool = False
    functions: dict[str, str] = {}
    classes: dict[str, str] = {}


class Apps:
    """The RPCs of apps, environments and sessions."""

    def __init__(self, on_publish: Callable[[App], None], on_stop: Callable[[App], None]) -> None:
        self._apps: dict[str, App] = {}
        self._on_publish, self._on_stop = on_publish, on_stop

    def get(self, app_id: str) -> App:
        """:raises GRPCError: NOT_FOUND, if there is none."""
        if app_id not in self._apps:
            raise not_found(f"App {app_id} not found")
        return self._apps[app_id]

    def deployed(self, name: str) -> App | None:
        """The live app of that name."""
        return next((app for app in self._apps.values() if app.name == name and not app.is_stopped), None)

    def tagged(self, name: str, tag: str, kind: str) -> str:
        """The id of a function (`kind` "Function") or a class ("Cls") of a deployed app, by its tag.

        :raises GRPCError: NOT_FOUND, if there is no such app or tag.
        """
        app = self.deployed(name)
        if app is None:
            raise not_found(f"App '{name}' not found in environment '{ENVIRONMENT}'")
        found = (app.classes if kind == "Cls" else app.functions).get(tag)
        if found is None:
            raise not_found(f"{kind} '{tag}' not found in app '{name}'")
        return found

    async def ClientHello(self, request: object, caller: Caller) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse()

    async def EnvironmentGetOrCreate(
        self, request: api_pb2.EnvironmentGetOrCreateRequest, caller: Caller
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER_VERSION)
        name = request.deployment_name or ENVIRONMENT
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id="en-loopback", metadata=api_pb2.EnvironmentMetadata(name=name, settings=settings)
        )

    async def AppCreate(self, request: api_pb2.AppCreateRequest, caller: Caller) -> api_pb2.AppCreateResponse:
        return api_pb2.AppCreateResponse(app_id=self._add(request.description).app_id)

    async def AppGetOrCreate(
        self, request: api_pb2.AppGetOrCreateRequest, caller: Caller
    ) -> api_pb2.AppGetOrCreateResponse:
        app = self.deployed(request.app_name)
        if app is None:
            if request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
                raise not_found(f"App '{request.app_name}' not found")
            app = self._add(request.app_name)
            app.name = request.app_name
        return api_pb2.AppGetOrCreateResponse(app_id=app.app_id)

    async def AppGetByDeploymentName(
        self, request: api_pb2.AppGetByDeploymentNameRequest, caller: Caller
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        app = self.deployed(request.name)
        return api_pb2.AppGetByDeploymentNameResponse(app_id=app.app_id if app else "", environment_name=ENVIRONMENT)

    async def AppGetLayout(self, request: api_pb2.AppGetLayoutRequest, caller: Caller) -> api_pb2.AppGetLayoutResponse:
        app = self.get(request.app_id)
        layout = api_pb2.AppLayout(function_ids=app.functions, class_ids=app.classes)
        return api_pb2.AppGetLayoutResponse(app_layout=layout)

    async def AppPublish(self, request: api_pb2.AppPublishRequest, caller: Caller) -> api_pb2.AppPublishResponse:
        app = self.get(request.app_id)
        app.name = request.name or app.name
        app.functions, app.classes = dict(request.function_ids), dict(request.class_ids)
        self._on_publish(app)
        return api_pb2.AppPublishResponse(url=f"loopback:{app.app_id}", deployed_at=time.time())

    async def AppHeartbeat(self, request: api_pb2.AppHeartbeatRequest, caller: Caller) -> None:
        self.get(request.app_id)

    async def AppClientDisconnect(self, request: api_pb2.AppClientDisconnectRequest, caller: Caller) -> None:
        """The client of an ephemeral app leaves: the app ends with it."""
        self._stop(self.get(request.app_id))

    async def AppStop(self, request: api_pb2.AppStopRequest, caller: Caller) -> None:
        self._stop(self.get(request.app_id))

    async def AppList(self, request: api_pb2.AppListRequest, caller: Caller) -> api_pb2.AppListResponse:
        items = [
            api_pb2.AppListResponse.AppListItem(
                app_id=app.app_id,
                description=app.description,
                name=app.name,
                state=api_pb2.APP_STATE_STOPPED if app.is_stopped else api_pb2.APP_STATE_DEPLOYED,
            )
            for app in self._apps.values()
        ]
        return api_pb2.AppListResponse(apps=items)

    def _add(self, description: str) -> App:
        app = App(app_id=new_id("ap"), description=description, functions={}, classes={})
        self._apps[app.app_id] = app
        return app

    def _stop(self, app: App) -> None:
        if not app.is_stopped:
            app.is_stopped = True
            self._on_stop(app)
