"""MLflow inside our requests: one trace on either side, saying the same."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import mlflow
import pytest
from fastapi import BackgroundTasks, FastAPI, Header, Request
from fastapi.responses import StreamingResponse

import wherefrom
from wherefrom.process import process

from ..integrations.conftest import outside  # noqa: F401 - a fixture
from .server import MLflowServer
from .tracking import Tracking, get, named, tracking, tree_of


@pytest.fixture
def mlflow_(mlflow_server: MLflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    with tracking(mlflow_server, monkeypatch) as found:
        yield found


@mlflow.trace(span_type="RETRIEVER")
def retrieve(question: str) -> list[str]:
    return [f"on {question}"]


def check_alike(tracking: Tracking) -> None:
    """Both have the one trace, with the same ids, times, state and tree; nothing went wrong."""
    ours, theirs = tracking.ours, tracking.theirs
    assert theirs.info.trace_id == ours.info.trace_id
    assert theirs.info.request_time == ours.info.request_time
    ends = [span.end_time_ns or 0 for span in ours.data.spans]
    if ends[0] == max(ends):  # the server may count what goes on after the request, as two uploads race
        # It subtracts milliseconds, we nanoseconds.
        assert (theirs.info.execution_duration or 0) - (ours.info.execution_duration or 0) in {0, 1}
    assert theirs.info.client_request_id == ours.info.client_request_id
    assert str(theirs.info.state) == ours.info.state
    kept = {
        key: value for key, value in ours.info.trace_metadata.items() if not key.startswith("mlflow.traceIn")
    }
    assert kept.items() <= theirs.info.trace_metadata.items()
    assert ours.info.tags.items() <= theirs.info.tags.items()
    assert {span.span_id: span.parent_id for span in ours.data.spans} == {
        span.span_id: span.parent_id for span in theirs.data.spans
    }
    assert tree_of(theirs) == tree_of(ours)
    for span in ours.data.spans:
        other = next(other for other in theirs.data.spans if other.span_id == span.span_id)
        assert (other.start_time_ns, other.end_time_ns) == (span.start_time_ns, span.end_time_ns)
        assert other.span_type == span.span_type
        assert (other.inputs, other.outputs) == (span.inputs, span.outputs)
    assert wherefrom.stats().errors == {}


class TestTheGuidesHandler:
    """The handler of MLflow's production guide, as it stands there."""

    @pytest.mark.parametrize("order", ["above", "below"])
    async def test_it_gives_one_complete_trace(
        self, mlflow_: Tracking, order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``@mlflow.trace`` above ``@app.post`` or below: session, user, ids and wherefrom it came."""
        for name, value in {
            "APP_ENVIRONMENT": "production",
            "APP_VERSION": "1.0.0",
            "DEPLOYMENT_ID": "deploy-1",
            "REGION": "eu-central-1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(process, "sources", {})
        app = FastAPI()

        def my_agent(message: str) -> str:
            return f"answer to {message}"

        def handle_chat(request: Request, message: str) -> dict[str, str]:
            session_id = request.headers.get("X-Session-ID")
            user_id = request.headers.get("X-User-ID")
            metadata: dict[str, Any] = {
                "mlflow.trace.session": session_id,
                "mlflow.trace.user": user_id,
                "environment": os.getenv("APP_ENVIRONMENT"),
                "app_version": os.getenv("APP_VERSION"),
                "deployment_id": os.getenv("DEPLOYMENT_ID"),
                "region": os.getenv("REGION"),
            }
            mlflow.update_current_trace(
                client_request_id=request.headers.get("X-Request-ID"), metadata=metadata
            )
            return {"response": my_agent(message)}

        if order == "above":
            mlflow.trace(app.get("/chat")(handle_chat))
        else:
            app.get("/chat")(mlflow.trace(handle_chat))
        answer = await get(
            mlflow_.traced(app),
            "/chat?message=hello",
            X_Request_ID="req-1",
            X_Session_ID="chat-7",
            X_User_ID="ada",
        )
        assert answer.json() == {"response": "answer to hello"}
        check_alike(mlflow_)
        info = mlflow_.theirs.info
        assert info.client_request_id == "req-1"
        assert info.tags["mlflow.traceName"] == "GET /chat"
        expected = {
            "mlflow.trace.session": "chat-7",
            "mlflow.trace.user": "ada",
            "app_version": "1.0.0",
            "region": "eu-central-1",
            "deployment_id": "deploy-1",
            "environment": "production",
            "mlflow.source.type": "production",
        }
        assert expected.items() <= info.trace_metadata.items()
        assert expected.items() <= mlflow_.ours.info.trace_metadata.items()
        if order == "below":
            assert tree_of(mlflow_.theirs) == {"GET /chat": None, "handle_chat": "GET /chat"}
            assert info.request_preview is not None
            assert "hello" in info.request_preview
            assert info.response_preview == '{"response": "answer to hello"}'


class TestSpans:
    """Whichever of the two opens a span, it is in both traces, in its place."""

    async def test_they_nest(self, mlflow_: Tracking) -> None:
        """Ours in theirs, theirs in ours, from ``async`` and plain handlers."""
        app = FastAPI()

        @app.get("/plain/{question}")
        @mlflow.trace
        def plain(question: str) -> list[str]:
            with wherefrom.start_span("ours", span_type="CHAIN", attributes={"k": [1, {"a": 2}]}) as span:
                span.set_inputs({"q": question})
                with mlflow.start_span("theirs", span_type="TOOL", attributes={"n": 1}) as inner:
                    inner.set_inputs({"x": [1]})
                    with wherefrom.start_span("deep"):
                        return retrieve(question)

        await get(mlflow_.traced(app), "/plain/fish")
        check_alike(mlflow_)
        assert tree_of(mlflow_.ours) == {
            "GET /plain/{question}": None,
            "plain": "GET /plain/{question}",
            "ours": "plain",
            "theirs": "ours",
            "deep": "theirs",
            "retrieve": "deep",
        }
        ours = named(mlflow_.theirs, "ours")
        assert ours.attributes["k"] == [1, {"a": 2}]
        theirs = named(mlflow_.ours, "theirs")
        assert theirs.attributes["n"] == 1
        assert theirs.inputs == {"x": [1]}
        root = mlflow_.theirs.data.spans[0]
        assert root.attributes["http.route"] == "/plain/{question}"
        assert root.attributes["wherefrom.outcome"] == "completed"
        assert mlflow_.theirs.info.response_preview == '["on fish"]'

    async def test_streams(self, mlflow_: Tracking) -> None:
        """A generator's traced calls after its first chunk belong to the request."""
        app = FastAPI()

        @mlflow.trace
        async def model(number: int) -> str:
            await asyncio.sleep(0)
            return str(number)

        @app.get("/stream")
        async def stream() -> StreamingResponse:
            @wherefrom.trace
            async def answer() -> AsyncIterator[str]:
                for number in range(2):
                    yield await model(number)

            @mlflow.trace
            async def more() -> AsyncIterator[str]:
                async for text in answer():
                    yield text
                yield str(retrieve("x"))

            return StreamingResponse(more())

        answer = await get(mlflow_.traced(app), "/stream")
        assert answer.text == "01['on x']"
        check_alike(mlflow_)
        pairs = [(span.name, span.parent_id) for span in mlflow_.theirs.data.spans]
        ids = {span.name: span.span_id for span in mlflow_.theirs.data.spans}
        assert sorted(pairs, key=str) == sorted(
            [
                ("GET /stream", None),
                ("more", ids["GET /stream"]),
                ("answer", ids["more"]),
                ("model", ids["answer"]),
                ("model", ids["answer"]),
                ("retrieve", ids["more"]),
            ],
            key=str,
        )

    async def test_spans_that_are_ended_by_hand(self, mlflow_: Tracking) -> None:
        """With a parent, or with what is current."""
        app = FastAPI()

        @app.get("/")
        async def handler() -> str:
            chain = mlflow.start_span_no_context("chain", span_type="CHAIN", inputs={"q": 1})
            model = mlflow.start_span_no_context("model", parent_span=chain, span_type="CHAT_MODEL")
            tokens = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
            model.set_attribute("mlflow.chat.tokenUsage", tokens)
            model.end(outputs={"a": 2})
            chain.end(outputs=[2])
            return "x"

        await get(mlflow_.traced(app))
        check_alike(mlflow_)
        assert tree_of(mlflow_.ours) == {"GET /": None, "chain": "GET /", "model": "chain"}
        assert json.loads(mlflow_.ours.info.trace_metadata["mlflow.trace.tokenUsage"])["total_tokens"] == 7
        assert mlflow_.theirs.info.response_preview == "[2]"

    async def test_background_tasks(self, mlflow_: Tracking) -> None:
        """Their spans are in the trace, and their time is not."""
        app = FastAPI()
        gone_on = asyncio.Event()

        @mlflow.trace
        async def audit() -> None:
            await asyncio.sleep(0.05)
            gone_on.set()

        @app.get("/")
        async def handler(tasks: BackgroundTasks) -> str:
            tasks.add_task(audit)
            return "done"

        await get(mlflow_.traced(app))
        assert gone_on.is_set()
        check_alike(mlflow_)
        assert tree_of(mlflow_.theirs) == {"GET /": None, "audit": "GET /"}
        root, audit_span = mlflow_.theirs.data.spans
        assert root.end_time_ns is not None
        assert audit_span.end_time_ns is not None
        assert root.end_time_ns < audit_span.end_time_ns

    async def test_a_task_that_outlives_the_request(self, mlflow_: Tracking) -> None:
        """Its open spans, ours and theirs, join the trace when they end."""
        app = FastAPI()
        go, tasks = asyncio.Event(), []

        async def outliving() -> None:
            with mlflow.start_span("theirs"), wherefrom.start_span("ours"):
                await go.wait()

        @app.get("/")
        async def handler() -> str:
            tasks.append(asyncio.create_task(outliving()))
            await asyncio.sleep(0)
            return "done"

        await get(mlflow_.traced(app))
        go.set()
        await asyncio.gather(*tasks)
        assert tree_of(mlflow_.theirs) == {"GET /": None, "theirs": "GET /", "ours": "theirs"}
        late = {span.name: span.end_time_ns for trace in mlflow_.sink.traces for span in trace.data.spans}
        assert set(late) == {"GET /", "theirs", "ours"}
        assert all(late.values())
        assert wherefrom.stats().errors == {}


class TestWhatIsSaid:
    """Metadata, tags, ids, previews, state: updates through either API appear in both; the last one wins."""

    async def test_all_of_it(self, mlflow_: Tracking) -> None:
        app = FastAPI()

        @app.get("/")
        async def handler() -> str:
            mlflow.update_current_trace(
                tags={"team": "a", "odd": {"x": 1}},  # type: ignore[dict-item]
                metadata={"tenant": "acme", "both": "mlflow 1", "n": 5, 7: "seven"},  # type: ignore[dict-item]
                client_request_id="their-id",
                request_preview="asked",
                session_id="s" * 300,
                user="ada",
            )
            wherefrom.update_current_trace(
                tags={"team": "b"},
                metadata={"both": "wherefrom", "again": "wherefrom"},
                response_preview="said",
            )
            mlflow.update_current_trace(metadata={"again": "mlflow"}, tags={"last": "1"})
            wherefrom.record_feature_flag("fast", value=True)
            return "x"

        await get(mlflow_.traced(app), X_User_ID="eve", X_Request_ID="header-id")
        info = mlflow_.theirs.info
        for other in (info, mlflow_.ours.info):
            found = other.trace_metadata
            assert {key: found[key] for key in ("tenant", "both", "again", "n", "7")} == {
                "tenant": "acme",
                "both": "wherefrom",
                "again": "mlflow",
                "n": "5",
                "7": "seven",
            }
            assert found["feature_flag_fast"] == "true"
            assert found["mlflow.trace.user"] == "ada"
            assert found["mlflow.trace.session"].startswith("s" * 250)
            assert (other.tags["team"], other.tags["last"], other.tags["odd"]) == ("b", "1", "{'x': 1}")
            assert other.client_request_id == "their-id"
            assert (other.request_preview, other.response_preview) == ("asked", "said")
        assert wherefrom.stats().errors == {}

    @pytest.mark.parametrize(
        ("ours", "expected"), [(None, "m-mlflow"), ("m-environ", "m-mlflow"), ("m-wherefrom", "m-wherefrom")]
    )
    async def test_the_model(
        self, mlflow_: Tracking, monkeypatch: pytest.MonkeyPatch, ours: str | None, expected: str
    ) -> None:
        """The one that MLflow calls active, unless we were told of another."""
        monkeypatch.setattr(process, "active_model", ours)
        monkeypatch.setenv("MLFLOW_ACTIVE_MODEL_ID", "m-environ")
        active = "mlflow.tracing.processor.base_mlflow._get_active_model_id_global"
        monkeypatch.setattr(active, lambda: "m-mlflow")
        app = FastAPI()

        @app.get("/")
        async def handler() -> str:
            return "x"

        await get(mlflow_.traced(app))
        check_alike(mlflow_)
        assert mlflow_.theirs.info.trace_metadata["mlflow.modelId"] == expected
        assert mlflow_.ours.info.trace_metadata["mlflow.modelId"] == expected

    async def test_inputs_and_outputs_of_the_outermost(self, mlflow_: Tracking) -> None:
        """Where nothing else is: what MLflow's user has traced first was asked, and last has answered."""
        app = FastAPI()

        @mlflow.trace
        def generate(documents: list[str]) -> str:
            with wherefrom.start_span("between"):
                return str(retrieve(documents[0]))

        @app.get("/")
        async def handler() -> str:
            with mlflow.start_span("warm up"), wherefrom.start_span("ours"):
                documents = retrieve("fish")
            return generate(documents)

        await get(mlflow_.traced(app))
        check_alike(mlflow_)
        root = mlflow_.theirs.data.spans[0]
        assert (root.inputs, root.outputs) == ({"question": "fish"}, "['on on fish']")

    @pytest.mark.parametrize("through", ["mlflow", "wherefrom"])
    async def test_state(self, mlflow_: Tracking, through: str) -> None:
        """What the app says wins over what happened."""
        app = FastAPI()

        @app.get("/")
        async def handler() -> None:
            say: Any = mlflow if through == "mlflow" else wherefrom
            say.update_current_trace(state="OK")
            raise RuntimeError("boom")

        assert (await get(mlflow_.traced(app))).status_code == 500
        check_alike(mlflow_)
        assert mlflow_.ours.info.state == "OK"
        assert mlflow_.theirs.data.spans[0].status.status_code == "ERROR"

    async def test_the_apps_context(self, mlflow_: Tracking) -> None:
        """``mlflow.tracing.context`` around the request is the app's word, and beats a header."""
        app = FastAPI()

        @app.get("/")
        async def handler() -> str:
            return "x"

        with mlflow.tracing.context(session_id="mine", metadata={"job": "7"}, tags={"t": "1"}):
            await get(mlflow_.traced(app), X_Session_ID="theirs")
        check_alike(mlflow_)
        assert mlflow_.ours.info.trace_metadata["mlflow.trace.session"] == "mine"
        assert mlflow_.ours.info.trace_metadata["job"] == "7"
        assert mlflow_.ours.info.tags["t"] == "1"

    async def test_no_name_is_kept(self, mlflow_: Tracking) -> None:
        """With ``user_hash_key``, users that the handler passes to MLflow are hashed, there too."""
        app = FastAPI()

        @app.get("/")
        async def handler() -> str:
            mlflow.update_current_trace(user="ada")
            return "x"

        await get(mlflow_.traced(app, user_hash_key="secret"), X_User_ID="eve")
        check_alike(mlflow_)
        assert len(mlflow_.theirs.info.trace_metadata["mlflow.trace.user"]) == 32

    async def test_bodies(self, mlflow_: Tracking) -> None:
        """Captured bodies are the root's inputs and outputs, before those of the handler."""
        app = FastAPI()

        @app.get("/")
        @mlflow.trace
        async def handler(question: Annotated[str, Header()]) -> dict[str, str]:
            return {"answer": question}

        await get(mlflow_.traced(app, capture_bodies=True), question="q")
        check_alike(mlflow_)
        assert mlflow_.theirs.info.response_preview == '{"answer": "q"}'
        assert mlflow_.theirs.data.spans[0].inputs == {"question": "q"}

    async def test_secrets(self, mlflow_: Tracking) -> None:
        """By name in attributes, arguments, tags, previews, events and the status: as in our own spans."""
        secret = "hunter2-of-ada"

        @mlflow.trace
        def sign_in(password: str, user: str) -> dict[str, str]:
            span = mlflow.get_current_active_span()
            assert span is not None
            span.set_attributes(
                {"apiKey": secret, "n": {"access_token": secret}, "text": f"password={secret}"}
            )
            mlflow.update_current_trace(tags={"db_password": secret}, request_preview=f"password={secret}")
            return {"client_secret": secret, "for": user}

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            sign_in(secret, "ada")
            try:
                with mlflow.start_span("failing"):
                    raise ValueError(f"password={secret}")
            except ValueError:
                pass
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        await get(mlflow_.traced(app))
        assert secret not in mlflow_.ours.to_json()
        span = named(mlflow_.ours, "sign_in")
        assert span.inputs == {"password": "[redacted]", "user": "ada"}
        assert span.outputs == {"client_secret": "[redacted]", "for": "ada"}
        assert span.attributes["apiKey"] == "[redacted]"


class TestHowItEnds:
    """MLflow itself loses a trace that does not end well."""

    async def test_failing(self, mlflow_: Tracking) -> None:
        """The exception is on the root, once, and the state is ERROR."""
        app = FastAPI()

        @app.get("/")
        async def handler() -> None:
            with mlflow.start_span("work"):
                raise RuntimeError("boom")

        assert (await get(mlflow_.traced(app))).status_code == 500
        check_alike(mlflow_)
        assert mlflow_.theirs.info.state == "ERROR"
        root, work = mlflow_.theirs.data.spans
        for span in (root, work):
            assert [event.name for event in span.events] == ["exception"]
            assert span.status.description == "RuntimeError: boom"
        assert root.attributes["http.response.status_code"] == 500

    async def test_5xx(self, mlflow_: Tracking) -> None:
        """An answer of 503 is an error without an exception."""
        app = FastAPI()

        @app.get("/", status_code=503)
        async def handler() -> str:
            return "x"

        await get(mlflow_.traced(app))
        check_alike(mlflow_)
        assert mlflow_.theirs.info.state == "ERROR"

    async def test_a_stream_that_is_not_read_to_its_end(self, mlflow_: Tracking) -> None:
        """MLflow leaves the span of a generator open; it is ended, and marked."""

        @mlflow.trace
        async def numbers() -> AsyncIterator[int]:
            for number in range(100):
                yield number

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            stream = numbers()
            async for number in stream:
                if number == 3:
                    break
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await send({"type": "http.response.body", "body": b"end"})

        await get(mlflow_.traced(app))
        check_alike(mlflow_)
        assert tree_of(mlflow_.theirs) == {"GET": None, "numbers": "GET"}
        assert named(mlflow_.ours, "numbers").attributes["wherefrom.generator.closed_early"] is True

    async def test_cancellation(self, mlflow_: Tracking) -> None:
        """A request that is cancelled in a traced generator is there, as an error, with what it had done."""
        begun = asyncio.Event()

        @mlflow.trace
        async def numbers() -> AsyncIterator[int]:
            yield 1
            begun.set()
            await asyncio.Event().wait()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async for _ in numbers():
                await send({"type": "http.response.body", "body": b"x", "more_body": True})

        request = asyncio.create_task(get(mlflow_.traced(app)))
        await begun.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        check_alike(mlflow_)
        assert mlflow_.ours.data.spans[0].attributes["wherefrom.outcome"] == "cancelled"
        assert tree_of(mlflow_.theirs) == {"GET": None, "numbers": "GET"}
