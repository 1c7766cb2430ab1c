"""What most tests need: counters at zero, a sink that keeps, and a finished trace."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage
from hypothesis import settings

from wherefrom import MemorySink, Span, SpanType, Trace, TraceInfo, TraceState
from wherefrom._ids import format_ids, new_random
from wherefrom.model import OK, TraceData
from wherefrom.process import Process, ledger, process
from wherefrom.tracing import assembly

from .engines import ENGINES, NewUrl, has_clickhouse, running_clickhouse
from .mlflow.server import MISSING, MLflowServer, mlflow_python
from .mlflow.server import running_server as running_mlflow
from .postgresql_server import PostgreSQLServer, running_server

# What a shell starts in the background ignores Ctrl-C, and so would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Files in memory, where Linux has room for them: databases wait for the disk at each commit.
_MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and _MEMORY.is_dir():
    _room = os.statvfs(_MEMORY)
    if _room.f_bavail * _room.f_frsize >= 4e9 and not _room.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(_MEMORY)
        tempfile.tempdir = None
# To look for plugins of pydantic takes each process that a test starts longer than to import it.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
# A busy machine is no failure, and whoever waits for the tests gets half of CI's examples.
settings.register_profile("wherefrom", deadline=None, max_examples=100 if "CI" in os.environ else 50)
settings.load_profile("wherefrom")

_ASSEMBLED = frozenset(
    {
        "queues",
        "queue_budget",
        "sources",
        "default_recorder",
        "active_model",
        "shutdown_timeout",
        "flush_failed_at",
        "_said",
    }
)

MakeTrace = Callable[..., Trace]
COVERAGE = Coverage.current()
CLICKHOUSE = pytest.StashKey[int]()
ROOT = Path(__file__).parent


# The groups that take longest start first, so that no worker is left alone with one at the end.
LONGEST = (
    "mlflow", "browser", "servers/test_framework_matrix.py", "test_readme.py", "query/test_as_mlflow.py",
    "servers/test_shutdown.py", "servers/test_uvicorn.py", "servers/test_other_servers.py", "cli/test_app.py",
    "test_docs.py", "stores/sqlite/test_deletion.py", "query/test_properties.py", "web/test_hostile.py",
    "capture/test_walk.py", "query/test_sql.py", "servers/test_disconnects.py", "web/test_openapi.py",
    "sinks/test_workers.py", "web/test_queries.py", "analysis/test_verdicts.py", "test_model_hostile.py",
    "stores/sqlite/test_known_keys.py", "servers/test_services.py",
    "source/test_launch.py", "servers/test_root_path.py", "web/pages/test_large.py",
    "integrations/test_pytest.py",
)  # fmt: skip

_MEASURED_CASES = 6


@cache
def group_of(file: str) -> str:
    """The tests of a file run in one worker, and so do all that share MLflow's server or the browser."""
    path = ROOT.parent / file
    if path.parent == ROOT / "browser":
        return "browser"
    return "mlflow" if "mlflow_server" in path.read_text() else path.relative_to(ROOT).as_posix()


def is_measured(item: pytest.Item) -> bool:
    """Whether coverage traces the test, which doubles what it costs.

    The longest groups, random examples and further cases of a test go through lines that other tests have
    measured. What is asked of the three stores is measured over one of them; the code of the others is
    that of ``tests/stores``.
    """
    group = group_of(item.nodeid.partition("::")[0])
    # No other test goes through the bridge to MLflow.
    if (group in LONGEST and group != "mlflow") or item.get_closest_marker("hypothesis"):
        return False
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return True
    engine = callspec.params.get("new_url", "sqlite")
    of_stores = ROOT / "stores" in item.path.parents
    cases = sum(index for name, index in callspec.indices.items() if name != "new_url")
    return cases < _MEASURED_CASES and (engine == "sqlite" or of_stores)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Stop and start the tracer between tests that are measured and tests that are not."""
    measured = is_measured(item)
    if COVERAGE is None or measured is (Coverage.current() is COVERAGE):
        return
    if measured:
        COVERAGE.start()
    else:
        COVERAGE.stop()
        # Without the variable, the processes that they start are not measured either.
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the groups."""

    def place(item: pytest.Item) -> int:
        group = group_of(item.path.relative_to(ROOT.parent).as_posix())
        return LONGEST.index(group) if group in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep groups together and in order. xdist 3.8 ignores its own marks for groups under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):  # type: ignore[misc] # the package has no types
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return Groups(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start one ClickHouse server for all workers: its engine costs a processor something while it waits."""
    config: pytest.Config = node.config
    if CLICKHOUSE not in config.stash and has_clickhouse():
        running = ExitStack()
        config.add_cleanup(running.close)
        folder = running.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        config.stash[CLICKHOUSE] = running.enter_context(running_clickhouse(Path(folder, "engine"))).port
    node.workerinput["clickhouse_port"] = config.stash.get(CLICKHOUSE, None)


def import_tests(config: pytest.Config) -> None:
    """Import all modules of tests, each worker from another one on: none compiles what another has compiled.

    Pytest itself would have all workers rewrite and compile the same module at the same time.
    """
    worker = getattr(config, "workerinput", None)
    if worker is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    modules = [
        ".".join((ROOT.name, *path.relative_to(ROOT).with_suffix("").parts))
        for path in sorted(ROOT.rglob("test_*.py"))
    ]
    first = len(modules) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for module in modules[first:] + modules[:first]:
        # Pytest reports it when it collects the module.
        with suppress(Exception, pytest.skip.Exception):
            import_module(module)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """No collection of garbage looks at what is imported meanwhile, which takes longer than most tests."""
    gc.disable()
    try:
        import_tests(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With ``TEST_NO_SKIPS`` a skipped test fails the run: CI has every optional part."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("TEST_NO_SKIPS") and not hasattr(session.config, "workerinput"):
        reporter.write_line(f"{len(skipped)} skipped, and TEST_NO_SKIPS is set", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True, scope="module")
def _small_heap() -> None:
    """A test that collects garbage does not look at what the modules before its own have left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _empty_ledger() -> None:
    ledger.reset()


@pytest.fixture
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The state of a process that has just started; its queues are closed at the end."""
    for name, value in vars(Process()).items():
        if name in _ASSEMBLED:
            monkeypatch.setattr(process, name, value)
    yield
    if process.queues:
        assembly._close_all()


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture(scope="session")
def make_trace() -> MakeTrace:
    """Makes a finished trace of one root span; keywords are fields of its info."""

    def make(name: str = "GET /", **info: Any) -> Trace:
        started = info.setdefault("request_time", 1_700_000_000_000)
        trace_id, span_id = format_ids(started * 1_000_000, *new_random())
        trace_id = info.pop("trace_id", trace_id)
        root = Span(trace_id, span_id, None, name, SpanType.SERVER, started * 1_000_000)
        root.end_time_ns, root.status = root.start_time_ns + 5_000_000, OK
        defaults = {"execution_duration": 5, "state": TraceState.OK, "tags": {"mlflow.traceName": name}}
        return Trace(TraceInfo(trace_id, **{**defaults, **info}), TraceData([root]))

    return make


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer | None]:
    """A PostgreSQL server that all tests share; ``None`` where it is not installed."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session", params=ENGINES)
def new_url(request: pytest.FixtureRequest) -> NewUrl:
    """The contract of a store: whoever uses this runs over each of them."""
    return ENGINES[request.param](request)


@pytest.fixture(scope="session")
def clickhouse_port(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of a ClickHouse server that all tests share: each makes databases of its own in it."""
    shared = getattr(request.config, "workerinput", {}).get("clickhouse_port")
    if shared is not None:
        yield shared
        return
    with running_clickhouse(tmp_path_factory.mktemp("clickhouse") / "engine") as server:
        yield server.port


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """A real MLflow server that all tests share: each makes an experiment of its own in it."""
    python = mlflow_python()
    if python is None:
        pytest.skip(MISSING)
    with running_mlflow(python, tmp_path_factory.mktemp("mlflow")) as server:
        yield server
