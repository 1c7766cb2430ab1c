from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wherefrom
from wherefrom import keys
from wherefrom.model import Source
from wherefrom.source import Detected, Fact, Process, detect
from wherefrom.source.facts import clean, encodable

from .conftest import ENVIRON, Git


def detected(
    environ: Mapping[str, str] | None = None, location: Path | None = None, **options: Any
) -> Detected:
    """Detect for ``python app.py`` in ``location``, a directory."""
    directory = location or Path("/nonexistent")
    process = Process(
        argv=[str(directory / "app.py")],
        orig_argv=(),
        environ={"PATH": os.environ["PATH"], **(environ or {})},
        cwd=str(directory),
        main_module=None,
        modules={},
        path=(),
        uid=options.pop("uid", None),
    )
    return detect(process, **options)


def fact_of(found: Detected, key: str) -> Fact:
    return next(fact for fact in found.facts if fact.key == key)


def test_a_bare_environment_gives_the_defaults() -> None:
    found = detected()
    assert dict(found.source) == {
        keys.SOURCE_NAME: "/nonexistent/app.py",
        keys.SOURCE_TYPE: "LOCAL",
        keys.SCHEMA_VERSION: "3",
        keys.ENVIRONMENT: "development",
        keys.APP_VERSION: "development",
        keys.DEPLOYMENT_ID: "unknown",
        keys.REGION: "unknown",
    }
    assert isinstance(found.source, Source)
    assert fact_of(found, keys.REGION) == Fact(keys.REGION, "unknown", "default", "REGION is not set")


def test_each_key_of_the_process_has_one_fact_that_says_where_from_or_why_not() -> None:
    found = detected()
    assert {fact.key for fact in found.facts} == keys.SOURCE_KEYS
    assert len(found.facts) == len(keys.SOURCE_KEYS)
    for fact in found.facts:
        assert fact.origin if fact.value else fact.note
    assert {fact.key: fact.value for fact in found.facts if fact.value} == dict(found.source)


def test_the_environment_is_read() -> None:
    environ = {
        "APP_ENVIRONMENT": " production\n",
        "APP_VERSION": "1.2.3",
        "DEPLOYMENT_ID": "d-1",
        "REGION": "",
        "MLFLOW_ACTIVE_MODEL_ID": "m-1",
        "_MLFLOW_ACTIVE_MODEL_ID": "m-0",
    }
    found = detected(environ)
    assert found.source[keys.ENVIRONMENT] == "production"
    assert found.source[keys.SOURCE_TYPE] == "production"
    assert found.source[keys.APP_VERSION] == "1.2.3"
    assert found.source[keys.DEPLOYMENT_ID] == "d-1"
    assert found.source[keys.REGION] == "unknown"
    assert found.source[keys.MODEL_ID] == "m-1"
    assert fact_of(found, keys.APP_VERSION).origin == "env APP_VERSION"


def test_the_variable_of_older_mlflow_names_the_model_too() -> None:
    assert detected({"_MLFLOW_ACTIVE_MODEL_ID": "m-0"}).source[keys.MODEL_ID] == "m-0"


def test_the_map_adds_and_removes() -> None:
    environ = {"POD_NAME": "pod-1", "REGION": "eu"}
    found = detected(environ, env_metadata={"POD_NAME": "pod", "NODE": "node", "REGION": None, "OTHER": None})
    assert found.source["pod"] == "pod-1"
    assert "node" not in found.source
    assert keys.REGION not in found.source
    assert fact_of(found, "node").note == "NODE is not set"
    assert fact_of(found, keys.REGION).note == "REGION is removed by env_metadata"


def test_another_variable_can_give_a_default_key() -> None:
    more: dict[str, str | None] = {"REGION": None, "AWS_REGION": "region"}
    assert detected({"AWS_REGION": "eu", "REGION": "x"}, env_metadata=more).source["region"] == "eu"
    assert detected({}, env_metadata=more).source["region"] == "unknown"
    both = {"REGION": "eu"}
    assert detected(both, env_metadata={"AWS_REGION": "region"}).source["region"] == "eu"


def test_the_environment_wins_over_what_was_detected() -> None:
    name = {"ENTRY": keys.SOURCE_NAME, "COMMIT": keys.GIT_COMMIT}
    found = detected({"ENTRY": "mine"}, env_metadata=name)
    assert found.source[keys.SOURCE_NAME] == "mine"
    assert "was not found" in fact_of(found, keys.GIT_COMMIT).note
    assert detected({}, env_metadata=name).source[keys.SOURCE_NAME] == "/nonexistent/app.py"


def test_git_of_the_entry_point(repo: Path, git: Git) -> None:
    git(repo, "remote", "add", "origin", "https://user:s3cr3t@example.invalid/r.git")
    (repo / "app.py").write_text("x = 2\n")
    found = detected({"GIT_COMMIT": "f" * 40, "GIT_BRANCH": "other", **ENVIRON}, repo)
    head = git(repo, "rev-parse", "HEAD")
    assert found.source[keys.GIT_COMMIT] == head
    assert found.source[keys.GIT_BRANCH] == "main"
    assert found.source[keys.GIT_REPO_URL] == "https://example.invalid/r.git"
    assert found.source[keys.GIT_DIRTY] == "true"
    assert "s3cr3t" not in repr(found)


def test_a_detached_head_takes_the_branch_of_its_own_build(repo: Path, git: Git) -> None:
    git(repo, "checkout", "-q", "--detach")
    head = git(repo, "rev-parse", "HEAD")
    found = detected({"GITHUB_SHA": head, "GITHUB_REF_NAME": "main"}, repo)
    assert fact_of(found, keys.GIT_BRANCH) == Fact(keys.GIT_BRANCH, "main", "env GITHUB_REF_NAME")
    assert keys.GIT_BRANCH not in detected({"GITHUB_SHA": "f" * 40, "GITHUB_REF_NAME": "x"}, repo).source


def test_build_variables_stand_in_for_git(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    found = detected({"GITHUB_SHA": "f" * 40})
    assert fact_of(found, keys.GIT_COMMIT) == Fact(keys.GIT_COMMIT, "f" * 40, "env GITHUB_SHA")
    note = fact_of(detected(location=tmp_path), keys.GIT_COMMIT).note
    assert note.startswith(f"no .git above {tmp_path}/app.py, and none of GIT_COMMIT, GIT_SHA")


@pytest.mark.parametrize(
    ("environ", "user"),
    [
        ({"USER": "u1"}, "u1"),
        ({"USER": "u1", "LOGNAME": "l1"}, "l1"),
        ({"USERNAME": "w1", "USER": " "}, "w1"),
        ({}, "uid:3999999999"),
    ],
)
def test_the_os_user(environ: dict[str, str], user: str) -> None:
    assert detected(environ, uid=3_999_999_999).source[keys.OS_USER] == user


def test_the_os_user_of_the_passwd_entry_or_none() -> None:
    assert detected(uid=0).source[keys.OS_USER] == "root"
    assert detected(uid=2**70).source[keys.OS_USER] == f"uid:{2**70}"
    assert keys.OS_USER not in detected(uid=None).source


def test_values_are_cut() -> None:
    found = detected(
        {"APP_VERSION": "v" * 20, "POD": "p" * 10}, max_metadata_length=10, env_metadata={"POD": "k" * 300}
    )
    assert found.source[keys.APP_VERSION] == "v" * 7 + "..."
    assert found.source["k" * 247 + "..."] == "p" * 10


@pytest.mark.parametrize(
    ("length", "expected"), [(6, "abcdef"), (5, "ab..."), (3, "..."), (2, ".."), (0, "")]
)
def test_a_text_is_never_longer_than_asked(length: int, expected: str) -> None:
    assert clean(" abcdef ", length) == expected


def test_undecodable_bytes_can_be_stored() -> None:
    found = detected(
        {"APP_VERSION": "caf\udce9", "POD\udce9": "\ud800"}, env_metadata={"POD\udce9": "po\udce9d"}
    )
    assert found.source[keys.APP_VERSION] == r"caf\udce9"
    assert found.source[r"po\udce9d"] == r"\ud800"
    orjson.dumps(dict(found.source))


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "Cs", "Cc", "Zs"])))
def test_any_text_becomes_encodable(text: str) -> None:
    encodable(text).encode()


names = st.sampled_from(
    ["APP_VERSION", "REGION", "GIT_COMMIT", "GIT_URL", "USER", "IPYNB_FILE", "UVICORN_APP"]
)


@settings(deadline=None)
@given(
    st.dictionaries(names, st.text(max_size=30)),
    st.dictionaries(st.text(max_size=5) | names, st.none() | st.text(max_size=5)),
)
def test_any_environment_is_taken(environ: dict[str, str], env_metadata: dict[str, str | None]) -> None:
    source = detected(environ, env_metadata=env_metadata).source
    assert all(source.values())
    assert all(source)


def test_this_process_is_asked_about_git_once(repo: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo)
    monkeypatch.setattr(sys, "argv", [str(repo / "app.py")])
    monkeypatch.setitem(sys.modules, "__main__", type(sys)("__main__"))
    first = detect().source[keys.GIT_COMMIT]
    git(repo, "commit", "-q", "--allow-empty", "-m", "two")
    monkeypatch.setenv("APP_VERSION", "2")
    again = detect().source
    assert again[keys.GIT_COMMIT] == first
    assert again[keys.APP_VERSION] == "2"


def test_the_import_is_light() -> None:
    """``wherefrom.source`` by itself: an empty package stands in for ``wherefrom``, which imports more."""
    code = f"""if True:
        import sys, types
        sys.modules["wherefrom"] = types.ModuleType("wherefrom")
        sys.modules["wherefrom"].__path__ = {list(wherefrom.__path__)!r}
        old = set(sys.modules)
        import wherefrom.source
        print(*set(sys.modules) - old)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "wherefrom.source.detect" in loaded
    assert not loaded & {"subprocess", "tomllib", "shlex", "sqlalchemy", "starlette", "git"}


def test_without_a_script_the_name_is_absent_and_the_directory_is_looked_at(repo: Path, git: Git) -> None:
    process = Process(argv=["-c"], environ=ENVIRON, cwd=str(repo), main_module=None, modules={}, path=())
    found = detect(process)
    assert fact_of(found, keys.SOURCE_NAME) == Fact(keys.SOURCE_NAME, None, note="no script: python -c")
    assert found.source[keys.SOURCE_TYPE] == "UNKNOWN"
    assert found.source[keys.GIT_COMMIT] == git(repo, "rev-parse", "HEAD")
