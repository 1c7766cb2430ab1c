"""Layers: every import of the package points down, wherever it stands."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import wherefrom

ROOT = Path(wherefrom.__file__).parent

# Lowest first: a unit may import those before it. Packages are units; a dotted name is a part of a package
# that has a layer of its own.
LAYERS = [
    "exceptions",
    "keys",
    "_capture",
    "_sanitize",
    "_units",
    "_permissions",
    "_types",
    "process",
    "_ids",
    "model",
    "propagation",
    "settings",
    "context",
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
    "web",
    "mlflow",
    "cli",
    "__main__",
]
READ_HALF = {"query", "client", "analysis", "cli", "web", "mlflow"}
WRITE_HALF = set(LAYERS[LAYERS.index("sinks") :]) - {"stores", "__main__"} - READ_HALF

MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]


def imports(path: Path) -> Iterator[str]:
    """The absolute name of everything that a module imports: at its top, in functions, for types."""
    package = ["wherefrom", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> list[list[str]]:
    """The parts of what a module imports from this package, ``wherefrom`` left out."""
    return [name.split(".")[1:] for name in imports(path) if name.split(".")[0] == "wherefrom"]


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


def test_drivers_stay_in_the_stores() -> None:
    """SQL lives in the stores."""
    users = {unit(path) for path in MODULES if _uses(path, "sqlalchemy") or _uses(path, "sqlite3")}
    assert users == {"stores"}


def test_one_object_is_told_of_forks_and_exits() -> None:
    """``process`` registers the one fork hook and the one exit hook; others register with it."""
    hooks = {"register_at_fork", "atexit"}
    users = {
        str(path.relative_to(ROOT))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in hooks and isinstance(node.value, ast.Name))
        or (isinstance(node, ast.alias) and node.name in hooks)
    }
    assert users - PENDING == {"process.py"}


# ``weakref.finalize`` has an attribute of the name; OTLP moves with the exporters.
PENDING = {"stores/sqlite/store.py", "exporters/otlp.py"}


def test_traces_begin_and_end_in_one_way() -> None:
    """Only the recorder makes a live trace, and the middleware makes one call that ends it."""
    calls = [
        (str(path.relative_to(ROOT)), node.func)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    makers = {name for name, func in calls if isinstance(func, ast.Name) and func.id == "LiveTrace"}
    assert makers == {"tracing/recorder.py"}
    steps = {"finish", "settle", "complete_info", "record", "record_late"}
    ends = [
        (name, func.attr)
        for name, func in calls
        if isinstance(func, ast.Attribute)
        and func.attr in steps
        and name.split("/")[0] in {"asgi", "tracing"}
    ]
    assert [step for name, step in ends if name.startswith("asgi/")] == ["finish"]


def _uses(path: Path, package: str) -> bool:
    return any(name.split(".")[0] == package for name in imports(path))
