"""Repository URLs from a git config or a build variable, without credentials."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_AUTHORITY: Final = re.compile(r"(?<=://)([^/?#]*)@")
_PARTS: Final = re.compile(r"://(\[[^]/]*\]|[^/:]*)(:[^/]*)?((?:(?!://).)*)")  # host, port, path
_SCP_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
_TOKEN_PREFIX: Final = re.compile(r"(gh[a-z]|glpat|github_pat|xox[a-z]|pat|token)[_-]")
_SECTION: Final = re.compile(r'\[\s*([A-Za-z0-9.-]+)\s*(?:"((?:[^"\\]|\\.)*)"\s*)?\]')
_CONTINUED: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\\n")
_ESCAPES: Final = {"n": "\n", "t": "\t", "b": "\b"}


def without_credentials(url: str) -> str | None:
    """Return ``url`` without user, password, query and fragment; ``None`` if the rest may contain a secret.

    The scp form ``git@host:path`` keeps a plain user name. The path identifies a repository, so the query and
    the fragment, which may contain tokens, are removed whole.
    """
    url = url.strip()
    if not url or not url.isprintable():
        return None
    if "://" not in url:
        return _scp_or_path(url)
    url, *dropped = re.split(r"[?#]", url, maxsplit=1)
    # The path may contain a second URL, as with a proxy: https://proxy/https://user:token@host/.
    url = _AUTHORITY.sub("", url)
    return None if "@" in "".join(dropped) or _may_hold_secret(url) else url


def _scp_or_path(url: str) -> str | None:
    user, at, rest = url.partition("@")
    if not at or "/" in user:
        return None if "::" in url or (at and ":" in user) else url
    if _SCP_USER.fullmatch(user) and not _TOKEN_PREFIX.match(user):
        return None if "@" in rest.partition(":")[0] or "@" in rest.partition("/")[0] else url
    return rest if "@" not in rest else None


def _may_hold_secret(url: str) -> bool:
    """Return whether ``url`` may still contain an unescaped user and password."""
    for host, port, path in _PARTS.findall(url):
        if (port[1:] and not port[1:].isdigit()) or "%40" in host + port:
            return True
        if "@" in path and (port or re.search(r"[^/]@", path)):
            return True
    return "::" in url.partition("://")[0]


@dataclass(slots=True)
class GitConfig:
    """The part of a git config that is used: remotes, upstreams, ``core.bare`` and ``core.filemode``."""

    is_bare: bool = False
    has_modes: bool = True
    remotes: dict[str, str] = field(default_factory=dict)
    upstreams: dict[str, str] = field(default_factory=dict)

    def remote_of(self, branch: str | None) -> str | None:
        """Return the remote of ``branch``, else ``origin``, else the first; ``None`` without remotes."""
        candidates = (self.upstreams.get(branch or ""), "origin", *self.remotes)
        return next((name for name in candidates if name in self.remotes), None)


def read_config(text: str) -> GitConfig:
    """Parse a git config; malformed lines are skipped, includes and ``insteadOf`` are not followed."""
    config = GitConfig()
    for section, name, key, value in _settings(text):
        match section, key:
            case "core", "bare":
                config.is_bare = value.lower() in {"true", "yes", "on", "1"}
            case "core", "filemode":
                config.has_modes = value.lower() in {"true", "yes", "on", "1"}
            case "remote", "url" if value:
                config.remotes.setdefault(name, value)  # git fetches from the first of several URLs
            case "branch", "remote":
                config.upstreams[name] = value
    return config


def _settings(text: str) -> Iterator[tuple[str, str, str, str]]:
    section = name = ""
    for line in _CONTINUED.sub(r"\1", text).splitlines():
        rest = line.strip()
        if header := _SECTION.match(rest):
            section, name = header[1].lower(), re.sub(r"\\(.)", r"\1", header[2] or "")
            rest = rest[header.end() :].strip()
        key, is_assigned, value = rest.partition("=")
        if key and key[0].isalpha():
            yield section, name, key.strip().lower(), _unquoted(value) if is_assigned else "true"


def _unquoted(value: str) -> str:
    """Return a config value without quotes, escapes and trailing comment."""
    result: list[str] = []
    is_quoted = False
    characters = iter(value.strip())
    for character in characters:
        if character == '"':
            is_quoted = not is_quoted
        elif character == "\\":
            escaped = next(characters, "")
            result.append(_ESCAPES.get(escaped, escaped))
        elif character in "#;" and not is_quoted:
            break
        else:
            result.append(character)
    return "".join(result).strip()
