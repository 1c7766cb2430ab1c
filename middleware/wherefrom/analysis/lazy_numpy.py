"""numpy, which is imported when a comparison first uses it: apps and most commands need none."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..exceptions import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
else:

    class _Numpy:
        def __getattr__(self, name: str) -> Any:
            try:
                value = getattr(import_module("numpy"), name)
            except ImportError as error:
                raise MissingExtraError("comparing traces", "cli") from error
            setattr(self, name, value)
            return value

    np = _Numpy()

__all__ = ["np"]
