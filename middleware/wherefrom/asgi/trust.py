"""Whose headers to believe."""

from __future__ import annotations

from collections.abc import Callable

from ..ledger import ledger
from ..propagation import TrustedNetworks
from ..settings import Settings
from .attributes import client_address
from .types import Scope

__all__ = ["trusted_callers"]


def trusted_callers(settings: Settings) -> Callable[[Scope], bool]:
    """Tells of a connection whether ``trust_upstream`` trusts its caller: by its network, or by a predicate.

    A predicate that raises trusts nobody.
    """
    chosen = settings.trust_upstream
    if callable(chosen):
        predicate = chosen
    else:
        networks = TrustedNetworks(",".join(chosen))
        return lambda scope: networks(client_address(scope))

    def trusts(scope: Scope) -> bool:
        try:
            return bool(predicate(scope))
        except Exception as error:  # noqa: BLE001 - the app's own code
            ledger.failed("trust_upstream", error)
            return False

    return trusts
