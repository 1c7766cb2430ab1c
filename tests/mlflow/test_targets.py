"""The forms of ``WHEREFROM_EXPORT`` that mean an MLflow server, and MLflow's own variables."""

from __future__ import annotations

import ssl
from base64 import b64encode
from pathlib import Path

import pytest

from wherefrom import Settings
from wherefrom.exceptions import SettingsError
from wherefrom.exporters.targets import open_exporter
from wherefrom.mlflow.exporter import open_mlflow
from wherefrom.process import ledger
from wherefrom.sinks import BackgroundSink

from .conftest import MakeTrace
from .stub import SPANS, TRACES, StubServer, failure


def send(target: str, environ: dict[str, str], make_trace: MakeTrace) -> None:
    exporter = open_mlflow(target, environ)
    exporter.write([make_trace()])
    exporter.close()


class TestForms:
    def test_the_settings_take_them(self) -> None:
        targets = "mlflow, mlflow+http://h:5000?experiment=chat, mlflow+https://h"
        assert Settings(export=targets).export == tuple(targets.split(", "))

    @pytest.mark.parametrize("target", ["mlflow:5000", "mlflow://h", "mlflows", "mlflow+grpc://h"])
    def test_others_are_refused_at_the_start(self, target: str) -> None:
        with pytest.raises(
            SettingsError, match=r"WHEREFROM_EXPORT=.* it takes a comma list of `mlflow\+http"
        ):
            Settings(export=target)

    @pytest.mark.parametrize(
        ("target", "name"),
        [
            ("mlflow+{}", "Default"),
            ("mlflow+{}?experiment=chat", "chat"),
            ("mlflow+{}/?experiment=a%20b%26c%2C", "a b&c,"),
        ],
    )
    def test_the_experiment_is_in_the_target(
        self, stub: StubServer, make_trace: MakeTrace, target: str, name: str
    ) -> None:
        send(target.format(stub.url), {}, make_trace)
        (told,) = stub.told(TRACES)
        place = told.body["trace"]["trace_info"]["trace_location"]["mlflow_experiment"]
        assert place == {"experiment_id": stub.experiments[name]}

    @pytest.mark.parametrize(
        ("environ", "experiment_id"),
        [
            ({"MLFLOW_EXPERIMENT_NAME": "chat"}, "8"),
            ({"MLFLOW_EXPERIMENT_ID": "9"}, "9"),
            ({"MLFLOW_EXPERIMENT_NAME": "chat", "MLFLOW_EXPERIMENT_ID": "9"}, "8"),
            ({}, "0"),
        ],
    )
    def test_the_experiment_is_mlflow_s_own_variable(
        self, stub: StubServer, make_trace: MakeTrace, environ: dict[str, str], experiment_id: str
    ) -> None:
        stub.experiments |= {"chat": "8", "other": "9"}
        send("mlflow", {"MLFLOW_TRACKING_URI": stub.url, **environ}, make_trace)
        assert stub.told(SPANS)[0].headers["x-mlflow-experiment-id"] == experiment_id

    def test_a_server_under_a_prefix(self, make_trace: MakeTrace, stub: StubServer) -> None:
        """As behind a proxy that serves it at ``/mlflow``."""
        exporter = open_mlflow(f"mlflow+{stub.url}/mlflow/", {})
        queue = BackgroundSink(exporter, flush_interval_ms=1)
        queue.write([make_trace()])
        assert not queue.flush(0.2)
        queue.close(0.1)
        exporter.close()
        assert stub.asked[0].path == "/mlflow/api/2.0/mlflow/experiments/get-by-name"

    @pytest.mark.parametrize(
        ("uri", "said"),
        [
            (None, "is not set"),
            ("", "is not set"),
            ("sqlite:///mlflow.db", "is 'sqlite:'"),
            ("databricks", "is 'databricks'"),
            ("file:./mlruns", "is 'file:'"),
        ],
    )
    def test_a_tracking_uri_that_is_no_server(self, uri: str | None, said: str) -> None:
        environ = {} if uri is None else {"MLFLOW_TRACKING_URI": uri}
        with pytest.raises(SettingsError, match=f"takes an http server in MLFLOW_TRACKING_URI, which {said}"):
            open_mlflow("mlflow", environ)

    @pytest.mark.parametrize("query", ["experiments=a", "experiment=", "experiment=a&token=b"])
    def test_what_else_is_asked_for_is_refused(self, query: str) -> None:
        """The error does not show the value, which may be a secret."""
        with pytest.raises(SettingsError, match=r"\?experiment=name") as error:
            open_mlflow(f"mlflow+http://h?{query}", {})
        assert "token=b" not in str(error.value)

    @pytest.mark.parametrize("target", ["mlflow+http://", "mlflow+http://h:port", "mlflow+http://h/é"])
    def test_a_url_that_is_none(self, target: str) -> None:
        with pytest.raises(SettingsError, match=r"the MLflow server '.*' cannot be used: i?t?"):
            open_mlflow(target, {})

    def test_it_is_opened_by_the_setting(self, stub: StubServer) -> None:
        exporter = open_exporter(f"mlflow+{stub.url}")
        assert repr(exporter).startswith("MLflowExporter(")


class TestCredentials:
    @pytest.mark.parametrize(
        ("environ", "header"),
        [
            ({"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "p:é"}, "Basic ada:p:é"),
            ({"MLFLOW_TRACKING_TOKEN": "t-123"}, "Bearer t-123"),
            (
                {
                    "MLFLOW_TRACKING_USERNAME": "ada",
                    "MLFLOW_TRACKING_PASSWORD": "p",
                    "MLFLOW_TRACKING_TOKEN": "t",
                },
                "Basic ada:p",
            ),
            ({"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
        ],
    )
    def test_they_go_with_each_request(
        self, stub: StubServer, make_trace: MakeTrace, environ: dict[str, str], header: str
    ) -> None:
        kind, _, text = header.partition(" ")
        expected = f"Basic {b64encode(text.encode()).decode()}" if kind == "Basic" else header
        send(f"mlflow+{stub.url}", environ, make_trace)
        assert {asked.headers["authorization"] for asked in stub.asked} == {expected}

    def test_those_of_the_url_come_first(self, stub: StubServer, make_trace: MakeTrace) -> None:
        url = stub.url.replace("//", "//bob:secret@")
        send(f"mlflow+{url}", {"MLFLOW_TRACKING_TOKEN": "t"}, make_trace)
        expected = "Basic " + b64encode(b"bob:secret").decode()
        assert {asked.headers["authorization"] for asked in stub.asked} == {expected}

    def test_they_are_not_sent_to_another_server(self, stub: StubServer, make_trace: MakeTrace) -> None:
        environ = {"MLFLOW_TRACKING_URI": "https://mlflow.example.com", "MLFLOW_TRACKING_TOKEN": "t"}
        send(f"mlflow+{stub.url}", environ, make_trace)
        assert not any("authorization" in asked.headers for asked in stub.asked)

    def test_they_are_never_told(
        self, stub: StubServer, make_trace: MakeTrace, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not even if the server returns them."""

        stub.judge = lambda asked: failure(401, "UNKNOWN", f"bad {asked.headers['authorization']}")
        exporter = open_mlflow(f"mlflow+{stub.url}", {"MLFLOW_TRACKING_TOKEN": "t-secret"})
        queue = BackgroundSink(exporter, flush_interval_ms=1)
        queue.write([make_trace()])
        assert not queue.flush(0.2)
        queue.close(0)
        exporter.close()
        assert ledger.read().errors
        assert "answered 401: bad ***" in caplog.text
        assert "t-secret" not in caplog.text

    def test_one_that_cannot_be_sent_is_said_without_its_value(self) -> None:
        with pytest.raises(SettingsError, match="the value of the header 'authorization'") as error:
            open_mlflow("mlflow+http://h", {"MLFLOW_TRACKING_TOKEN": "a\nb"})
        assert "a\nb" not in str(error.value)

    def test_a_workspace_is_named(self, stub: StubServer, make_trace: MakeTrace) -> None:
        send(f"mlflow+{stub.url}", {"MLFLOW_WORKSPACE": "team-a"}, make_trace)
        assert {asked.headers["x-mlflow-workspace"] for asked in stub.asked} == {"team-a"}


class TestTransport:
    def test_the_system_s_certificates_are_the_default(self) -> None:
        exporter = open_mlflow("mlflow+https://h", {})
        assert exporter._options["ssl_context"] is None

    def test_certificates_need_not_be_verified(self) -> None:
        exporter = open_mlflow("mlflow+https://h", {"MLFLOW_TRACKING_INSECURE_TLS": "true"})
        assert exporter._options["ssl_context"].verify_mode is ssl.CERT_NONE

    @pytest.mark.parametrize("name", ["SERVER", "CLIENT"])
    def test_a_certificate_that_is_not_there(self, tmp_path: Path, name: str) -> None:
        environ = {f"MLFLOW_TRACKING_{name}_CERT_PATH": str(tmp_path / "none.pem")}
        with pytest.raises(SettingsError, match="a certificate of MLFLOW_TRACKING cannot be used"):
            open_mlflow("mlflow+https://h", environ)

    def test_the_timeout_is_mlflow_s(self) -> None:
        exporter = open_mlflow("mlflow+http://h", {"MLFLOW_HTTP_REQUEST_TIMEOUT": "7"})
        assert exporter._options["timeout"] == 7

    @pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
    def test_a_timeout_that_is_none(self, value: str) -> None:
        with pytest.raises(SettingsError, match=r"MLFLOW_HTTP_REQUEST_TIMEOUT=.* it takes seconds"):
            open_mlflow("mlflow+http://h", {"MLFLOW_HTTP_REQUEST_TIMEOUT": value})
