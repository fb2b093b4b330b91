"""The user's own code by name: ``file.py:function``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from secateur._errors import FileError, UnknownName, UsageError


def is_user_code(name: str) -> bool:
    """Whether ``name`` reads ``file.py:function``."""
    return name.rpartition(":")[0].endswith(".py")


def user_function(name: str) -> Callable[..., Any]:
    """The function of that name in that file.

    Raises:
        FileError: the file does not exist.
        UnknownName: it has no such function.
        UsageError: the file cannot be imported.
    """
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise FileError(f"{file!r} does not exist\n{name!r} means: the function {attribute!r} of that file")
    spec = importlib.util.spec_from_file_location(f"_user_code_{path.stem}", path)
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
