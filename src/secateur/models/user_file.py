"""Models from a function in the user's own file: ``file.py:function``."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from secateur._errors import FileError, UnknownName, UsageError


def is_user_file(name: str) -> bool:
    """Whether ``name`` reads ``file.py:function``."""
    return name.rpartition(":")[0].endswith(".py")


def build_from_file(name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    """Call the function with those of ``num_classes`` and ``in_channels`` that are given and that it accepts.

    Raises:
        FileError: the file does not exist.
        UnknownName: it has no such function.
        UsageError: the file or the function fails, or returns something else than a module.
    """
    function = _function(name)
    accepted = inspect.signature(function).parameters
    given = {"num_classes": num_classes, "in_channels": in_channels}
    try:
        model = function(**{k: v for k, v in given.items() if v is not None and k in accepted})
    except Exception as error:
        raise UsageError(f"{name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name!r} returned a {type(model).__name__}\nit has to return a torch.nn.Module")
    return model


def _function(name: str) -> Callable[..., Any]:
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise FileError(f"{file!r} does not exist\n{name!r} means: the function {attribute!r} of that file")
    spec = importlib.util.spec_from_file_location(f"_user_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up, and a file may import its neighbours.
    sys.modules[spec.name] = module
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{file!r} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName(f"function of {path.name}", attribute, known)
    return function
