"""Figures of the code's layout, against the aims of its last reorganisation: ``python -m benchmarks.house``.

Static figures come from the syntax trees of the package. The paths of a request and of a search are counted
by running each under a profile function: the distinct modules of the package that are entered, listed with
``--paths``.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import io
import sys
import tempfile
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import wherefrom

ROOT = Path(wherefrom.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in MODULES}
SQL_PACKAGES = {"sqlalchemy", "sqlite3", "psycopg", "clickhouse_connect", "chdb"}
ENDING = {"settle", "complete_info", "hand_over", "let_go", "agree", "describe", "finish", "complete"}
MUTABLE = {
    "dict",
    "list",
    "set",
    "deque",
    "Counter",
    "defaultdict",
    "WeakSet",
    "WeakKeyDictionary",
    "Lock",
    "RLock",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines() -> int:
    return sum(len(path.read_text().splitlines()) for path in MODULES)


def comments() -> float:
    """The share of lines with a comment, tool directives left out."""
    count = 0
    for path in MODULES:
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type == tokenize.COMMENT and not token.string.startswith(
                ("# noqa", "# type:", "# fmt:")
            ):
                count += 1
    return count / lines()


def writes_sql(path: Path) -> bool:
    """Whether a module imports SQLAlchemy or a driver, or runs a statement."""
    for node in ast.walk(TREES[path]):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        if any(name.split(".")[0] in SQL_PACKAGES for name in names):
            return True
    return False


def ending_calls() -> list[str]:
    """The calls by which the middleware ends a trace."""
    tree = TREES[ROOT / "asgi" / "middleware.py"]
    return [
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, (ast.Attribute, ast.Name))
        and (node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id) in ENDING
    ]


def mutable_state(path: Path) -> Iterator[str]:
    """Mutable names at module level that are not constants, and ``global`` names."""
    for node in TREES[path].body:
        value = getattr(node, "value", None)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and _is_mutable(value):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and not target.id.strip("_").isupper() and target.id != "__all__":
                yield target.id
    for inner in ast.walk(TREES[path]):
        if isinstance(inner, ast.Global):
            yield from inner.names


def _is_mutable(value: ast.AST | None) -> bool:
    if isinstance(value, (ast.List, ast.Dict, ast.Set)):
        return True
    if isinstance(value, ast.Call):
        called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return called in MUTABLE
    return False


def passed(run: Callable[[], Any], until: Callable[[FrameType], bool] = lambda _: False) -> list[str]:
    """The modules of the package that ``run`` enters on this thread, in order of first entry."""
    seen: dict[str, None] = {}
    stopped = False

    def profile(frame: FrameType, event: str, _arg: Any) -> None:
        nonlocal stopped
        file = frame.f_code.co_filename
        if event != "call" or stopped or not file.startswith(str(ROOT)) or frame.f_code.co_name == "<module>":
            return
        seen[str(Path(file).relative_to(ROOT))] = None
        stopped = until(frame)

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return list(seen)


async def ok(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def request_path() -> list[str]:
    app = wherefrom.TraceMiddleware(ok, sink=wherefrom.MemorySink())
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"1")]}

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(_message: Any) -> None:
        pass

    def once() -> None:
        asyncio.run(app(dict(scope), receive, send))

    once()  # create what is created once in a process
    return passed(once)


def search_path(url: str) -> list[str]:
    client = wherefrom.TraceClient(url)
    query = "metadata.app_version = '1.0' AND status = 'OK'"
    client.search_traces(filter_string=query)
    return passed(lambda: client.search_traces(filter_string=query))


def page_snapshots(url: str) -> int:
    """The number of snapshots that the Traces page opens."""
    from starlette.testclient import TestClient

    from wherefrom.stores.sqlite.store import SQLiteStore
    from wherefrom.web import app

    opened = 0
    original = SQLiteStore.snapshot

    def counted(self: Any, **options: Any) -> Any:
        nonlocal opened
        opened += 1
        return original(self, **options)

    SQLiteStore.snapshot = counted  # type: ignore[method-assign]
    try:
        with TestClient(app(store=url, allow=lambda _: True)) as client:
            client.get("/traces").raise_for_status()
    finally:
        SQLiteStore.snapshot = original  # type: ignore[method-assign]
    return opened


def tracer_protocols() -> list[str]:
    """The protocols that another tracer has to meet: ``Bridge``, and the session that it returns."""
    return [
        node.name
        for node in TREES[ROOT / "tracing" / "bridge.py"].body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
    ]


def filled(folder: str) -> str:
    """Create a store with a few traces; return its URL."""
    url = f"sqlite:///{folder}/house.db"
    app = wherefrom.TraceMiddleware(ok, settings=wherefrom.Settings(store=url))

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(_message: Any) -> None:
        pass

    async def requests() -> None:
        for number in range(20):
            await app({"type": "http", "method": "GET", "path": f"/{number}", "headers": []}, receive, send)

    asyncio.run(requests())
    wherefrom.flush()
    return url


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--paths", action="store_true", help="list the modules behind each count")
    shows_paths = arguments.parse_args().paths
    with tempfile.TemporaryDirectory() as folder:
        url = filled(folder)
        request, search = request_path(), search_path(url)
        snapshots = page_snapshots(url)
    sql = [name_of(path) for path in MODULES if writes_sql(path)]
    state = [f"{name_of(path)}: {name}" for path in MODULES for name in mutable_state(path)]
    sizes = sorted(len(path.read_text().splitlines()) for path in MODULES)
    rows: list[tuple[str, object, object, str, list[str]]] = [
        ("modules", 263, len(MODULES), "150", []),
        ("lines", "28,215", f"{lines():,}", "24,000", []),
        ("median lines of a module", 86, sizes[len(sizes) // 2], "", []),
        ("calls that end a trace in the middleware", 7, len(ending_calls()), "1", ending_calls()),
        ("modules a request passes before the sink", "~20", len(request), "9", request),
        ("modules a search passes", 15, len(search), "8", search),
        ("modules that import SQLAlchemy or a driver", 39, len(sql), "those of stores/", sql),
        ("snapshots that a Traces page opens", 6, snapshots, "1", []),
        ("protocols that a tracer must meet", 3, len(tracer_protocols()), "1", tracer_protocols()),
        ("mutable names at module level", "~25", len(state), "few", state),
        ("lines with a comment", "0.5 %", f"{comments():.1%}", "2 %", []),
    ]
    print("| | at first | now | aim |\n|---|---:|---:|---:|")
    for name, first, now, aim, behind in rows:
        print(f"| {name} | {first} | {now} | {aim} |")
        if shows_paths:
            for line in behind:
                print(f"    {line}")


if __name__ == "__main__":
    main()
