"""The gate as a command: its exit codes, its reports, and a pipeline that acts on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from xml.etree import ElementTree as ET

import pytest
import yaml

from wherefrom import Trace, TraceState, keys
from wherefrom.stores import open_store

from .conftest import HOSTILE, Result, is_harmless, make_trace, run

CI = Path(__file__).parents[2] / "examples" / "ci"
PIPELINE = """
set -u
deploy() {
    wherefrom gate --baseline 1.0.0 --candidate "$1" --max-p95-increase 50% --format markdown > "$1.md"
    case $? in
        0) echo "$1 promoted" ;;
        1) echo "$1 rolled back" ;;
        3) echo "$1 waits" ;;
        *) echo "$1 was not judged"; exit 1 ;;
    esac
}
deploy 1.1.0
deploy 1.2.0
deploy 1.3.0
WHEREFROM_STORE=sqlite:///missing.db
export WHEREFROM_STORE
deploy 1.1.0
"""


def release(version: str, count: int, failing: float, first: int) -> list[Trace]:
    """A release on four processes over ten minutes, of which this share of traces fails."""
    random = Random(version)
    return [
        make_trace(
            first + number,
            trace_id=f"tr-{first + number:032x}",
            request_time=1_790_000_000_000 + number * 600_000 // count,
            execution_duration=round(1000 * random.lognormvariate(0, 0.2)),
            state=TraceState.ERROR if random.random() < failing else TraceState.OK,
            metadata={keys.APP_VERSION: version, keys.INSTANCE_ID: f"{version}/{number % 4}"},
            spans=[],
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.1.0 is as 1.0.0, 1.2.0 fails more often, of 1.3.0 there is little."""
    path = tmp_path_factory.mktemp("gate") / "wherefrom.db"
    store = open_store(f"sqlite:///{path}")
    store.write(
        [
            *release("1.0.0", 3000, 0.001, 0),
            *release("1.1.0", 3000, 0.001, 10_000),
            *release("1.2.0", 1000, 0.1, 20_000),
            *release("1.3.0", 60, 0.02, 30_000),
        ]
    )
    store.close()
    return path


@pytest.fixture
def judged(database: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("WHEREFROM_STORE", f"sqlite:///{database}")
    return lambda *args: run("gate", "--baseline", "1.0.0", "--max-p95-increase", "50%", *args)


def test_a_pipeline_acts_on_every_exit_code(database: Path, tmp_path: Path) -> None:
    """A bash script, which promotes, rolls back, waits, and stops where the question cannot be asked."""
    done = subprocess.run(
        ["bash", "-c", PIPELINE],
        cwd=tmp_path,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "WHEREFROM_STORE": f"sqlite:///{database}",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == [
        "1.1.0 promoted",
        "1.2.0 rolled back",
        "1.3.0 waits",
        "1.1.0 was not judged",
    ], done.stderr
    assert done.returncode == 1
    assert "there is no store" in done.stderr or "missing.db" in done.stderr
    assert (tmp_path / "1.2.0.md").read_text().startswith("### ❌ 1.2.0 against 1.0.0: fail")
    assert "### ⏳ 1.3.0 against 1.0.0: inconclusive" in (tmp_path / "1.3.0.md").read_text()


def github() -> str:
    workflow = yaml.safe_load((CI / "github-gate.yml").read_text())
    (script,) = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "gate" in step.get("run", "")]
    return str(script)


def gitlab() -> str:
    return str(yaml.safe_load((CI / "gitlab-gate.yml").read_text())["gate"]["script"][1])


@pytest.mark.parametrize(("read", "report"), [(github, "gate.md"), (gitlab, "gate.xml")])
def test_the_example_pipelines_end_as_the_gate_does(
    database: Path, tmp_path: Path, read: Callable[[], str], report: str
) -> None:
    """What they run, as they run it: with ``-e``; the traces here are older than a day."""
    done = subprocess.run(
        ["bash", "-ec", read().replace("--since 24h", "--since 2026-01-01")],
        cwd=tmp_path,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "WHEREFROM_STORE": f"sqlite:///{database}",
            "BASELINE": "1.0.0",
            "CANDIDATE": "1.2.0",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "1.2.0 fails" in done.stdout
    assert (tmp_path / report).stat().st_size
    assert (tmp_path / "gate.svg").stat().st_size
    if read is github:
        assert (tmp_path / "summary.md").read_text() == (tmp_path / report).read_text()


@pytest.mark.parametrize(
    ("file_name", "schema"),
    [("github-gate.yml", "vendor.github-workflows"), ("gitlab-gate.yml", "vendor.gitlab-ci")],
)
def test_the_example_pipelines_are_what_their_servers_take(file_name: str, schema: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(CI / file_name)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def test_the_text_has_each_criterion_and_the_sentence(judged: Callable[..., Result]) -> None:
    found = judged("--candidate", "1.2.0")
    assert found.code == 1
    assert found.lines[0].startswith("✗ fail: errors ")
    assert "points, at least +" in found.lines[0]
    assert found.lines[1].startswith("✓ pass: p95 ")
    assert found.lines[2].startswith("1.2.0 fails: it is worse than 1.0.0 by more than a limit: errors")


def test_files_for_a_pipeline(judged: Callable[..., Result], tmp_path: Path) -> None:
    """The report goes to a file, the text to the job's log, and both values into a picture."""
    files = [tmp_path / "gate.xml", tmp_path / "gate.svg"]
    found = judged(
        "--candidate", "1.2.0", "--format", "junit", "--output", str(files[0]), "--picture", str(files[1])
    )
    assert found.code == 1
    assert "1.2.0 fails" in found.out
    suite = ET.parse(files[0]).getroot().find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["2", "1", "0", "0"]
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["errors", "p95"]
    assert {case.get("classname") for case in cases} == {"app_version 1.2.0 against 1.0.0"}
    failure = cases[0].find("failure")
    assert failure is not None
    assert "limit +1 points" in (failure.get("message") or "")
    drawn = ET.parse(files[1]).getroot()
    assert drawn.tag.endswith("svg")
    assert {"1.0.0", "1.2.0"} <= set(drawn.itertext())


def test_what_is_not_decided_is_skipped(judged: Callable[..., Result]) -> None:
    found = judged("--candidate", "1.3.0", "--format", "junit")
    assert found.code == 3
    suite = ET.fromstring(found.out.encode()).find("testsuite")
    assert suite is not None
    assert suite.get("skipped") == suite.get("tests") == "2"
    nothing = judged("--candidate", "9.9.9", "--format", "junit")
    assert nothing.code == 3
    assert "no trace has app_version '9.9.9'" in nothing.out
    assert "?." not in nothing.out
    filtered = judged("--candidate", "1.2.0", "--where", "metadata.tenat = 'x'")
    assert filtered.code == 3
    assert "no trace has app_version '1.2.0' among those selected." in filtered.out


def test_json_has_every_figure(judged: Callable[..., Result]) -> None:
    found = judged("--candidate", "1.1.0", "--max-p50-increase", "50%", "--format", "json")
    assert found.code == 0
    answer = json.loads(found.out)
    assert answer["verdict"] == "pass"
    assert answer["score"] == 100
    assert [one["measure"] for one in answer["criteria"]] == ["errors", "p95", "p50"]
    assert answer["criteria"][0]["interval"]["high"] < 0.01
    assert answer["traces"] == [3000, 3000]


def test_markdown_holds_what_strangers_sent_as_text(file: Path, write: Callable[..., None]) -> None:
    """No markup, no mention, no row of its own: also where a route is named."""
    name = f"@team | <img src=x> [a](http://b) `c` {HOSTILE}"
    write(*(make_trace(n, metadata={keys.APP_VERSION: v}, name=name) for v, n in ((name, 1), ("1.0.0", 2))))
    found = run("gate", "--baseline", "1.0.0", "--candidate", name, "--format", "markdown")
    assert found.code == 3
    assert is_harmless(found.out)
    text = found.out.replace("<!-- -->", "")
    assert not set("@|<[`\\") & set(text.replace("by `app_version`", ""))
    for form in ("text", "junit", "json"):
        assert is_harmless(run("gate", "--baseline", "1.0.0", "--candidate", name, "--format", form).out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--candidate", "1.0.0"], "baseline and candidate are both '1.0.0'"),
        (
            ["--candidate", "1.1.0", "--max-error-increase", "1%"],
            "such as 1pp, in percentage points, or none",
        ),
        (["--candidate", "1.1.0", "--max-p95-increase", "10"], "such as 10%, relative to the baseline"),
        (["--candidate", "1.1.0", "status ="], "expected"),
        (["--candidate", "1.1.0", "--by", "nothing"], "no trace carries 'nothing'"),
        (["--candidate", "1.1.0", "--store", "sqlite:///nowhere/x.db"], "nowhere"),
        (["--candidate", "1.1.0", "--output", "/"], "is a directory"),
        ([], "--candidate"),
    ],
)
def test_a_question_that_cannot_be_asked_is_no_failure_of_the_release(
    judged: Callable[..., Result], arguments: list[str], message: str
) -> None:
    found = judged(*arguments)
    assert found.code == 2
    assert message in found.err
