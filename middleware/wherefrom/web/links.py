"""Links out of a trace: the page of its commit, and the request as a ``curl`` command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .._capture.values import to_json
from ..model import Trace

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
    """The https address of a commit on its host; ``None`` for an invalid repository or commit.

    The layout is that of GitLab or Bitbucket if the host is named so, else that of GitHub, which Gitea,
    Forgejo and sourcehut share. Credentials before an ``@`` are dropped.
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


_HEADER: Final = "http.request.header."
_NAME: Final = re.compile(r"[\w-]+", re.ASCII)
_TOO_LONG: Final = 100_000  # shells limit the length of a command


def to_curl(trace: Trace) -> str | None:
    """A ``curl`` command that repeats the request; ``None`` if it was not an HTTP request."""
    root = trace.root
    method = None if root is None else root.attributes.get("http.request.method")
    if root is None or not isinstance(method, str):
        return None
    words = ["curl", "--globoff", "-X", quoted(method), quoted(_url(root.attributes))]
    for name, value in _headers(trace, root.attributes):
        words += ["-H", quoted(f"{name}: {value}")]
    if root.inputs is not None:
        body = root.inputs if isinstance(root.inputs, str) else to_json(root.inputs)
        if len(body) <= _TOO_LONG:
            words += ["--data-raw", quoted(body)]
    return " ".join(words)


def quoted(text: str) -> str:
    r"""``text`` as one word of a shell; control characters are escaped as in ``$'\x1b'``."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = (
        char.replace("\\", "\\\\").replace("'", "\\'") if char.isprintable() else _escaped(char)
        for char in text
    )
    return f"$'{''.join(escaped)}'"


def _escaped(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "replace"))


def _url(attributes: Mapping[str, Any]) -> str:
    scheme = "https" if attributes.get("url.scheme") == "https" else "http"
    host = str(attributes.get("server.address", "localhost"))
    host = f"[{host}]" if ":" in host else host
    port = attributes.get("server.port")
    query = attributes.get("url.query")
    address = f"{scheme}://{host}" + (f":{port}" if port else "") + str(attributes.get("url.path", "/"))
    return f"{address}?{query}" if query else address


def _headers(trace: Trace, attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if trace.info.client_request_id:
        yield "X-Request-ID", trace.info.client_request_id
    if isinstance(agent := attributes.get("user_agent.original"), str):
        yield "User-Agent", agent
    for key, values in attributes.items():
        name = key.removeprefix(_HEADER)
        # curl reads headers from a file for a word that starts with @.
        if name != key and _NAME.fullmatch(name) and isinstance(values, list):
            yield from ((name, str(value)) for value in values)
    if trace.root is not None and isinstance(trace.root.inputs, (dict, list)):
        yield "Content-Type", "application/json"
