"""Where traces and metrics go: a collector, as the standard variables OTEL_EXPORTER_OTLP_* name it.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ says what they mean. Headers, and the path of an address,
are secrets: of a collector that has some, nothing is written down but scheme and host. It reads no environment itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from gx import __version__
from gx.core.bodies.telemetry import Sort
from gx.core.errors import UsageError
from gx.core.message import Value
from gx.otel.values import Attributes

DEFAULT = "http://localhost:4318"
"""Of the specification, as is the protocol's own path of each sort."""
PATHS: dict[Sort, str] = {"traces": "/v1/traces", "metrics": "/v1/metrics"}
PROTOCOL = "http/protobuf"
TIMEOUT_MS = 10_000
"""Of the specification; it is the most, too, as a run's end waits for it."""
_PREFIX = "OTEL_EXPORTER_OTLP"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Receiver(Value, frozen=True, kw_only=True):
    """What takes one sort. `certificate` is a file of those that its own is checked by; the client's own are files."""

    address: str
    headers: dict[str, str] = {}
    timeout_s: float = TIMEOUT_MS / 1000
    is_gzipped: bool = False
    certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""


class Collector(Value, frozen=True, kw_only=True):
    """What takes a run's traces and metrics; `None` of these are not sent. `attributes` are the user's own."""

    traces: Receiver | None = None
    metrics: Receiver | None = None
    service: str = "gx"
    attributes: dict[str, str] = {}

    @property
    def to(self) -> str:
        """Where it goes, as it is written down: scheme and host."""
        receiver = self.traces or self.metrics
        return "" if receiver is None else destination(receiver)

    def receiver(self, sort: Sort) -> Receiver | None:
        return self.traces if sort == "traces" else self.metrics

    def resource(self, run: str) -> Attributes:
        """What sends: an instance of gx is a run, so that metrics of two runs are two series."""
        return {
            **self.attributes,
            "service.name": self.service,
            "service.version": __version__,
            "service.instance.id": run,
        }


def collector_of(environment: Mapping[str, str]) -> Collector | None:
    """The collector that these variables name; `None` if they switch OpenTelemetry off.

    :raises UsageError: naming the variable that can't be followed.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    attributes = _pairs(environment, "OTEL_RESOURCE_ATTRIBUTES")
    service = environment.get("OTEL_SERVICE_NAME") or attributes.pop("service.name", "gx")
    found = Collector(
        traces=_receiver(environment, "traces"),
        metrics=_receiver(environment, "metrics"),
        service=service,
        attributes=attributes,
    )
    return None if found.traces is None and found.metrics is None else found


def check_collector(collector: Collector, *, is_offline: bool) -> None:
    """:raises UsageError: if nothing can be sent there."""
    for receiver in (collector.traces, collector.metrics):
        if receiver is None:
            continue
        try:
            parts = urlsplit(receiver.address)
            host, _ = parts.hostname, parts.port
        except ValueError:
            parts, host = urlsplit(""), None
        is_printable = all(c.isprintable() and not c.isspace() for c in receiver.address)
        if parts.scheme.lower() not in ("http", "https") or not host or not is_printable:
            raise UsageError(
                f"{_PREFIX}_ENDPOINT: expected an address such as {DEFAULT}, got one without a scheme or a host"
            )
        if is_offline and host not in _LOOPBACK:
            raise UsageError(f"OpenTelemetry: nothing is sent to {host}, as gx is offline (GX_OFFLINE)")


def destination(receiver: Receiver) -> str:
    """What is written down of a receiver: scheme and host."""
    parts = urlsplit(receiver.address)
    return f"{parts.scheme.lower()}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def without_secrets(collector: Collector | None) -> Collector | None:
    """The collector as it may be written down; `None` if it has anything that might be a secret."""
    if collector is None:
        return None
    has_secrets = any(
        receiver is not None and _has_secrets(receiver, path)
        for receiver, path in ((collector.traces, PATHS["traces"]), (collector.metrics, PATHS["metrics"]))
    )
    return None if has_secrets else collector


def _has_secrets(receiver: Receiver, path: str) -> bool:
    parts = urlsplit(receiver.address)
    return bool(receiver.headers or parts.username or parts.password or parts.query or parts.path != path)


def _receiver(environment: Mapping[str, str], sort: Sort) -> Receiver | None:
    if (exporter := environment.get(f"OTEL_{sort.upper()}_EXPORTER", "").strip()) == "none":
        return None
    if exporter not in ("", "otlp"):
        raise UsageError(f"OTEL_{sort.upper()}_EXPORTER: expected otlp or none, got {exporter!r}")

    def named(name: str, default: str = "") -> tuple[str, str]:
        own, every = f"{_PREFIX}_{sort.upper()}_{name}", f"{_PREFIX}_{name}"
        return next(((v, environment[v].strip()) for v in (own, every) if environment.get(v)), (every, default))

    variable, protocol = named("PROTOCOL", PROTOCOL)
    if protocol != PROTOCOL:
        raise UsageError(f"{variable}: expected {PROTOCOL}, got {protocol!r}", hint="gx speaks OTLP over HTTP only")
    variable, compression = named("COMPRESSION", "none")
    if compression not in ("none", "gzip"):
        raise UsageError(f"{variable}: expected none or gzip, got {compression!r}")
    variable, timeout = named("TIMEOUT", str(TIMEOUT_MS))
    if not timeout.isdecimal() or int(timeout) == 0:
        raise UsageError(f"{variable}: expected a number of milliseconds, got {timeout!r}")
    variable, _ = named("HEADERS")
    whole = environment.get(f"{_PREFIX}_{sort.upper()}_ENDPOINT", "").strip()
    base = environment.get(f"{_PREFIX}_ENDPOINT", "").strip() or DEFAULT
    return Receiver(
        address=whole or base.rstrip("/") + PATHS[sort],
        headers=_pairs(environment, variable),
        timeout_s=min(int(timeout), TIMEOUT_MS) / 1000,
        is_gzipped=compression == "gzip",
        certificate=named("CERTIFICATE")[1],
        client_certificate=named("CLIENT_CERTIFICATE")[1],
        client_key=named("CLIENT_KEY")[1],
    )


def _pairs(environment: Mapping[str, str], variable: str) -> dict[str, str]:
    """`name=value` pairs with commas between, each value percent-encoded, as in W3C's Baggage.

    :raises UsageError: naming the variable, and nothing of it, as it may be a secret.
    """
    found: dict[str, str] = {}
    for number, pair in enumerate(filter(str.strip, environment.get(variable, "").split(",")), start=1):
        name, equals, value = pair.partition("=")
        name, value = unquote(name.strip()), unquote(value.strip())
        if not equals or not name or not (name + value).isprintable():
            raise UsageError(
                f"{variable}: expected name=value pairs with commas between, got another as number {number}"
            )
        found[name] = value
    return found
