"""The project's Markdown files, and the fenced code in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDE = sorted((ROOT / "docs").glob("*.md"))
ALL = sorted(
    [*ROOT.glob("*.md"), *GUIDE, *(ROOT / "benchmarks").glob("*.md"), *(ROOT / ".github").rglob("*.md")]
)

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Fenced code. Tests run ``python`` and ``sh`` blocks; ``py`` and ``shell`` blocks need a server."""

    name: str
    language: str
    code: str

    def __str__(self) -> str:
        return self.name


def blocks(path: Path, *languages: str) -> list[Block]:
    """The blocks of a file in these languages."""
    found = enumerate(_FENCE.findall(path.read_text()), start=1)
    return [Block(f"{path.name} {n}", kind, code) for n, (kind, code) in found if kind in languages]


def environment(folder: Path) -> dict[str, str]:
    """Variables for a command that stores traces in ``folder``: the test's interpreter first on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHEREFROM_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WHEREFROM_STORE": f"sqlite:///{folder}/wherefrom.db",
        "COLUMNS": "100",
    }


def run(command: list[str], folder: Path) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
