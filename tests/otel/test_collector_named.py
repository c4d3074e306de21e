"""Which collector the standard variables name, what is refused of them, and what of it is written down."""

from __future__ import annotations

import pytest

from gx.core.errors import UsageError
from gx.otel.collector import Collector, check_collector, collector_of, destination, without_secrets

P = "OTEL_EXPORTER_OTLP_"


def collector(**variables: str) -> Collector:
    found = collector_of(variables)
    assert found is not None and found.traces is not None
    return found


def test_without_variables_it_is_the_one_on_this_machine() -> None:
    found = collector()
    assert found.traces is not None and found.metrics is not None
    assert found.traces.address == "http://localhost:4318/v1/traces"
    assert found.metrics.address == "http://localhost:4318/v1/metrics"
    assert found.traces.timeout_s == 10.0
    assert found.resource("r-1")["service.name"] == "gx"


def test_a_variable_of_one_sort_wins_over_that_of_all() -> None:
    found = collector(
        OTEL_EXPORTER_OTLP_ENDPOINT="https://c.example:4318/base/",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://t.example/whole",
        OTEL_EXPORTER_OTLP_HEADERS="api-key=a%20b, x = y",
        OTEL_EXPORTER_OTLP_METRICS_HEADERS="only=metrics",
        OTEL_EXPORTER_OTLP_TIMEOUT="2500",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    )
    assert found.traces is not None and found.metrics is not None
    assert (found.traces.address, found.metrics.address) == (
        "https://t.example/whole", "https://c.example:4318/base/v1/metrics",
    )  # fmt: skip
    assert found.traces.headers == {"api-key": "a b", "x": "y"}
    assert found.metrics.headers == {"only": "metrics"}
    assert (found.traces.timeout_s, found.traces.is_gzipped) == (2.5, True)


def test_what_is_switched_off_is_not_sent() -> None:
    assert collector_of({"OTEL_SDK_DISABLED": "true"}) is None
    assert collector_of({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}) is None
    assert collector(OTEL_METRICS_EXPORTER="none").metrics is None


def test_a_service_and_its_attributes_are_the_users_own() -> None:
    found = collector(OTEL_RESOURCE_ATTRIBUTES="deployment.environment=lab,service.name=mine")
    assert found.resource("r-1") | {"service.version": ""} == {
        "deployment.environment": "lab", "service.name": "mine", "service.version": "", "service.instance.id": "r-1",
    }  # fmt: skip
    assert collector(OTEL_SERVICE_NAME="other").service == "other"


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        (P + "PROTOCOL", "grpc", "expected http/protobuf, got 'grpc'"),
        (P + "COMPRESSION", "zstd", "expected none or gzip"),
        (P + "TIMEOUT", "10s", "expected a number of milliseconds"),
        (P + "TIMEOUT", "0", "expected a number of milliseconds"),
        (P + "HEADERS", "hunter2", "got another as number 1"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "expected otlp or none"),
        (P + "ENDPOINT", "localhost:4318", "expected an address such as"),
        (P + "ENDPOINT", "http://a b", "expected an address such as"),
        (P + "ENDPOINT", "http://h:port", "expected an address such as"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name_without_a_secret(variable: str, value: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        check_collector(collector(**{variable: value}), is_offline=False)
    assert refused.value.message.startswith(variable)
    assert "hunter2" not in str(refused.value.message) + str(refused.value.hint)


def test_offline_only_this_machine_is_told() -> None:
    check_collector(collector(), is_offline=True)
    with pytest.raises(UsageError, match=r"nothing is sent to c\.example, as gx is offline"):
        check_collector(collector(OTEL_EXPORTER_OTLP_ENDPOINT="https://c.example"), is_offline=True)


def test_a_collector_with_a_secret_is_not_written_down() -> None:
    plain = collector(OTEL_EXPORTER_OTLP_ENDPOINT="https://c.example:4318")
    assert without_secrets(plain) == plain
    for address in ("https://u:pw@c.example", "https://c.example/t0k3n", "https://c.example/v1/traces?k=1"):
        assert without_secrets(collector(OTEL_EXPORTER_OTLP_ENDPOINT=address)) is None
    assert without_secrets(collector(OTEL_EXPORTER_OTLP_HEADERS="api-key=s")) is None
    assert without_secrets(None) is None


def test_of_an_address_only_scheme_and_host_are_named_of_a_collector() -> None:
    found = collector(OTEL_EXPORTER_OTLP_ENDPOINT="https://u:pw@C.example:4318/t0k3n").traces
    assert found is not None and destination(found) == "https://c.example:4318"
