"""A real git repository to look at."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ENVIRON = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.invalid",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.invalid",
}

Git = Callable[..., str]


@pytest.fixture
def git() -> Git:
    def run(directory: Path, *arguments: str) -> str:
        command = ["git", "-c", "protocol.file.allow=always", "-C", str(directory), *arguments]
        return subprocess.run(command, env=ENVIRON, check=True, capture_output=True, text=True).stdout.strip()

    return run


@pytest.fixture
def repo(tmp_path: Path, git: Git) -> Path:
    """One commit on ``main``: ``app.py`` and a ``.gitignore`` that ignores ``ign/``."""
    path = (tmp_path / "repo").resolve()
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / "app.py").write_text("x = 1\n")
    (path / ".gitignore").write_text("ign/\n")
    git(path, "add", ".")
    git(path, "commit", "-qm", "one")
    return path
