"""The one helper for optional dependencies."""

from __future__ import annotations

import importlib
from types import ModuleType

from secateur._errors import MissingExtra


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which extra brings it.

    Raises:
        MissingExtra: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtra(f"{module} is not installed\ninstall it with: pip install 'secateur[{extra}]'") from None
