"""Layers: every import of the package points down, wherever it stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import wherefrom

ROOT = Path(wherefrom.__file__).parent

# Lowest first: a unit may import those before it. Packages are units; a dotted name is a part of a package
# that has a layer of its own.
LAYERS = [
    "exceptions",
    "_clock",
    "keys",
    "_capture",
    "_sanitize",
    "_buckets",
    "_units",
    "_permissions",
    "_types",
    "process",
    "_ids",
    "propagation",
    "model",
    "messages",
    "settings",
    "context",
    "_records",
    "_csv",
    "query",
    "sinks",
    "source",
    "stores",
    "otel.protobuf",
    "otel.otlp",
    "exporters",
    "mlflow.wire",
    "mlflow.client",
    "mlflow.trace_infos",
    "mlflow.exporter",
    "exporters.targets",
    "tracing",
    "asgi",
    "integrations",
    "otel",
    "client",
    "analysis",
    "copying",
    "alerts",
    "web",
    "mlflow",
    "cli",
    "__main__",
]
READ_HALF = {"query", "client", "analysis", "copying", "alerts", "cli", "web", "mlflow"}
WRITE_HALF = set(LAYERS[LAYERS.index("sinks") :]) - {"stores", "__main__"} - READ_HALF

MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
SQL = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE|PRAGMA) \S")
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]


@cache
def imports(path: Path) -> list[str]:
    """The absolute name of everything that a module imports: at its top, in functions, for types."""
    return list(_read_imports(path))


def _read_imports(path: Path) -> Iterator[str]:
    package = ["wherefrom", *path.relative_to(ROOT).parts[:-1]]
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> list[list[str]]:
    """The parts of what a module imports from this package, ``wherefrom`` left out."""
    return [name.split(".")[1:] for name in imports(path) if name.split(".")[0] == "wherefrom"]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(parsed(path))


def protocols(path: Path) -> list[str]:
    return [
        node.name
        for node in nodes(path)
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)
    ]


def unit(path: Path) -> str:
    return unit_of(path.relative_to(ROOT).with_suffix("").parts)


def unit_of(parts: Sequence[str]) -> str:
    """The longest name in the layers that a module is part of."""
    dotted = [".".join(parts[:length]) for length in range(len(parts), 1, -1)]
    return next((name for name in dotted if name in LAYERS), parts[0])


def test_every_unit_has_its_layer() -> None:
    """A new module is given its place in the list."""
    assert {unit(path) for path in MODULES} <= set(LAYERS)


@pytest.mark.parametrize("path", MODULES)
def test_imports_point_down(path: Path) -> None:
    """A module imports what is below its unit, or what is in its own package."""
    own = LAYERS.index(unit(path))
    for parts in own_imports(path):
        assert parts, "the package itself is imported by nobody inside"
        assert unit_of(parts) in LAYERS
        is_inside = unit_of(parts) == unit(path) and path.parent != ROOT
        assert is_inside or LAYERS.index(unit_of(parts)) < own, f"{unit(path)} imports {'.'.join(parts)}"


def test_the_halves_meet_only_below() -> None:
    """What writes traces never imports what reads them."""
    for path in MODULES:
        if unit(path) in WRITE_HALF:
            assert not {unit_of(parts) for parts in own_imports(path)} & READ_HALF, path


def test_packages_have_no_cycles() -> None:
    """Within a package too, imports go one way."""
    for package in sorted(path for path in ROOT.iterdir() if (path / "__init__.py").exists()):
        stems = {path.stem for path in package.glob("*.py")}
        graph = {
            path.stem: {
                parts[1]
                for parts in own_imports(path)
                if parts[0] == package.name and len(parts) > 1 and parts[1] in stems - {path.stem}
            }
            for path in package.glob("*.py")
        }
        while free := {stem for stem, needed in graph.items() if not needed & graph.keys()}:
            graph = {stem: needed for stem, needed in graph.items() if stem not in free}
        assert not graph, f"a cycle in {package.name}: {graph}"


def test_the_context_registry_is_imported_once() -> None:
    """``contextvars-extras`` is no longer developed: one module depends on it."""
    users = [name for name, path in zip(NAMES, MODULES, strict=True) if _uses(path, "contextvars_extras")]
    assert users == ["context.py"]


def test_sql_stays_in_the_stores() -> None:
    """SQL lives in ``stores/`` and nowhere else: no driver, no statement, no connection above it."""
    drivers = {"sqlalchemy", "sqlite3", "psycopg", "clickhouse_connect", "chdb"}
    runs = {"execute", "executemany", "executescript", "scalars"}
    for path in MODULES:
        if unit(path) == "stores":
            continue
        assert not {name.split(".")[0] for name in imports(path)} & drivers, path
        for node in nodes(path):
            assert not (isinstance(node, ast.Attribute) and node.attr in runs), path
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not SQL.match(node.value), path


def test_only_stores_know_their_dialects() -> None:
    """A store is reached through ``Store`` and ``Snapshot``: nothing above imports a part of a dialect."""
    interface = {"Selection", "Snapshot", "Store", "open_store", "resolve", "base", "deadline", "opening"}
    interface |= {"incidents"}  # of alerts, which every store has in the same file
    for path in MODULES:
        if unit(path) != "stores":
            used = {parts[1] for parts in own_imports(path) if parts[0] == "stores"}
            assert used <= interface, path


def test_one_object_handles_forks_and_exits() -> None:
    """``process`` registers the one fork hook and the one exit hook; others register with it."""
    hooks = {"register_at_fork", "atexit"}
    users = [
        name
        for name, path in zip(NAMES, MODULES, strict=True)
        for node in nodes(path)
        if (isinstance(node, ast.Attribute) and node.attr in hooks and isinstance(node.value, ast.Name))
        or (isinstance(node, ast.alias) and node.name in hooks)
    ]
    assert set(users) == {"process.py"}
    assert len(users) == 2, "atexit.register and os.register_at_fork, once each"


def test_traces_begin_and_end_in_one_way() -> None:
    """Only the recorder makes a live trace and knows the steps that end it; the middleware makes one call."""
    calls = [
        (name, node.func)
        for name, path in zip(NAMES, MODULES, strict=True)
        for node in nodes(path)
        if isinstance(node, ast.Call)
    ]
    makers = {name for name, func in calls if isinstance(func, ast.Name) and func.id == "LiveTrace"}
    assert makers == {"tracing/recorder.py"}
    steps = {"settle", "complete_info", "record_late"}
    ends = [(name, func.attr) for name, func in calls if isinstance(func, ast.Attribute)]
    assert {name for name, step in ends if step in steps} == {"tracing/recorder.py"}
    assert [step for name, step in ends if name.startswith("asgi/") and step == "finish"] == ["finish"]


def test_one_protocol_connects_another_tracer() -> None:
    """A tracer implements ``Bridge`` and the session that it returns, and nothing else."""
    path = ROOT / "tracing" / "bridge.py"
    assert protocols(path) == ["BridgeSession", "Bridge"]
    for tracer in ("mlflow", "otel"):
        bases = {
            base.id
            for path in (ROOT / tracer).glob("*.py")
            for node in nodes(path)
            if isinstance(node, ast.ClassDef)
            for base in node.bases
            if isinstance(base, ast.Name)
        }
        assert bases >= {"Bridge", "BridgeSession"}


def test_sinks_get_finished_records() -> None:
    """What writes and sends traces knows the records of ``model``, and no live trace or span."""
    for path in MODULES:
        if unit(path) in {"sinks", "stores", "exporters", "mlflow.exporter", "otel.otlp"}:
            assert not {parts[0] for parts in own_imports(path)} & {"tracing", "asgi"}, path


def test_process_holds_what_changes() -> None:
    """No module has a ``global`` name, or an empty container that it fills, besides caches."""
    found = [
        (name, target.id)
        for name, path in zip(NAMES, MODULES, strict=True)
        for node in parsed(path).body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and _is_empty_container(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and not target.id.strip("_").isupper()
    ]
    # Weak: the span processors of each provider, as the SDK can list none.
    assert found == [("otel/provider.py", "_pipelines")]
    assert not [path for path in MODULES for node in nodes(path) if isinstance(node, ast.Global)]


def test_snapshots_are_opened_at_the_entrances() -> None:
    """A page, a command and a question each open one snapshot, where they start, and hand it down."""
    openers = {
        name
        for name, path in zip(NAMES, MODULES, strict=True)
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "snapshot"
        and unit(path) != "stores"
    }
    assert openers == {
        "analysis/scope.py",
        "cli/completion.py",
        "cli/prune.py",
        "client.py",
        "web/application.py",
    }


def test_a_filter_is_parsed_at_the_entrances() -> None:
    """Pages, commands and questions pass the tree; only links and results write a filter as text."""
    users = {
        name
        for name, path in zip(NAMES, MODULES, strict=True)
        if unit(path) != "query" and any(parts[-1] == "parse_filter" for parts in own_imports(path))
    }
    assert users == {"analysis/scope.py", "analysis/tail.py", "client.py"}


def test_public_modules_are_those_of_the_readme() -> None:
    """The README lists them; each has an ``__all__``, and every other module is private."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    section = readme.partition("## Public modules")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(wherefrom[\w.]*)`", section.partition("| module |")[2]))
    for name in listed:
        module = import_module(name)
        assert all(hasattr(module, public) for public in module.__all__), name
    packages = {
        f"wherefrom.{path.parent.relative_to(ROOT)}".replace("/", ".")
        for path in ROOT.rglob("__init__.py")
        if path.parent != ROOT and "__all__" in path.read_text()
    }
    # Of these, the first three are named by the root's ``__all__``, and the last is the command.
    assert packages - listed == {
        f"wherefrom.{name}" for name in ("asgi", "model", "query", "source", "cli")
    } | {"wherefrom.web.charts"}


def test_documents_use_public_modules_alone() -> None:
    """No example in the documentation imports a private module."""
    root = Path(__file__).parents[1]
    readme = (root / "README.md").read_text()
    listed = set(re.findall(r"`(wherefrom[\w.]*)`", readme.partition("## Public modules")[2]))
    files = [root / "README.md", *(root / "docs").glob("*.md"), *(root / "examples").rglob("*.py")]
    for file in files:
        used = set(re.findall(r"(?:from|import) (wherefrom(?:\.\w+)*)", file.read_text()))
        assert used <= listed, file


def _uses(path: Path, package: str) -> bool:
    return any(name.split(".")[0] == package for name in imports(path))


def _is_empty_container(value: ast.expr | None) -> bool:
    """Whether a value is ``{}``, ``[]``, or a container made without arguments."""
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List):
        return not value.elts
    made = {"dict", "list", "set", "deque", "Counter", "WeakSet", "WeakKeyDictionary", "WeakValueDictionary"}
    return isinstance(value, ast.Call) and ast.unparse(value.func) in made and not value.args
