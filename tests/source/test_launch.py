"""Real processes: what each launcher leaves in ``sys.argv`` and ``__main__`` of the one that serves."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from wherefrom import keys
from wherefrom.source import detect
from wherefrom.source.entrypoint import process_of

from .conftest import Git

APP = """
import json, os, sys
from wherefrom.source import detect

def report():
    pairs = {fact.key: fact.value for fact in detect().facts}
    file = os.path.join(os.environ["REPORT_DIR"], f"{os.getpid()}")
    with open(file + ".part", "w") as out:
        json.dump(pairs, out)
    os.rename(file + ".part", file + ".json")

async def app(scope, receive, send):
    assert scope["type"] == "lifespan", scope
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            report()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
"""
SCRIPT = "import app\n\napp.report()\n"
SPAWN = """
import multiprocessing, app
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=app.report)
    child.start()
    child.join()
"""
SCRIPTS = Path(sys.executable).parent
WORKER = "uvicorn.workers.UvicornWorker" if importlib.util.find_spec("uvicorn.workers") else "asgi"


@pytest.fixture
def tree(repo: Path, git: Git) -> Path:
    """The repository with an app in several shapes, all of it committed."""
    (repo / "app.py").write_text(APP)
    (repo / "script.py").write_text(SCRIPT)
    (repo / "test_it.py").write_text("import app\ndef test_it(): app.report()\n")
    (repo / "pkg").mkdir()
    (repo / "pkg" / "__init__.py").touch()
    for name in ("__main__", "mod"):
        (repo / "pkg" / f"{name}.py").write_text(SPAWN)
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "two")
    return repo


@contextmanager
def running(command: list[str], cwd: Path, reports: Path) -> Iterator[subprocess.Popen[bytes]]:
    # A server that is ended in the middle of writing its coverage would leave a broken file.
    ours = ("APP_ENVIRONMENT", "GIT_", "GUNICORN_", "UVICORN_", "COV")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {"REPORT_DIR": str(reports), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            # Its workers too: while one is left, the output has no end.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def launch(command: str, cwd: Path, tmp_path: Path, count: int = 1) -> list[dict[str, Any]]:
    """Run ``command`` until ``count`` processes have reported, then end it."""
    reports = tmp_path / "reports"
    reports.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [word.format(python=sys.executable, port=port) for word in command.split()]
    if (SCRIPTS / words[0]).exists():
        words[0] = str(SCRIPTS / words[0])
    with running(words, cwd, reports) as process:
        deadline = time.monotonic() + 20
        while len(found := list(reports.glob("*.json"))) < count and time.monotonic() < deadline:
            if process.poll() not in (None, 0):
                output = process.communicate()[0].decode()
                pytest.fail(f"{command} ended with {process.returncode}: {output}")
            time.sleep(0.03)
        assert len(found) >= count, f"{command} reported {len(found)} times"
        return [json.loads(file.read_text()) for file in found]


@pytest.mark.parametrize(
    ("command", "name", "kind"),
    [
        ("{python} script.py", "script.py", "LOCAL"),
        ("{python} ./script.py", "./script.py", "LOCAL"),
        ("{python} -m pkg", "pkg", "LOCAL"),
        ("{python} -m pkg.mod", "pkg.mod", "LOCAL"),
        ("{python} -c __import__('app').report()", None, "UNKNOWN"),
        ("pytest -q -p no:cacheprovider test_it.py", "pytest", "LOCAL"),
        ("{python} -m pytest -q -p no:cacheprovider test_it.py", "pytest", "LOCAL"),
        ("uvicorn --port {port} app:app", "app:app", "LOCAL"),
        ("uvicorn app:app --port {port} --reload", "app:app", "LOCAL"),
        ("hypercorn -b 127.0.0.1:{port} app:app", "app:app", "LOCAL"),
        ("granian --interface asgi --port {port} app:app", "app:app", "LOCAL"),
        (f"gunicorn -k {WORKER} -b 127.0.0.1:{{port}} app:app", "app:app", "LOCAL"),
    ],
)
def test_launchers(tree: Path, git: Git, tmp_path: Path, command: str, name: str | None, kind: str) -> None:
    (found,) = launch(command, tree, tmp_path)
    assert (found[keys.SOURCE_NAME], found[keys.SOURCE_TYPE]) == (name, kind)
    assert found[keys.GIT_COMMIT] == git(tree, "rev-parse", "HEAD")
    assert found[keys.GIT_BRANCH] == "main"
    assert found[keys.GIT_DIRTY] is None


@pytest.mark.parametrize(
    "command",
    [
        "uvicorn app:app --port {port} --workers 2",
        "{python} -m uvicorn --workers 2 --port {port} app:app",
        "{python} -m hypercorn app:app -w 2 -b 127.0.0.1:{port}",
        "granian --interface asgi --workers 2 --port {port} app:app",
        f"{{python}} -m gunicorn -w 2 -k {WORKER} -b 127.0.0.1:{{port}} app:app",
    ],
)
def test_workers_are_named_alike(tree: Path, tmp_path: Path, command: str) -> None:
    first, second = launch(command, tree, tmp_path, count=2)[:2]
    assert first == second
    assert first[keys.SOURCE_NAME] == "app:app"
    assert first[keys.GIT_COMMIT]


def test_the_tree_is_the_apps_and_not_the_current_directory(tree: Path, git: Git, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    git(elsewhere, "init", "-q")
    (found,) = launch(f"uvicorn --app-dir {tree} --port {{port}} app:app", elsewhere, tmp_path)
    assert found[keys.SOURCE_NAME] == "app:app"
    assert found[keys.GIT_COMMIT] == git(tree, "rev-parse", "HEAD")


def test_a_simulated_kernel_is_a_notebook(tree: Path, tmp_path: Path) -> None:
    (tree / "ipykernel_launcher.py").write_text(
        "import app\n__vsc_ipynb_file__ = '/home/u/my.ipynb'\napp.report()\n"
    )
    (found,) = launch("{python} ipykernel_launcher.py", tree, tmp_path)
    assert (found[keys.SOURCE_NAME], found[keys.SOURCE_TYPE]) == ("my.ipynb", "NOTEBOOK")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("uvicorn main:app", "main:app"),
        ("python app.py --port 80", "app.py"),
        ("/usr/bin/python3.12 -W error -X dev -O app.py", "app.py"),
        ("python -m uvicorn main:app", "main:app"),
        ("python -m main", "main"),
        ("python -m shop", "shop"),
        ("python -m shop.web", "shop.web"),
        ("python -m nowhere", "nowhere"),
        ("python", None),
        ("python -c pass", None),
        ("no-such-program", "no-such-program"),
        ("", None),
    ],
)
def test_the_process_that_a_command_would_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("main.py", "app.py", "shop/__init__.py", "shop/__main__.py", "shop/web.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    found = detect(process_of(command.split(), {}))
    assert found.source.get(keys.SOURCE_NAME) == name


def test_an_installed_program_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "serve-shop"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert process_of(["serve-shop", "-x"], {}).argv == (str(program), "-x")
