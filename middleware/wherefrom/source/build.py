"""Commit, branch and repository from build-time variables, for images without ``.git``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .. import keys
from .facts import Fact
from .repository import without_credentials

_PLACEHOLDERS: Final = frozenset({"", "unknown", "none", "null", "undefined", "n/a", "na", "head"})
_SHORTEST_COMMIT: Final = 7  # git's default abbreviation


@dataclass(frozen=True, slots=True)
class BuildVariables:
    """The variables of one CI or hosting service; the first one that is set is used.

    ``url`` holds templates such as ``{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}``, which are used if all their
    variables are set. ``tag`` is ``NAME`` or ``NAME=value``: if it matches, a tag was built and there is no
    branch.
    """

    service: str
    commit: tuple[str, ...]
    branch: tuple[str, ...] = ()
    url: tuple[str, ...] = ()
    tag: str = ""

    def read(self, environ: Mapping[str, str]) -> dict[str, Fact]:
        """Return the facts in this service's variables."""
        found = (
            _first(keys.GIT_COMMIT, self.commit, environ),
            None if self._is_tag(environ) else _first(keys.GIT_BRANCH, self.branch, environ),
            _first_url(self.url, environ),
        )
        return {fact.key: fact for fact in found if fact is not None}

    def _is_tag(self, environ: Mapping[str, str]) -> bool:
        name, has_value, value = self.tag.partition("=")
        set_to = environ.get(name, "")
        return set_to == value if has_value else bool(set_to)


_Row = BuildVariables

BUILD_VARIABLES: Final = (
    _Row(
        "any build, Jenkins",
        ("GIT_COMMIT", "GIT_SHA", "GIT_COMMIT_SHA", "GIT_REV"),
        ("GIT_LOCAL_BRANCH", "GIT_BRANCH"),
        ("{GIT_URL}", "{GIT_REPO_URL}", "{GIT_REPOSITORY_URL}"),
    ),
    _Row("Docker Hub, Coolify", ("SOURCE_COMMIT",), ("SOURCE_BRANCH", "COOLIFY_BRANCH")),
    _Row("Google Cloud Build", ("COMMIT_SHA",), ("BRANCH_NAME",), tag="TAG_NAME"),
    _Row(
        "GitHub Actions, Gitea, Forgejo",
        ("GITHUB_SHA",),
        ("GITHUB_HEAD_REF", "GITHUB_REF_NAME"),
        ("{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}",),
        tag="GITHUB_REF_TYPE=tag",
    ),
    _Row(
        "GitLab CI, Woodpecker",
        ("CI_COMMIT_SHA",),
        ("CI_COMMIT_BRANCH", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "CI_COMMIT_REF_NAME"),
        ("{CI_PROJECT_URL}", "{CI_REPOSITORY_URL}", "{CI_REPO_URL}"),
        tag="CI_COMMIT_TAG",
    ),
    _Row("CircleCI", ("CIRCLE_SHA1",), ("CIRCLE_BRANCH",), ("{CIRCLE_REPOSITORY_URL}",)),
    _Row("Buildkite", ("BUILDKITE_COMMIT",), ("BUILDKITE_BRANCH",), ("{BUILDKITE_REPO}",), "BUILDKITE_TAG"),
    _Row(
        "Bitbucket Pipelines", ("BITBUCKET_COMMIT",), ("BITBUCKET_BRANCH",), ("{BITBUCKET_GIT_HTTP_ORIGIN}",)
    ),
    _Row(
        "Travis CI",
        ("TRAVIS_COMMIT",),
        ("TRAVIS_PULL_REQUEST_BRANCH", "TRAVIS_BRANCH"),
        ("https://github.com/{TRAVIS_REPO_SLUG}",),
        tag="TRAVIS_TAG",
    ),
    _Row(
        "Drone",
        ("DRONE_COMMIT_SHA", "DRONE_COMMIT"),
        ("DRONE_SOURCE_BRANCH", "DRONE_BRANCH"),
        ("{DRONE_GIT_HTTP_URL}", "{DRONE_REPO_LINK}"),
        tag="DRONE_TAG",
    ),
    _Row(
        "AppVeyor",
        ("APPVEYOR_REPO_COMMIT",),
        ("APPVEYOR_PULL_REQUEST_HEAD_REPO_BRANCH", "APPVEYOR_REPO_BRANCH"),
        tag="APPVEYOR_REPO_TAG=true",
    ),
    _Row(
        "Azure Pipelines",
        ("BUILD_SOURCEVERSION",),
        ("BUILD_SOURCEBRANCH", "BUILD_SOURCEBRANCHNAME"),
        ("{BUILD_REPOSITORY_URI}",),
    ),
    _Row(
        "AWS CodeBuild",
        ("CODEBUILD_RESOLVED_SOURCE_VERSION",),
        ("CODEBUILD_WEBHOOK_HEAD_REF",),
        ("{CODEBUILD_SOURCE_REPO_URL}",),
    ),
    _Row("AWS Amplify", ("AWS_COMMIT_ID",), ("AWS_BRANCH",), ("{AWS_CLONE_URL}",)),
    _Row(
        "Semaphore",
        ("SEMAPHORE_GIT_SHA",),
        ("SEMAPHORE_GIT_WORKING_BRANCH", "SEMAPHORE_GIT_BRANCH"),
        ("{SEMAPHORE_GIT_URL}",),
    ),
    _Row("TeamCity", ("BUILD_VCS_NUMBER",)),
    _Row(
        "Bamboo",
        ("bamboo_planRepository_revision",),
        ("bamboo_planRepository_branchName",),
        ("{bamboo_planRepository_repositoryUrl}",),
    ),
    _Row("Codefresh", ("CF_REVISION",), ("CF_BRANCH",)),
    _Row("Cirrus CI", ("CIRRUS_CHANGE_IN_REPO",), ("CIRRUS_BRANCH",), ("{CIRRUS_REPO_CLONE_URL}",)),
    _Row("Bitrise", ("BITRISE_GIT_COMMIT", "GIT_CLONE_COMMIT_HASH"), ("BITRISE_GIT_BRANCH",)),
    _Row("Datadog", ("DD_GIT_COMMIT_SHA",), ("DD_GIT_BRANCH",), ("{DD_GIT_REPOSITORY_URL}",)),
    _Row(
        "Vercel",
        ("VERCEL_GIT_COMMIT_SHA",),
        ("VERCEL_GIT_COMMIT_REF",),
        ("https://{VERCEL_GIT_PROVIDER}.com/{VERCEL_GIT_REPO_OWNER}/{VERCEL_GIT_REPO_SLUG}",),
    ),
    _Row("Netlify", ("COMMIT_REF",), ("BRANCH",), ("{REPOSITORY_URL}",)),
    _Row("Render", ("RENDER_GIT_COMMIT",), ("RENDER_GIT_BRANCH",)),
    _Row(
        "Railway",
        ("RAILWAY_GIT_COMMIT_SHA",),
        ("RAILWAY_GIT_BRANCH",),
        ("https://github.com/{RAILWAY_GIT_REPO_OWNER}/{RAILWAY_GIT_REPO_NAME}",),
    ),
    _Row("Heroku", ("HEROKU_BUILD_COMMIT", "HEROKU_SLUG_COMMIT")),
    _Row("Heroku CI", ("HEROKU_TEST_RUN_COMMIT_VERSION",), ("HEROKU_TEST_RUN_BRANCH",)),
    _Row("Heroku build, Scalingo", ("SOURCE_VERSION",)),
    _Row("Cloudflare Pages", ("CF_PAGES_COMMIT_SHA",), ("CF_PAGES_BRANCH",)),
    _Row("Cloudflare Workers Builds", ("WORKERS_CI_COMMIT_SHA",), ("WORKERS_CI_BRANCH",)),
    _Row("Koyeb", ("KOYEB_GIT_SHA",), ("KOYEB_GIT_BRANCH",), ("https://{KOYEB_GIT_REPOSITORY}",)),
    _Row(
        "Zeabur",
        ("ZEABUR_GIT_COMMIT_SHA",),
        ("ZEABUR_GIT_BRANCH",),
        ("https://github.com/{ZEABUR_GIT_REPO_OWNER}/{ZEABUR_GIT_REPO_NAME}",),
    ),
    _Row(
        "OpenShift",
        ("OPENSHIFT_BUILD_COMMIT",),
        ("OPENSHIFT_BUILD_REFERENCE",),
        ("{OPENSHIFT_BUILD_SOURCE}",),
    ),
    _Row("DigitalOcean App Platform", ("COMMIT_HASH",)),
    _Row("CapRover", ("CAPROVER_GIT_COMMIT_SHA",)),
    _Row("Clever Cloud", ("CC_COMMIT_ID",)),
)
"""Known services, in order of precedence: variables that users set by hand come first."""


def build_facts(environ: Mapping[str, str], commit: str | None = None) -> dict[str, Fact]:
    """Return the facts in build-time variables, by key; a key that no variable has is missing.

    ``commit`` is the commit that is known already. Facts of several services are combined only if their
    commits are equal, or one is a prefix of the other, so a branch is never joined to another build's commit.
    If no commit is known at all, only the first row is used: names of other services are too common.
    """
    facts: dict[str, Fact] = {}
    for row in BUILD_VARIABLES:
        found = row.read(environ)
        if keys.GIT_COMMIT not in found:
            continue
        stated = found[keys.GIT_COMMIT].value or ""
        if commit is None:
            commit = stated
        if _is_same_commit(stated, commit):
            facts = found | facts
    if facts or commit is not None:
        return facts
    return BUILD_VARIABLES[0].read(environ)


def build_rows() -> list[tuple[str, str, str, str]]:
    """The rows of the table in the documentation: service, and its variables for commit, branch and URL."""
    return [
        (row.service, ", ".join(row.commit), ", ".join(row.branch), ", ".join(row.url))
        for row in BUILD_VARIABLES
    ]


def _is_same_commit(one: str, other: str) -> bool:
    length = min(len(one), len(other))
    return one == other or (length >= _SHORTEST_COMMIT and one[:length].lower() == other[:length].lower())


def _value(name: str, environ: Mapping[str, str]) -> str:
    """Return a variable's value; empty for a placeholder such as ``unknown`` or an unexpanded ``$NAME``."""
    value = environ.get(name, "").strip()
    return "" if value.lower() in _PLACEHOLDERS or value.startswith("$") else value


def _first(key: str, names: tuple[str, ...], environ: Mapping[str, str]) -> Fact | None:
    for name in names:
        value = _value(name, environ)
        if key == keys.GIT_BRANCH:
            value = _branch(value)
        if value:
            return Fact(key, value, f"env {name}")
    return None


def _branch(ref: str) -> str:
    """Return the branch of ``refs/heads/x`` or Jenkins' ``origin/x``; empty for a tag or a pull request."""
    if ref.startswith("refs/") and not ref.startswith("refs/heads/"):
        return ""
    return ref.removeprefix("refs/heads/").removeprefix("origin/")


def _first_url(templates: tuple[str, ...], environ: Mapping[str, str]) -> Fact | None:
    for template in templates:
        names = re.findall(r"\{(\w+)\}", template)
        values = {name: _value(name, environ) for name in names}
        url = without_credentials(template.format_map(values)) if all(values.values()) else None
        if url:
            return Fact(keys.GIT_REPO_URL, url, "env " + ", ".join(names))
    return None
