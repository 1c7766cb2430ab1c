"""MLflow's bridge beside OpenTelemetry's, MLflow as it is set up, and what it may do wrong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest
from mlflow.entities.trace_location import MlflowExperimentLocation

import wherefrom
from wherefrom.mlflow import MLflowBridge
from wherefrom.mlflow.bridge import ExperimentLookup
from wherefrom.otel import OpenTelemetryBridge

from ..integrations.conftest import outside  # noqa: F401 - a fixture
from ..otel.telemetry import Telemetry, connect, ok
from .server import MLflowServer, free_port
from .tracking import Tracking, get, tracking, tree_of


@pytest.fixture
def mlflow_(mlflow_server: MLflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    with tracking(mlflow_server, monkeypatch) as found:
        yield found


async def handler(scope: Any, receive: Any, send: Any) -> None:
    """An app with one traced call."""
    with mlflow.start_span("work"):
        mlflow.update_current_trace(tags={"told": "1"})
        await ok(scope, receive, send)


class TestBesideOpenTelemetry:
    """Both bridges at once: each backend has the whole request, by one id."""

    async def test_every_span_is_in_all_three(self, mlflow_: Tracking) -> None:
        """Whichever of the three opens it, and none is an orphan anywhere."""
        telemetry = Telemetry()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with (
                mlflow.start_span("m1"),
                wherefrom.start_span("w1"),
                telemetry.tracer.start_as_current_span("o1"),
                wherefrom.start_span("w2"),
                mlflow.start_span("m2"),
                wherefrom.start_span("w3"),
            ):
                await ok(scope, receive, send)

        bridges = [OpenTelemetryBridge(telemetry.provider), MLflowBridge()]
        await get(mlflow_.traced(app, bridges=bridges))
        expected = {"GET": None, "m1": "GET", "w1": "m1", "o1": "w1", "w2": "o1", "m2": "w2", "w3": "m2"}
        assert tree_of(mlflow_.ours) == expected
        assert tree_of(mlflow_.theirs) == expected
        exported = {span.context.span_id: span for span in telemetry.exported if span.context}
        assert {
            span.name: span.parent and exported[span.parent.span_id].name for span in telemetry.exported
        } == expected
        numbers = {f"tr-{span.context.trace_id:032x}" for span in telemetry.exported if span.context}
        assert numbers == {mlflow_.theirs.info.trace_id}
        assert wherefrom.stats().errors == {}

    async def test_an_id_that_cannot_be_shared(self, mlflow_: Tracking) -> None:
        """A caller's trace that is joined may come several times: MLflow's is another, and names ours."""
        caller = "4bf92f3577b34da6a3ce929d0e0e4736"
        header = f"00-{caller}-00f067aa0ba902b7-01"
        app = mlflow_.traced(handler, upstream="continue")
        await asyncio.gather(get(app, traceparent=header), get(app, traceparent=header))
        assert {trace.info.trace_id for trace in mlflow_.sink.traces} == {f"tr-{caller}"}
        found = mlflow_.all_of_theirs()
        assert len({trace.info.trace_id for trace in found}) == 2
        for theirs in found:
            assert theirs.info.trace_metadata["wherefrom.trace_id"] == f"tr-{caller}"
            assert tree_of(theirs) == {"GET": None, "work": "GET"}
        roots = [span for span in mlflow_.ours.data.spans if span.name == "GET"]  # one trace, for us
        told = {root.attributes["mlflow.trace_id"] for root in roots}
        assert told == {trace.info.trace_id for trace in found}

    async def test_a_link_to_the_caller(self, mlflow_: Tracking) -> None:
        """What is not joined is a link, there too."""
        await get(
            mlflow_.traced(handler), traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        )
        (link,) = mlflow_.theirs.data.spans[0].links
        assert (link.trace_id, link.span_id) == ("tr-4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


class TestWhichRequest:
    """Every request is a root of its own."""

    async def test_inside_a_span_of_the_callers(self, mlflow_: Tracking) -> None:
        """A test client that calls the app within a span: not a part of that."""
        with mlflow.start_span("client"):
            await get(mlflow_.traced(handler))
            assert named_now() == "client"
        found = {trace.info.tags["mlflow.traceName"]: trace for trace in mlflow_.all_of_theirs()}
        assert tree_of(found["client"]) == {"client": None}
        assert tree_of(found["GET"]) == {"GET": None, "work": "GET"}
        assert mlflow_.ours.info.trace_id == found["GET"].info.trace_id

    async def test_nested_middleware(self, mlflow_: Tracking) -> None:
        """The inner one adds nothing."""
        await get(mlflow_.traced(mlflow_.traced(handler)))
        assert tree_of(mlflow_.theirs) == {"GET": None, "work": "GET"}
        assert tree_of(mlflow_.ours) == {"GET": None, "work": "GET"}

    async def test_excluded(self, mlflow_: Tracking) -> None:
        """MLflow is as it is without us."""
        await get(mlflow_.traced(handler, exclude="/*"))
        assert mlflow_.sink.traces == []
        assert tree_of(mlflow_.theirs) == {"work": None}

    async def test_a_middleware_without_the_bridge(self, mlflow_: Tracking) -> None:
        """In a process where another has one: MLflow is as it is without us."""
        MLflowBridge()
        middleware = mlflow_.traced(wherefrom_and_mlflow)
        middleware._bridges = ()
        await get(middleware)
        assert tree_of(mlflow_.theirs) == {"theirs": None}
        assert tree_of(mlflow_.ours) == {"GET": None, "ours": "GET"}

    async def test_a_websocket(self, mlflow_: Tracking) -> None:
        """One trace a connection."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            with mlflow.start_span("turn"):
                await send({"type": "websocket.send", "text": "hello"})
            await send({"type": "websocket.close"})

        await connect(mlflow_.traced(app), "/chat", [(b"x-session-id", b"s-1")])
        assert tree_of(mlflow_.theirs) == tree_of(mlflow_.ours) == {"WS": None, "turn": "WS"}
        assert mlflow_.theirs.info.trace_metadata["mlflow.trace.session"] == "s-1"


async def wherefrom_and_mlflow(scope: Any, receive: Any, send: Any) -> None:
    with wherefrom.start_span("ours"), mlflow.start_span("theirs"):
        await ok(scope, receive, send)


def named_now() -> str | None:
    span = mlflow.get_current_active_span()
    return None if span is None else span.name


class TestSampling:
    """Each side samples for itself."""

    @pytest.mark.parametrize("rate", ["0", "1"])
    async def test_each_for_itself(
        self, mlflow_: Tracking, rate: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What MLflow drops we keep, without its spans; what we drop it has, whole."""
        monkeypatch.setenv("MLFLOW_TRACE_SAMPLING_RATIO", rate)
        mlflow.tracing.reset()  # type: ignore[no-untyped-call]
        keeps = rate == "0"
        app = mlflow_.traced(wherefrom_and_mlflow, sample_rate=float(keeps), keep_errors=False)
        await get(app)
        assert len(mlflow_.sink.traces) == keeps
        found = mlflow_.all_of_theirs()
        if keeps:
            assert tree_of(mlflow_.ours) == {"GET": None, "ours": "GET"}
            assert found == []
        else:
            (theirs,) = found
            assert tree_of(theirs) == {"GET": None, "ours": "GET", "theirs": "ours"}
            assert theirs.info.trace_metadata["app_version"] == "development"
        assert wherefrom.stats().errors == {}


class TestWhereItGoes:
    """The experiment, destination and provider are what the app makes of them."""

    async def test_a_destination(self, mlflow_: Tracking) -> None:
        """``mlflow.tracing.set_destination``, set after the bridge was made."""
        app = mlflow_.traced(handler)
        other = mlflow_.server.new_experiment(f"other-{mlflow_.experiment_id}")
        mlflow.tracing.set_destination(MlflowExperimentLocation(other))
        await get(app)
        assert mlflow_.all_of_theirs() == []
        mlflow_.experiment_id = other
        assert tree_of(mlflow_.theirs) == {"GET": None, "work": "GET"}
        assert tree_of(mlflow_.ours) == {"GET": None, "work": "GET"}

    async def test_nobody_has_said(self, mlflow_: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
        """The default experiment: ``mlflow-tracing`` alone makes no traces at all here."""
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
        await get(mlflow_.traced(handler))
        mlflow.flush_trace_async_logging()
        found = mlflow.get_trace(mlflow_.ours.info.trace_id)
        assert found is not None
        assert found.info.experiment_id == "0"

    async def test_an_id_in_the_environment(self, mlflow_: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
        """Taken as it is: MLflow asks its server whether it is there, for every trace."""
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", mlflow_.experiment_id)
        await get(mlflow_.traced(handler))
        assert tree_of(mlflow_.theirs) == {"GET": None, "work": "GET"}

    async def test_a_name_in_the_environment(
        self, mlflow_: Tracking, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Looked up once, made when missing, and found by the next."""
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"named-{mlflow_.experiment_id}")
        await get(mlflow_.traced(handler))
        made = mlflow_.server.experiment(f"named-{mlflow_.experiment_id}")
        assert ExperimentLookup(30).id_to_give() == made
        mlflow_.experiment_id = made
        assert tree_of(mlflow_.theirs) == {"GET": None, "work": "GET"}

    async def test_a_server_that_is_down(self, mlflow_: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
        """Until the experiment is known, MLflow is disabled in requests, and no request waits."""
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "unknown")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
        bridge = MLflowBridge()
        assert (await get(mlflow_.traced(handler, bridges=[bridge]))).text == "ok"
        assert tree_of(mlflow_.ours) == {"GET": None}
        assert wherefrom.stats().errors == {"mlflow": 1}
        # The app may still choose one itself.
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", mlflow_.experiment_id)
        await get(mlflow_.traced(handler, bridges=[bridge]))
        assert tree_of(mlflow_.sink.traces[-1]) == {"GET": None, "work": "GET"}

    async def test_a_server_that_comes_back(self, mlflow_: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is asked again, also by a forked process, which has no threads of its parent."""
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        monkeypatch.setattr("wherefrom.mlflow.bridge._PAUSE_S", 0.01)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"named-{mlflow_.experiment_id}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
        lookup = ExperimentLookup(0)
        assert not lookup.usable()
        assert lookup.id_to_give() == "0"
        mlflow.set_tracking_uri(mlflow_.server.url)
        assert lookup._found.wait(30)
        assert lookup.id_to_give() == mlflow_.server.experiment(f"named-{mlflow_.experiment_id}")
        lookup._id, lookup._asking = None, threading.Thread()
        lookup._found.clear()
        assert not lookup.usable()
        assert lookup._found.wait(30)
        assert lookup.usable()

    async def test_tracing_switched_off(self, mlflow_: Tracking) -> None:
        """``mlflow.tracing.disable()``: we record as ever, and with ``enable()`` it is back."""
        app = mlflow_.traced(handler)
        mlflow.tracing.disable()
        await get(app)
        assert tree_of(mlflow_.ours) == {"GET": None}
        mlflow.tracing.enable()
        await get(app)
        assert tree_of(mlflow_.sink.traces[-1]) == {"GET": None, "work": "GET"}
        assert wherefrom.stats().errors == {}


class TestWhatGoesWrong:
    """Counted, and neither app nor client notices."""

    async def test_more_spans_than_are_kept(self, mlflow_: Tracking) -> None:
        """Ours beyond the limit are in neither trace, and keep MLflow's from nothing."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(3):
                with wherefrom.start_span("ours"):
                    pass
            with wherefrom.start_span("ours"), wherefrom.start_span("deep"), mlflow.start_span("theirs"):
                await ok(scope, receive, send)

        await get(mlflow_.traced(app, max_spans_per_trace=3))
        assert [span.name for span in mlflow_.ours.data.spans] == ["GET", "ours", "ours"]
        names = [span.name for span in mlflow_.theirs.data.spans]
        assert sorted(names) == ["GET", "ours", "ours", "theirs"]
        assert tree_of(mlflow_.theirs)["theirs"] == "GET"
        assert wherefrom.stats().errors == {}

    async def test_a_tracking_uri_that_cannot_be_used(
        self, mlflow_: Tracking, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mlflow.set_tracking_uri("nonsense://x")
        mlflow.tracing.reset()  # type: ignore[no-untyped-call]
        assert (await get(mlflow_.traced(handler))).text == "ok"
        assert tree_of(mlflow_.ours) == {"GET": None}
        assert set(wherefrom.stats().errors) == {"mlflow", "MLflowBridge"}

    async def test_what_mlflow_forgets(self, mlflow_: Tracking) -> None:
        """A trace that fell out of MLflow's buffer is lost there, and whole here."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            from mlflow.tracing.trace_manager import InMemoryTraceManager

            with mlflow.start_span("work"):
                InMemoryTraceManager.reset()  # type: ignore[no-untyped-call]
                with wherefrom.start_span("ours"), wherefrom.start_span("deeper"):
                    wherefrom.update_current_trace(metadata={"k": "v"})
                    await ok(scope, receive, send)

        await get(mlflow_.traced(app))
        assert tree_of(mlflow_.ours) == {"GET": None, "work": "GET", "ours": "work", "deeper": "ours"}
        assert mlflow_.all_of_theirs() == []
        assert wherefrom.stats().errors == {}

    async def test_a_bridge_that_breaks(self, mlflow_: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whichever part of it fails, the request continues and is recorded."""
        app = mlflow_.traced(wherefrom_and_mlflow)

        def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("MLflow is not what it was")

        for place in (
            "convert.of_mlflow",
            "convert.write_mlflow_span",
            "private.activate",
            "private.find",
            "convert.read_mlflow_span",
        ):
            monkeypatch.setattr(f"wherefrom.mlflow.{place}", broken)
            assert (await get(app)).text == "ok"
            monkeypatch.undo()
        assert len(mlflow_.sink.traces) == 5
        assert sum(wherefrom.stats().errors.values()) >= 5

    def test_flushing_ends(
        self, mlflow_: Tracking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Also when MLflow's own does not."""
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        bridge = MLflowBridge()
        bridge.flush(30)
        assert caplog.records == []
        mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
        with mlflow.start_span("x"):
            pass
        bridge.flush(0.01)
        assert "MLflow has not sent all of its traces" in caplog.text
