"""The quick start of the README works as it stands, pasted into bash and zsh."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from .documents import README, ROOT, blocks, environment, run

QUICK_START, NEXT = blocks(README, "sh")
TRACE = blocks(README, "text")[0].code
REPOSITORY = "https://github.com/wherefrom/wherefrom"
SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
DONE = "the block is done"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_quick_start_can_be_pasted(shell: str, tmp_path: Path) -> None:
    """Pasted as one block into a fresh interactive shell, it ends with the trace that the README shows."""
    for program in (shell, "curl", "git"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("not a git work tree: there is nothing to clone")
    # Another server may use port 8000 of this machine. Everything else is pasted as it is.
    port = free_port()
    block = QUICK_START.code.replace("8000", str(port)).replace(
        "uvicorn app:app", f"uvicorn app:app --port {port}"
    )
    shown = paste(SHELLS[shell], block, tmp_path)
    assert (tmp_path / "wherefrom" / ".venv" / "bin" / "wherefrom").exists(), shown
    assert "x-request-id: req-1" in shown
    assert "hello ada" in shown
    for word in re.findall(r"[\w.{}/-]{3,}", without_figures(TRACE)):
        assert word in shown, f"{word!r} is in the README and not in:\n{shown}"
    run([shell, "-ec", f"unset WHEREFROM_STORE\n{NEXT.code}"], tmp_path / "wherefrom")


def paste(shell: list[str], block: str, folder: Path) -> str:
    """What a terminal shows when the block is pasted into this shell; the server is stopped afterwards."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(shell[0], shell, offline(folder))
    shown = ""
    try:
        # Line editors start to read once their prompt is there.
        shown += read_until(terminal, r"[$%#] ?\S*$", 30)
        os.write(terminal, block.encode() + f"echo '{DONE[:8]}''{DONE[8:]}'\n".encode())
        shown += read_until(terminal, DONE, 300)
    finally:
        os.write(terminal, b"\nkill %1\nexit\nexit\n")
        stop(process, terminal)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown)


def offline(folder: Path) -> dict[str, str]:
    """Variables with which the block needs no network.

    git clones this work tree in the place of the repository. pip builds and installs the clone into the new
    environment, and finds what it depends on in the environment of the tests. The commands of pip and uvicorn
    are those of the tests as well: to install pip takes longer than all else.
    """
    programs = folder / "programs"
    programs.mkdir()
    for name, command in {
        "python3": f'{sys.executable} "$@" --without-pip',
        "pip": 'python -m pip "$@"',
        "uvicorn": 'python -m uvicorn "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (programs / name).chmod(0o755)
    variables = environment(folder)
    del variables["WHEREFROM_STORE"]
    own = str(Path(sys.executable).parent)
    others = [entry for entry in variables["PATH"].split(os.pathsep) if entry != own]
    return variables | {
        "HOME": str(folder),
        "PATH": os.pathsep.join([str(programs), *others]),
        "TERM": "xterm",
        "PS1": "$ ",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "false",  # pip reads it as the value of build_isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }


def read_until(terminal: int, pattern: str, timeout_s: float) -> str:
    shown, deadline = "", time.monotonic() + timeout_s
    while not re.search(pattern, shown):
        left = deadline - time.monotonic()
        assert left > 0, f"{pattern!r} did not appear within {timeout_s} s:\n{shown}"
        if select.select([terminal], [], [], left)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # the shell has ended
                raise AssertionError(shown) from None
    return shown


def stop(process: int, terminal: int) -> None:
    deadline = time.monotonic() + 20
    while os.waitpid(process, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                os.read(terminal, 65536)
            except OSError:
                time.sleep(0.05)
    os.close(terminal)


def without_figures(text: str) -> str:
    """The text without what differs from run to run: ids, times, durations, the user, branch and commit."""
    lines = [line for line in text.splitlines() if not re.search(r"OS user|branch|address", line)]
    return re.sub(
        r"tr-[0-9a-f]+…?|\b[0-9a-f]{8,}\b|[\d.:-]*\d[\d.:-]*( ?[mµ]?s\b)?|127\.0\.0\.1\S*|curl/\S+",
        " ",
        "\n".join(lines),
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
