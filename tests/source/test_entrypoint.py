from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom.source.entrypoint import Entry, find_entry, module_file
from wherefrom.source.facts import Process

BIN = "/venv/bin"


def main(file: str | None = None, spec: tuple[str, str] | None = None, **names: Any) -> ModuleType:
    module = ModuleType("__main__")
    if file:
        module.__file__ = file
    if spec:
        module.__spec__ = ModuleSpec(spec[0], None, origin=spec[1])
    vars(module).update(names)
    return module


def entry(*argv: str, **known: Any) -> Entry:
    defaults: dict[str, Any] = {
        "orig_argv": (),
        "environ": {},
        "cwd": "/cwd",
        "main_module": main(),
        "modules": {},
        "path": (),
    }
    return find_entry(Process(argv=argv, **(defaults | known)))


def shell(name: str, **user_ns: str) -> dict[str, ModuleType]:
    """The modules of a process in which IPython runs a shell of the class ``name``."""
    ipython = ModuleType("IPython")
    instance = type(name, (), {"user_ns": user_ns})()
    vars(ipython)["get_ipython"] = lambda: instance
    return {"IPython": ipython}


@pytest.mark.parametrize("typed", ["app.py", "./app.py", "../repo/app.py", "{}/app.py"])
def test_a_script_is_named_as_it_was_typed(tmp_path: Path, typed: str) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "app.py").touch()
    typed = typed.format(repo)
    found = entry(typed, cwd=str(repo), main_module=main(str(repo / "app.py")))
    assert found == Entry(typed, "LOCAL", str(repo / "app.py"), "sys.argv")
    assert entry(typed, cwd=str(repo), main_module=None) == found


def test_a_script_is_found_after_the_directory_changed(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    assert entry("app.py", cwd="/", main_module=main(str(tmp_path / "app.py"))).location == str(
        tmp_path / "app.py"
    )
    assert entry("gone.py").location is None


@pytest.mark.parametrize("start", ["", "-", "-c"])
def test_without_a_script_there_is_no_name_but_a_place(start: str) -> None:
    found = entry(start)
    assert (found.name, found.kind, found.location) == (None, "UNKNOWN", "/cwd")
    assert found.origin.startswith("no script")
    assert entry(start, cwd="").location is None


def test_a_module_is_named_by_its_dotted_name() -> None:
    found = entry("/x/pkg/mod.py", main_module=main("/x/pkg/mod.py", ("pkg.mod", "/x/pkg/mod.py")))
    assert found == Entry("pkg.mod", "LOCAL", "/x/pkg/mod.py", "python -m")
    found = entry("/x/pkg/__main__.py", main_module=main(spec=("pkg.__main__", "/x/pkg/__main__.py")))
    assert found.name == "pkg"


def test_a_module_in_a_worker_is_named_by_its_packages(tmp_path: Path) -> None:
    """A spawned child of ``python -m pkg`` has no ``__main__.__spec__``."""
    package = tmp_path / "outer" / "pkg"
    package.mkdir(parents=True)
    for directory in (package, package.parent):
        (directory / "__init__.py").touch()
    (package / "__main__.py").touch()
    assert entry(str(package / "__main__.py")).name == "outer.pkg"
    (package / "__init__.py").unlink()
    assert entry(str(package / "__main__.py")).name == str(package / "__main__.py")


def test_a_directory_that_is_run_is_a_script(tmp_path: Path) -> None:
    (tmp_path / "__main__.py").touch()
    module = main(str(tmp_path / "__main__.py"), ("__main__", str(tmp_path / "__main__.py")))
    found = entry(str(tmp_path), main_module=module)
    assert (found.name, found.location) == (str(tmp_path), str(tmp_path / "__main__.py"))


def test_a_runner_that_stays_the_main_module_does_not_hide_the_script(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    module = main("/lib/cProfile.py", ("cProfile", "/lib/cProfile.py"))
    found = entry("app.py", cwd=str(tmp_path), main_module=module)
    assert (found.name, found.location) == ("app.py", str(tmp_path / "app.py"))


@pytest.mark.parametrize(
    "start", [f"{BIN}/pytest", f"{BIN}/py.test", "/lib/pytest/__main__.py", "pytest.exe"]
)
def test_pytest_is_named_and_its_place_is_the_directory(start: str) -> None:
    assert entry(start, "-q") == Entry("pytest", "LOCAL", "/cwd", "sys.argv")


def test_unittest_is_named_though_it_rewrites_argv() -> None:
    assert entry("/usr/bin/python3 -m unittest", "tests").name == "unittest"


@pytest.mark.parametrize(
    "start",
    [f"{BIN}/uvicorn", "/lib/uvicorn/__main__.py", r"uvicorn.exe", "uvicorn-script.py", "uvicorn"],
)
def test_a_server_is_named_by_its_app(tmp_path: Path, start: str) -> None:
    (tmp_path / "app.py").touch()
    found = entry(start, "--port", "80", "app:app", cwd=str(tmp_path))
    assert found == Entry("app:app", "LOCAL", str(tmp_path / "app.py"), "argument of uvicorn")


def test_a_server_without_an_app_has_no_name() -> None:
    assert entry(f"{BIN}/uvicorn") == Entry(None, "LOCAL", "/cwd", "uvicorn was given no module:app")


def test_the_app_is_found_where_the_server_looks_for_it(tmp_path: Path) -> None:
    for directory in ("here", "there"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "app.py").touch()
    there = str(tmp_path / "there" / "app.py")
    assert entry("uvicorn", "app:app", "--app-dir", "../there", cwd=str(tmp_path / "here")).location == there
    assert entry("hypercorn", f"asgi:{there}:app").location == there
    assert entry("hypercorn", "wsgi:app:app", cwd=str(tmp_path / "there")).location == there
    assert entry("fastapi", "dev", "there/app.py", cwd=str(tmp_path)).location == there
    loaded = ModuleType("app")
    loaded.__file__ = "/loaded/app.py"
    assert entry("uvicorn", "app:app", modules={"app": loaded}).location == "/loaded/app.py"
    assert entry("uvicorn", "nowhere:app").location is None


def test_modules_are_found_without_being_imported(tmp_path: Path) -> None:
    (tmp_path / "space" / "pkg").mkdir(parents=True)
    (tmp_path / "space" / "pkg" / "__init__.py").write_text("raise SystemExit\n")
    (tmp_path / "space" / "pkg" / "mod.py").write_text("raise SystemExit\n")
    process = Process(modules={}, path=["/nonexistent", str(tmp_path)], cwd="/")
    package = str(tmp_path / "space" / "pkg")
    assert module_file("space.pkg.mod", process) == f"{package}/mod.py"
    assert module_file("space.pkg", process) == f"{package}/__init__.py"
    assert module_file("space.pkg.gone", process) == f"{package}/__init__.py"
    assert module_file("space.pkg.mod.deeper", process) == f"{package}/mod.py"
    assert module_file("space", process) == str(tmp_path / "space")
    assert module_file("gone", process) is None
    assert module_file("", process) is None
    assert "space" not in sys.modules


def test_a_hook_that_fails_means_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise ValueError

    monkeypatch.setattr(sys, "path_hooks", [refuse])
    assert module_file("app", Process(modules={}, path=[str(tmp_path / "fresh")], cwd="/")) is None


def test_an_installed_command_leads_to_the_code_that_it_calls(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "tool.py").touch()
    script = tmp_path / "bin" / "tool"
    script.write_text("import sys\nfrom tool import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    known: dict[str, Any] = {"main_module": main(str(script)), "path": [str(tmp_path / "src")]}
    assert entry(str(script), **known).location == str(tmp_path / "src" / "tool.py")
    assert entry(str(script), **(known | {"path": ()})).location == str(script)
    script.write_text("from fastapi import FastAPI\n")
    assert entry(str(script), **known).location == str(script)
    script.write_bytes(b"\0" * 100_000)
    assert entry(str(script), **known).location == str(script)


@pytest.mark.parametrize(
    ("orig_argv", "name"),
    [
        (["python", "app.py", "x"], "app.py"),
        (["python", "-X", "dev", "-W", "error", "-I", "app.py"], "app.py"),
        (["python", "-m", "pkg.mod", "x"], "pkg.mod"),
        (["python", "-m", "uvicorn", "m:app"], "m:app"),
        (["python", "-c", "code"], None),
        (["python", "-i"], None),
        (["python"], None),
        ([], None),
    ],
)
def test_the_original_command_line_stands_in_for_an_empty_one(orig_argv: list[str], name: str | None) -> None:
    assert entry(orig_argv=orig_argv).name == name


def test_a_notebook_is_named_by_the_editor(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").touch()
    file = str(tmp_path / "a.ipynb")
    modules = shell("ZMQInteractiveShell", __vsc_ipynb_file__=file)
    found = entry("/x/ipykernel_launcher.py", modules=modules)
    assert found == Entry("a.ipynb", "NOTEBOOK", file, "__vsc_ipynb_file__ of the notebook")
    found = entry("/x/ipykernel_launcher.py", main_module=main(__vsc_ipynb_file__=file))
    assert found.name == "a.ipynb"


@pytest.mark.parametrize("variable", ["__vsc_ipynb_file__", "IPYNB_FILE", "JPY_SESSION_NAME"])
def test_a_notebook_is_named_by_the_environment(variable: str) -> None:
    modules = shell("ZMQInteractiveShell")
    found = entry("/x/ipykernel_launcher.py", modules=modules, environ={variable: "/a/b/c.ipynb"})
    assert found == Entry("c.ipynb", "NOTEBOOK", "/cwd", f"env {variable}")


def test_a_notebook_without_a_name_is_a_notebook_still() -> None:
    for known in (
        {"modules": shell("ZMQInteractiveShell", __vsc_ipynb_file__="")},
        {"main_module": None, "environ": {"IPYNB_FILE": " "}},
    ):
        found = entry("/x/ipykernel_launcher.py", **known)
        assert (found.name, found.kind, found.location) == (None, "NOTEBOOK", "/cwd")
        assert "JPY_SESSION_NAME" in found.origin


def test_a_shell_derived_from_the_kernels_is_a_notebook() -> None:
    base = type("ZMQInteractiveShell", (), {})
    colab = type("Shell", (), {"__module__": "google.colab._shell"})
    for shell_class in (type("Derived", (base,), {}), colab):
        fake: Any = SimpleNamespace(get_ipython=shell_class)
        assert entry("anything", modules={"IPython": fake}).kind == "NOTEBOOK"


def test_on_databricks_what_has_no_script_is_a_notebook() -> None:
    databricks = {"DATABRICKS_RUNTIME_VERSION": "16.4"}
    assert entry("", environ=databricks).kind == "NOTEBOOK"
    assert entry("x", environ=databricks, modules=shell("DatabricksShell")).kind == "NOTEBOOK"
    assert entry("PythonShellImpl.py").kind == "NOTEBOOK"
    assert entry("job.py", environ=databricks).kind == "LOCAL"
    assert entry("uvicorn", "m:app", environ=databricks).name == "m:app"


def test_a_terminal_shell_is_no_notebook() -> None:
    modules = shell("TerminalInteractiveShell")
    assert entry(f"{BIN}/ipython", modules=modules) == Entry(None, "UNKNOWN", "/cwd", "no script: ipython")
    assert entry("script.py", modules=modules).name == "script.py"
    idle: Any = SimpleNamespace(get_ipython=lambda: None)
    assert entry("script.py", modules={"IPython": idle}).kind == "LOCAL"


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), max_size=4))
def test_any_command_line_is_taken(argv: list[str]) -> None:
    found = entry(*argv)
    assert found.name is None or found.name


def test_a_process_is_this_one_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process()
    assert process.argv == tuple(sys.argv)
    assert process.cwd == os.getcwd()
    assert process.main_module is sys.modules["__main__"]


def test_a_process_without_argv_or_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.delattr(sys, "argv")
    process = Process()
    assert (process.argv, process.cwd) == ((), "")
