"""Where the user and the password end in the URL of a server."""

from __future__ import annotations

from ..exceptions import StoreError


def check_at_sign(rest: str, delimiters: str) -> None:
    """Refuse what follows ``://`` if a password may reach beyond one of the delimiters, whose place it takes.

    What comes after them is shown, as host, database or option.

    Raises:
        StoreError: there is an ``@`` after a delimiter; the message shows nothing of the URL.
    """
    before = rest.rpartition("@")[0]
    if any(delimiter in before for delimiter in delimiters):
        raise StoreError(
            f"the URL of the store has an @ after one of {' '.join(delimiters)}: characters such as / in a"
            " password are written %2F, and an @ behind the host is written %40"
        )
