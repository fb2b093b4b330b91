"""Models from a function in the user's own file: ``file.py:function``."""

from __future__ import annotations

import inspect

from torch import nn

from secateur._errors import UsageError
from secateur._user_code import user_function


def build_from_file(name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    """Call the function with those of ``num_classes`` and ``in_channels`` that are given and that it accepts.

    Raises:
        FileError: the file does not exist.
        UnknownName: it has no such function.
        UsageError: the file or the function fails, or returns something else than a module.
    """
    function = user_function(name)
    accepted = inspect.signature(function).parameters
    given = {"num_classes": num_classes, "in_channels": in_channels}
    try:
        model = function(**{k: v for k, v in given.items() if v is not None and k in accepted})
    except Exception as error:
        raise UsageError(f"{name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name!r} returned a {type(model).__name__}\nit has to return a torch.nn.Module")
    return model
