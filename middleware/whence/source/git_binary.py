"""Questions that are put to a git binary, when there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .reading import UnreadableError


@dataclass(frozen=True, slots=True)
class GitBinary:
    """The ``git`` found on the ``PATH`` of ``environ``; ``timeout`` is in seconds, for one question."""

    environ: Mapping[str, str]
    timeout: float = 2.0

    def ask(self, root: str, *arguments: str) -> str:
        """What git prints for ``arguments`` in the work tree ``root``; it writes nothing there.

        Only the output counts: a server that reaps every child may take the exit status away.

        Raises:
            UnreadableError: there is no git, it took too long, or it refused.
        """
        import subprocess

        # A repository's own config may name a program to run as file system monitor.
        command = ["git", "-C", root, "-c", "core.fsmonitor=false", *arguments]
        try:
            answer = subprocess.run(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnreadableError(f"git {arguments[0]} took longer than {self.timeout:g} s") from error
        except (OSError, ValueError) as error:
            raise UnreadableError(f"git cannot be run: {error}") from error
        if answer.returncode not in {0, 1}:
            first_line = answer.stderr.decode("utf-8", "replace").partition("\n")[0]
            raise UnreadableError(f"git {arguments[0]}: {first_line}")
        return answer.stdout.decode("utf-8", "replace")

    def _environment(self) -> dict[str, str]:
        """``environ`` without what points git at another repository, as a deploy hook's does."""
        kept = {
            name: value
            for name, value in self.environ.items()
            if not name.startswith("GIT_") or name.startswith("GIT_CONFIG_") or name == "GIT_EXEC_PATH"
        }
        return kept | {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
