from __future__ import annotations

import pytest

from wherefrom import keys
from wherefrom.source.build import BUILD_VARIABLES, BuildVariables, build_facts, build_rows

SHA = "0123456789abcdef0123456789abcdef01234567"


def values(environ: dict[str, str], commit: str | None = None) -> tuple[str | None, str | None, str | None]:
    facts = build_facts(environ, commit)
    found = {key: fact.value for key, fact in facts.items()}
    return found.get(keys.GIT_COMMIT), found.get(keys.GIT_BRANCH), found.get(keys.GIT_REPO_URL)


@pytest.mark.parametrize(
    ("environ", "branch", "url"),
    [
        (
            {"GIT_COMMIT": SHA, "GIT_BRANCH": "origin/main", "GIT_URL": "git@h:o/r.git"},
            "main",
            "git@h:o/r.git",
        ),
        ({"SOURCE_VERSION": SHA}, None, None),
        (
            {
                "GITHUB_SHA": SHA,
                "GITHUB_REF_NAME": "main",
                "GITHUB_SERVER_URL": "https://github.com",
                "GITHUB_REPOSITORY": "o/r",
            },
            "main",
            "https://github.com/o/r",
        ),
        ({"GITHUB_SHA": SHA, "GITHUB_REF_NAME": "7/merge", "GITHUB_HEAD_REF": "feature"}, "feature", None),
        ({"GITHUB_SHA": SHA, "GITHUB_REF_NAME": "v1", "GITHUB_REF_TYPE": "tag"}, None, None),
        (
            {
                "CI_COMMIT_SHA": SHA,
                "CI_COMMIT_REF_NAME": "main",
                "CI_REPOSITORY_URL": "https://gitlab-ci-token:s3cret@h/o/r.git",
            },
            "main",
            "https://h/o/r.git",
        ),
        ({"CI_COMMIT_SHA": SHA, "CI_COMMIT_REF_NAME": "v1", "CI_COMMIT_TAG": "v1"}, None, None),
        ({"BUILD_SOURCEVERSION": SHA, "BUILD_SOURCEBRANCH": "refs/heads/a/b"}, "a/b", None),
        ({"BUILD_SOURCEVERSION": SHA, "BUILD_SOURCEBRANCH": "refs/tags/v1"}, None, None),
    ],
)
def test_services(environ: dict[str, str], branch: str | None, url: str | None) -> None:
    assert values(environ) == (SHA, branch, url)


@pytest.mark.parametrize("row", BUILD_VARIABLES, ids=lambda row: row.service)
def test_each_variable_of_the_table_is_read(row: BuildVariables) -> None:
    for commit in row.commit:
        for branch in row.branch or ("",):
            assert values({commit: SHA, branch: "main"}) == (SHA, "main" if branch else None, None)


def test_what_was_set_by_hand_comes_before_what_a_service_sets() -> None:
    other = "f" * 40
    environ = {"GITHUB_SHA": other, "GITHUB_REF_NAME": "main", "GIT_COMMIT": SHA}
    assert values(environ) == (SHA, None, None)


def test_services_that_state_the_same_commit_add_to_each_other() -> None:
    environ = {"GITHUB_SHA": SHA, "GITHUB_REF_NAME": "main", "GIT_COMMIT": SHA[:8]}
    assert values(environ) == (SHA[:8], "main", None)


def test_a_commit_known_from_git_is_only_completed_by_its_own_build() -> None:
    environ = {"GITHUB_SHA": SHA, "GITHUB_REF_NAME": "main"}
    assert values(environ, SHA)[1] == "main"
    assert values(environ, "f" * 40) == (None, None, None)
    assert values({"GIT_BRANCH": "main"}, "f" * 40) == (None, None, None)


@pytest.mark.parametrize("value", ["", " ", "unknown", "None", "HEAD", "$GIT_COMMIT", "${{ github.sha }}"])
def test_a_stand_in_is_no_commit(value: str) -> None:
    assert values({"GIT_COMMIT": value}) == (None, None, None)
    assert values({"GIT_COMMIT": value, "GIT_SHA": SHA})[0] == SHA


def test_without_any_commit_only_names_that_say_git_count() -> None:
    assert values({"GIT_BRANCH": "main", "BRANCH": "other"}) == (None, "main", None)
    assert values({"BRANCH": "other"}) == (None, None, None)


def test_origin_names_the_variables() -> None:
    environ = {"GITHUB_SHA": SHA, "GITHUB_SERVER_URL": "https://h", "GITHUB_REPOSITORY": "o/r"}
    facts = build_facts(environ)
    assert facts[keys.GIT_COMMIT].origin == "env GITHUB_SHA"
    assert facts[keys.GIT_REPO_URL].origin == "env GITHUB_SERVER_URL, GITHUB_REPOSITORY"


def test_the_documentation_has_a_row_a_service() -> None:
    rows = build_rows()
    assert len(rows) == len(BUILD_VARIABLES) == len({row[0] for row in rows})
    assert ("Netlify", "COMMIT_REF", "BRANCH", "{REPOSITORY_URL}") in rows
    commits = [name for row in BUILD_VARIABLES for name in row.commit]
    assert len(commits) == len(set(commits))
