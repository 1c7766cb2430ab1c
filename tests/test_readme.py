"""The README is true: its code runs, its commands work, its tables are those of the code."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from wherefrom.settings import setting_rows

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code for language, code in BLOCKS if language == "sh"]
TRACE = next(code for language, code in BLOCKS if language == "text")


def settings_table() -> str:
    """The table between the settings markers; ``python tests/test_readme.py`` writes it there."""
    lines = ["| variable | default | takes | what it does |", "|---|---|---|---|"]
    for row in setting_rows():
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.variable}` | {default} | {row.takes} | {row.help} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    marked = re.compile(r"(<!-- settings -->\n).*(<!-- /settings -->)", re.DOTALL)
    return marked.sub(lambda match: match[1] + settings_table() + "\n" + match[2], text)


def test_the_settings_table_is_that_of_the_code() -> None:
    """Every setting is in the README with its default, what it takes, and what it does."""
    assert with_table(README) == README, "run: python tests/test_readme.py"


@pytest.mark.parametrize("code", PYTHON, ids=[f"block {number}" for number in range(len(PYTHON))])
def test_every_python_block_runs(code: str, tmp_path: Path) -> None:
    """Each block is a program of its own."""
    (tmp_path / "block.py").write_text(code)
    environment = os.environ | {"WHEREFROM_STORE": f"sqlite:///{tmp_path}/wherefrom.db"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "block.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_make_target_and_extra_exists() -> None:
    """What the README and CONTRIBUTING name is there."""
    makefile = (ROOT / "Makefile").read_text()
    text = README + (ROOT / "CONTRIBUTING.md").read_text()
    for target in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    project = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r"wherefrom\[(\w+)\]", README):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_the_quick_start_does_what_it_says(tmp_path: Path) -> None:
    """The app of the README, its curl and its commands, over real uvicorn, give the trace it shows."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    install, start, search, comparison = SHELL
    assert install.startswith("pip install")
    server, curl, show = start.strip().split("\n")
    (tmp_path / "app.py").write_text(PYTHON[0])
    port = free_port()
    with running(server.removesuffix(" &") + f" --port {port}", tmp_path, port):
        answer = shell(curl.replace("8000", str(port)), tmp_path)
        assert "x-request-id: req-1" in answer
        assert "hello ada" in answer
        wait_for_trace(show, tmp_path)
    shown = shell(show, tmp_path)
    for word in re.findall(r"[\w.{}/-]{3,}", without_figures(TRACE)):
        assert word in shown, f"{word!r} is in the README and not in:\n{shown}"
    for command in (search + comparison).strip().split("\n"):
        shell(command, tmp_path)


def without_figures(text: str) -> str:
    """The text without what differs from run to run: ids, times, durations, places and the user."""
    lines = [line for line in text.splitlines() if "mlflow.user" not in line and "address" not in line]
    return re.sub(
        r"tr-[0-9a-f]+…?|\b[0-9a-f]{8,}\b|[\d.:-]*\d[\d.:-]*( ?[mµ]?s\b)?|127\.0\.0\.1\S*|curl/\S+",
        " ",
        "\n".join(lines),
    )


def shell(command: str, folder: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for_trace(show: str, folder: Path) -> None:
    for _ in range(50):
        with suppress(AssertionError):
            shell(show, folder)
            return
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: str, folder: Path, port: int) -> Iterator[None]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(["bash", "-c", f"exec env {command}"], cwd=folder, env=environment)
    try:
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


if __name__ == "__main__":
    (ROOT / "README.md").write_text(with_table(README))
