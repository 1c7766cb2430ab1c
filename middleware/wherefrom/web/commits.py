"""From the repository that a trace names to the page of a commit: always https, or nothing."""

from __future__ import annotations

import re
from typing import Final

_PATH: Final = r"(?P<path>[\w~-][\w.~-]*(?:/[\w~-][\w.~-]*)*)/?"
_HOST: Final = r"(?P<host>[a-z0-9][a-z0-9.-]*)"
_FORMS: Final = tuple(
    re.compile(form + _PATH, re.ASCII | re.IGNORECASE)
    for form in (
        rf"https?://(?:[^@/\s]*@)?{_HOST}(?P<port>:\d{{1,5}})?/",
        rf"(?:ssh|git)://(?:[^@/\s]*@)?{_HOST}(?::\d{{1,5}})?/",
        r"(?:[\w.-]+@)?(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)+):",
    )
)
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}", re.ASCII | re.IGNORECASE)
_PLACES: Final = (("gitlab", "-/commit"), ("bitbucket", "commits"))


def commit_url(repository: str | None, commit: str | None) -> str | None:
    """The address of a commit on its host; ``None`` where what the trace says is no repository and commit.

    GitLab's, Bitbucket's and else GitHub's layout is meant, which Gitea, Forgejo and sourcehut share. What
    stood before an ``@`` is left out.
    """
    if not _COMMIT.fullmatch(commit or ""):
        return None
    for form in _FORMS:
        if found := form.fullmatch(repository or ""):
            parts = found.groupdict("")
            host = parts["host"].lower() + parts.get("port", "")
            place = next((place for name, place in _PLACES if name in host), "commit")
            return f"https://{host}/{parts['path'].removesuffix('.git')}/{place}/{commit}"
    return None
