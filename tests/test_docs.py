"""The documentation is correct: its code runs, and its commands, links, settings and public modules exist."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from wherefrom.settings import setting_rows

from .cli.conftest import run as run_command
from .documents import ALL, GUIDE, README, ROOT, Block, blocks, environment, run
from .servers.test_framework_matrix import MCP, PARAMETERS, SERVERS

SETTINGS = ROOT / "docs" / "settings.md"
PROSE = "\n".join(path.read_text() for path in ALL)
PYTHON = [block for path in (README, *GUIDE) for block in blocks(path, "python")]
SHELL = [block for path in GUIDE for block in blocks(path, "sh")]
COMMANDS = sorted(
    {
        line.strip().removesuffix(" &")
        for path in (README, *GUIDE)
        for block in blocks(path, "sh", "shell")
        for line in block.code.splitlines()
        if line.startswith("wherefrom ")
    }
    | {
        " ".join(command.split())
        for command in re.findall(r"`(wherefrom [a-z][^`]*)`", PROSE)
        if not command.startswith("wherefrom.")
    }
)
SEED = """
import random
from wherefrom import flush, record_feature_flag, start_span, update_current_trace
for number in range(80):
    with start_span("POST /chat"):
        metadata = {"app_version": f"1.{number % 2}.0", "region": ("eu", "us")[number // 2 % 2]}
        state = "ERROR" if number % 4 == 3 else "OK"
        update_current_trace(metadata=metadata, user="ada", session_id="chat-7", state=state)
        record_feature_flag("new_retriever", number % 3 == 0)
assert flush()
"""

# What most blocks import is imported once, for all of them: that takes ten times as long as what they do.
PROGRAMS = """
import atexit, os, runpy, sys, traceback
import fastapi.testclient, httpx, orjson, sqlalchemy.dialects.sqlite
from wherefrom import TraceClient, TraceMiddleware, flush, set_active_model
for line in sys.stdin:
    folder = line.strip()
    if (child := os.fork()) == 0:
        os.chdir(folder)
        os.environ["WHEREFROM_STORE"] = f"sqlite:///{folder}/wherefrom.db"
        log = os.open("log", os.O_CREAT | os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.argv, sys.path[0] = ["block.py"], folder
        try:
            runpy.run_path("block.py", run_name="__main__")
            atexit._run_exitfuncs()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def settings_table() -> str:
    """The table between the settings markers; ``python -m tests.test_docs`` writes it there."""
    lines = ["| variable | default | takes | meaning |", "|---|---|---|---|"]
    for row in setting_rows():
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.variable}` | {default} | {row.takes} | {row.help} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    marked = re.compile(r"(<!-- settings -->\n).*(<!-- /settings -->)", re.DOTALL)
    return marked.sub(lambda match: match[1] + settings_table() + "\n" + match[2], text)


def anchors(path: Path) -> set[str]:
    """What a link to this file can name: the anchors that GitHub makes of headings, and MyST's targets."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\((.+)\)=$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that holds two versions, two regions, a flag, a session and errors."""
    folder = tmp_path_factory.mktemp("documents")
    run([sys.executable, "-c", SEED], folder)
    return folder


def test_the_settings_table_is_that_of_the_code() -> None:
    """Every setting is documented with its default, what it takes, and its meaning."""
    assert with_table(SETTINGS.read_text()) == SETTINGS.read_text(), "run: python -m tests.test_docs"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process that runs ``block.py`` of each folder that it reads, and answers with the exit code."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAMS],
        env=environment(tmp_path_factory.mktemp("programs")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.communicate(timeout=60)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_python_block_runs(block: Block, programs: subprocess.Popen[str], tmp_path: Path) -> None:
    """Each block is a program of its own."""
    assert programs.stdin is not None
    assert programs.stdout is not None
    (tmp_path / "block.py").write_text(block.code)
    programs.stdin.write(f"{tmp_path}\n")
    programs.stdin.flush()
    assert programs.stdout.readline() == "0\n", (tmp_path / "log").read_text()


# In a shell block: the arguments of each command go to a file.
TOLD = """
wherefrom() { printf '%s\\0' "$@" $'\\n' >> told; }
"""


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_shell_block_runs(block: Block, seeded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command succeeds on a store with some traffic in it, with the arguments that bash gives it.

    In this process: one of its own takes ten times as long to start as what it does.
    """
    told = seeded / "told"
    told.write_text("")
    run(["bash", "-ec", TOLD + block.code], seeded)
    monkeypatch.chdir(seeded)
    monkeypatch.setenv("WHEREFROM_STORE", environment(seeded)["WHEREFROM_STORE"])
    commands = [one.split("\0")[:-1] for one in told.read_text().split("\n\0")[:-1]]
    assert len(commands) == len(re.findall("^wherefrom ", block.code, re.MULTILINE))
    for command in commands:
        done = run_command(*command, width=100)
        assert done.code == 0, done


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_exists(command: str, helps: dict[str, str]) -> None:
    """A command that is named anywhere is in the help of the command line, with its options."""
    name, *words = command.removeprefix("wherefrom ").split()
    options = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--help"]
    for option in options:
        assert option in helps[name], f"wherefrom {name} has no option {option}"
    assert name in helps


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help of each command."""
    import typer.main

    from wherefrom.cli.app import app

    group = typer.main.get_command(app)
    return {
        name: " ".join(
            option
            for each in (command, *getattr(command, "commands", {}).values())
            for parameter in each.params
            for option in parameter.opts
        )
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    """A link inside of the repository names a file that is there, and a heading of it."""
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", path.read_text())
    for link in (first or second for first, second in links):
        if re.match(r"\w+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file) if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def rows(path: Path, marker: str) -> list[list[str]]:
    """The cells of the first table after ``marker``, its head first."""
    table = path.read_text().partition(marker)[2].partition("\n|")[2].partition("\n\n")[0]
    lines = [line for line in f"|{table}".splitlines() if re.match(r"\| ", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_matrix_is_what_is_tested() -> None:
    """Each framework and server of the table is in the test, and each of the test in the table."""
    head, *found = rows(ROOT / "docs" / "integrations.md", "<!-- matrix -->")
    assert head[1:] == [command.split()[0] for command in SERVERS]
    assert [row[0] for row in found] == [*PARAMETERS, *MCP]
    assert all(cell == "✓" for row in found for cell in row[1:])


def test_the_lines_of_frameworks_are_what_is_tested() -> None:
    """README and guide name the same line for each framework, and the apps of the matrix have it."""
    apps = (ROOT / "tests" / "servers" / "frameworks.py").read_text()
    guide = rows(ROOT / "docs" / "integrations.md", "<!-- frameworks -->")[1:]
    names = {row[2].strip("`") for row in guide}
    assert names == {f"GET /items/{parameter}" for parameter in PARAMETERS.values()} | {"tools/call read"}
    for table in (guide, rows(README, "## Frameworks")[1:]):
        lines = " ".join(row[1] for row in table)
        modules = set(re.findall(r"wherefrom\.integrations\.(\w+)", lines))
        assert modules == {*PARAMETERS, *MCP} - {"fastapi", "starlette"}
        for module in modules - {"django", "litestar"}:
            assert f"from wherefrom.integrations.{module} import instrument" in apps
        for line in (
            'MIDDLEWARE=["wherefrom.integrations.django.trace_routes"',
            "after_exception=[record_exception]",
        ):
            assert line in lines
            assert line in apps


def test_every_make_target_and_extra_exists() -> None:
    """What the documents name is in the Makefile and in pyproject.toml."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`|DEMO_ONCE=1 )make ([\w-]+)", PROSE, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    project = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r"(?:wherefrom|'\.)\[(\w+)\]|extras? `(\w+)`", PROSE):
        assert re.search(rf"^{''.join(extra)} = \[", project, re.MULTILINE), extra


def test_every_variable_exists() -> None:
    """A ``WHEREFROM_`` variable that a document names is a setting, or one of the tests' own."""
    known = {row.variable for row in setting_rows()}
    named = set(re.findall(r"\bWHEREFROM_[A-Z_]*[A-Z]\b", PROSE))
    assert {name for name in named if not name.startswith("WHEREFROM_TEST_")} <= known


def test_public_modules_are_listed() -> None:
    """Each module that the README calls public says in ``__all__`` what is, and is in the API reference."""
    section = README.read_text().partition("## Public modules")[2].partition("\n## ")[0]
    modules = set(re.findall(r"`(wherefrom[\w.]*)`", section))
    assert {"wherefrom", "wherefrom.analysis", "wherefrom.web"} <= modules
    reference = (ROOT / "docs" / "api.md").read_text()
    for name in modules:
        module = importlib.import_module(name)
        for public in module.__all__:
            assert hasattr(module, public), f"{name}.{public}"
        assert re.search(rf"automodule:: {re.escape(name)}$", reference, re.MULTILINE), name


def test_workflows_call_make() -> None:
    """CI's steps are the make targets that people run, on every Python version that the package names."""
    makefile = (ROOT / "Makefile").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = re.findall(r"\bmake ([\w-]+)", "\n".join(steps))
    assert {"lint", "coverage", "docs", "demo"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    project = (ROOT / "pyproject.toml").read_text()
    versions = re.findall(r"Python :: (3\.\d+)", project)
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == versions


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]),
    ids=lambda path: path.name,
)
def test_yaml_files_can_be_read(path: Path) -> None:
    """Each YAML file of the repository is a mapping."""
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_former_name_is_in_the_changelog_alone() -> None:
    """The project's name before its first release is left in one place, with the reason for the change."""
    former = "when" + "ce"
    done = subprocess.run(["git", "grep", "-il", former], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a git work tree")
    assert done.stdout.split() == ["CHANGELOG.md"]


if __name__ == "__main__":
    SETTINGS.write_text(with_table(SETTINGS.read_text()))
