"""Where spans are sent: URLs, OpenTelemetry's variables, proxies, TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wherefrom import exporters
from wherefrom.exceptions import SettingsError, StoreUnavailableError
from wherefrom.exporters import OTLPExporter
from wherefrom.exporters.endpoint import Endpoint, checked_headers, resource_variables
from wherefrom.exporters.otlp import open_otlp
from wherefrom.exporters.targets import open_exporter
from wherefrom.sinks import ConsoleSink, JsonLinesSink

from .conftest import MakeExporter, MakeTrace
from .receiver import Receiver, attributes_of


class TestEndpoint:
    @pytest.mark.parametrize(
        ("url", "shown", "target"),
        [
            ("http://host:4318", "http://host:4318/v1/traces", "/v1/traces"),
            ("http://host:4318/", "http://host:4318/v1/traces", "/v1/traces"),
            ("https://host", "https://host/v1/traces", "/v1/traces"),
            ("https://host/otlp", "https://host/otlp", "/otlp"),
            ("http://host:4318/a/?key=1", "http://host:4318/a/", "/a/?key=1"),
            ("http://host?key=1", "http://host/v1/traces", "/v1/traces?key=1"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces", "/v1/traces"),
            ("http://user:pw@host:1", "http://host:1/v1/traces", "/v1/traces"),
        ],
    )
    def test_a_url_taken_apart(self, url: str, shown: str, target: str) -> None:
        endpoint = Endpoint.parse(url)
        assert (endpoint.url, endpoint.target) == (shown, target)

    def test_default_ports(self) -> None:
        assert Endpoint.parse("http://h").origin == ("http", "h", 80)
        assert Endpoint.parse("https://h").origin == ("https", "h", 443)

    @pytest.mark.parametrize(
        ("userinfo", "header"),
        [
            ("user:pass", "dXNlcjpwYXNz"),
            ("user", "dXNlcjo="),
            ("u%40x:p%3Aw", "dUB4OnA6dw=="),
            (":key", "OmtleQ=="),
        ],
    )
    def test_credentials_are_basic_authentication(self, userinfo: str, header: str) -> None:
        """RFC 7617."""
        assert Endpoint.parse(f"http://{userinfo}@host").authorization == f"Basic {header}"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "host:4318",
            "ftp://host",
            "http://",
            "http://host:x",
            "http://host/#a",
            "http://[::1",
            "http://h/\u00e9",
        ],
    )
    def test_what_is_no_endpoint_is_said_without_secrets(self, url: str) -> None:
        for told in (url, url.replace("//", "//user:secret@") + "?key=secret"):
            with pytest.raises(SettingsError, match="cannot be used") as caught:
                Endpoint.parse(told)
            assert "secret" not in str(caught.value)

    def test_secrets_are_not_in_its_repr(self) -> None:
        assert "secret" not in repr(Endpoint.parse("http://user:secret@host?key=secret"))

    @pytest.mark.parametrize(
        "headers", [{"a b": "x"}, {"": "x"}, {"x": "secret\r\ny: z"}, {"x": "secret\u20ac"}]
    )
    def test_headers_that_cannot_be_sent(self, headers: dict[str, str]) -> None:
        with pytest.raises(SettingsError) as caught:
            checked_headers(headers)
        assert "secret" not in str(caught.value)


def opened(target: str, **environ: str) -> OTLPExporter:
    return open_otlp(target, environ)


def told(exporter: OTLPExporter) -> dict[str, str]:
    """The headers that are sent, except ours."""
    return {name: value for name, value in exporter._collector.headers.items() if name != "user-agent"}


class TestTargets:
    def test_forms_of_the_setting(self) -> None:
        assert repr(opened("otlp+http://h:4318")) == "OTLPExporter('http://h:4318/v1/traces')"
        assert repr(opened("otlp+https://h/x")) == "OTLPExporter('https://h/x')"
        assert repr(opened("otlp:")) == "OTLPExporter('http://localhost:4318/v1/traces')"

    def test_a_query_is_part_of_the_url(self) -> None:
        assert opened("otlp+http://h?key=1")._collector.endpoint.target == "/v1/traces?key=1"

    @pytest.mark.parametrize(
        "target",
        [
            "otlp",
            "otlp:x",
            "otlp+grpc://h",
            "otlp://h",
            "otlp+http:",
            "otlp+http://[::1",
        ],
    )
    def test_other_forms_are_refused(self, target: str) -> None:
        with pytest.raises(SettingsError, match="cannot be used"):
            opened(target)

    def test_all_exporters_open_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS", raising=False)
        assert isinstance(open_exporter("otlp+http://h"), OTLPExporter)
        assert isinstance(open_exporter("console:"), ConsoleSink)
        assert isinstance(open_exporter(f"jsonl:///{tmp_path}/x"), JsonLinesSink)
        with pytest.raises(SettingsError):
            open_exporter("kafka:")

    def test_names_of_the_package(self) -> None:
        assert dir(exporters) == exporters.__all__ == sorted(exporters.__all__)
        assert all(getattr(exporters, name) for name in exporters.__all__)
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            exporters.nothing  # noqa: B018


class TestEnvironment:
    """https://opentelemetry.io/docs/specs/otel/protocol/exporter/."""

    def test_the_endpoint_of_all_signals_is_a_base(self) -> None:
        for base in ("http://h:4318/base", "http://h:4318/base/"):
            exporter = opened("otlp:", OTEL_EXPORTER_OTLP_ENDPOINT=base)
            assert exporter._collector.endpoint.url == "http://h:4318/base/v1/traces"

    def test_the_endpoint_of_traces_is_taken_as_it_is(self) -> None:
        both = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other"}
        for url, target in (("http://h/x", "/x"), ("http://h", "/"), ("http://h/", "/")):
            exporter = opened("otlp:", **both, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=url)
            assert exporter._collector.endpoint.url.startswith("http://h/")
            assert exporter._collector.endpoint.target == target

    def test_headers(self) -> None:
        text = "api-key=a%20b , X-Tenant=acme,empty=,broken, =x"
        assert told(opened("otlp:", OTEL_EXPORTER_OTLP_HEADERS=text)) == {
            "api-key": "a b",
            "x-tenant": "acme",
            "empty": "",
        }
        both = {"OTEL_EXPORTER_OTLP_HEADERS": text, "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=b"}
        assert told(opened("otlp:", **both)) == {"a": "b"}

    def test_headers_reach_nobody_they_were_not_meant_for(self) -> None:
        """With another collector named in the environment, its key is not sent to the one in the setting."""
        key = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=k"}
        ours = "otlp+https://ours:4318"
        assert told(opened(ours, **key)) == {"api-key": "k"}
        for url, sent in (
            ("https://ours:4318/x", {"api-key": "k"}),
            ("https://theirs:4318", {}),
            ("http://ours:4318", {}),
            ("ours:4317", {}),  # as gRPC has it
        ):
            assert told(opened(ours, **key, OTEL_EXPORTER_OTLP_ENDPOINT=url)) == sent

    def test_protocol(self, caplog: pytest.LogCaptureFixture) -> None:
        opened("otlp:", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
        both = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
        opened("otlp:", **both)
        opened("otlp+http://h", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
        for protocol in ("grpc", "HTTP/JSON"):
            with pytest.raises(SettingsError, match=f"'{protocol}' cannot be used: it takes http/protobuf"):
                opened("otlp:", OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        assert not caplog.records

    @pytest.mark.parametrize("target", ["otlp:", "otlp+http://h"])
    @pytest.mark.parametrize("name", ["PROTOCOL", "TRACES_PROTOCOL"])
    def test_http_json_is_sent_as_protobuf_with_a_warning(
        self, target: str, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Every OTLP/HTTP collector must read protobuf at the same URL, so the traces are not lost."""
        opened(target, **{f"OTEL_EXPORTER_OTLP_{name}": "http/json"})
        (record,) = caplog.records
        expected = "OTEL_EXPORTER_OTLP_PROTOCOL='http/json' is not supported: sending http/protobuf"
        assert record.getMessage() == expected

    def test_compression(self) -> None:
        assert not opened("otlp:", OTEL_EXPORTER_OTLP_COMPRESSION="none")._collector._gzip
        assert opened("otlp:")._collector._gzip

    def test_resource_attributes(self) -> None:
        environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=one,k8s.pod.name=p%2C1", "OTEL_SERVICE_NAME": ""}
        assert resource_variables(environ) == {"service.name": "one", "k8s.pod.name": "p,1"}
        assert resource_variables({**environ, "OTEL_SERVICE_NAME": "two"})["service.name"] == "two"

    def test_they_are_sent(
        self, receiver: Receiver, make_exporter: MakeExporter, make_trace: MakeTrace
    ) -> None:
        make_exporter(environ={"OTEL_SERVICE_NAME": "named"}).write([make_trace(experiment="chat")])
        ((resource, _),) = receiver.accepted_with_resources
        attributes = attributes_of(resource.attributes)
        assert attributes["service.name"] == "named"
        assert attributes["telemetry.sdk.name"] == "wherefrom"
        assert attributes["telemetry.sdk.version"]

    def test_certificates_that_are_none(self, tmp_path: Path) -> None:
        for name in ("CERTIFICATE", "CLIENT_CERTIFICATE"):
            with pytest.raises(SettingsError, match="certificate"):
                opened("otlp:", **{f"OTEL_EXPORTER_OTLP_{name}": str(tmp_path / "none.pem")})


class TestProxies:
    def test_plain_requests_go_through_it(
        self, receiver: Receiver, make_exporter: MakeExporter, make_trace: MakeTrace
    ) -> None:
        environ = {"http_proxy": receiver.url.replace("//", "//me:pw@")}
        make_exporter("http://collector.example:4318", environ=environ).write([make_trace()])
        (request,) = receiver.requests
        assert request.path == "http://collector.example:4318/v1/traces"
        assert request.headers["host"] == "collector.example:4318"
        assert request.headers["proxy-authorization"] == "Basic bWU6cHc="

    def test_encrypted_requests_go_through_a_tunnel(
        self, receiver: Receiver, make_exporter: MakeExporter, make_trace: MakeTrace
    ) -> None:
        environ = {"HTTPS_PROXY": f"me:pw@127.0.0.1:{receiver.port}"}
        with pytest.raises(StoreUnavailableError, match="502"):
            make_exporter("https://collector.example", environ=environ).write([make_trace()])
        request, authorization = receiver.others
        assert request.startswith("CONNECT collector.example:443 HTTP/1.")
        assert authorization == "Basic bWU6cHc="

    @pytest.mark.parametrize(
        ("url", "environ"),
        [
            ("http://h.example", {}),
            ("http://h.example", {"http_proxy": "http://p", "no_proxy": ".example"}),
            ("http://h.example", {"http_proxy": "http://p", "NO_PROXY": "*"}),
            ("http://h.example", {"HTTP_PROXY": "http://p", "REQUEST_METHOD": "GET"}),
            ("http://h.example", {"https_proxy": "http://p"}),
            ("http://localhost", {"http_proxy": "http://p"}),
            ("http://[::1]", {"http_proxy": "http://p"}),
        ],
    )
    def test_when_there_is_none(self, make_exporter: MakeExporter, url: str, environ: dict[str, str]) -> None:
        assert make_exporter(url, environ=environ)._collector._connection._proxy is None

    def test_an_address_in_brackets(
        self, receiver: Receiver, make_exporter: MakeExporter, make_trace: MakeTrace
    ) -> None:
        make_exporter("http://[2001:db8::1]:4318", environ={"http_proxy": receiver.url}).write([make_trace()])
        assert receiver.requests[0].path == "http://[2001:db8::1]:4318/v1/traces"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A key and a certificate of its own for the loopback."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, path = str(folder / "key.pem"), str(folder / "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", path], check=True, capture_output=True)
    return key, path


class TestTLS:
    @pytest.fixture
    def secure(self, certificate: tuple[str, str]) -> Iterator[Receiver]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate[1], certificate[0])
        receiver = Receiver(context)
        yield receiver
        receiver.close()

    def test_an_unknown_certificate_is_refused(
        self, secure: Receiver, make_exporter: MakeExporter, make_trace: MakeTrace
    ) -> None:
        with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            make_exporter(secure.url).write([make_trace()])
        assert not secure.requests

    def test_one_that_the_environment_names_is_trusted(
        self, secure: Receiver, make_trace: MakeTrace, certificate: tuple[str, str]
    ) -> None:
        key, path = certificate
        environ: dict[str, Any] = {
            "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": path,
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": path,
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": key,
        }
        exporter = open_otlp(f"otlp+{secure.url}", environ)
        for _ in range(3):
            exporter.write([make_trace()])
        exporter.close()
        assert len(secure.accepted) == 3
        assert len(secure.clients) == 1
