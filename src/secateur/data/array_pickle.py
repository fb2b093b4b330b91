"""Reading CIFAR's Python files without running what a pickle may say.

The archive of Krizhevsky's page holds pickled dictionaries of an array and a list. This reader admits plain containers
and what numpy writes for an array, and refuses every other global by name before it is imported. Numpy's own
constructors are not admitted either: a crafted pickle can have them take any bytes for pointers. Two records stand in
for them, and the arrays are made of the records afterwards.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from secateur._errors import DataError


class _Type:
    """What stands for ``numpy.dtype``: a code such as ``u1`` and a byte order."""

    def __init__(self, code: Any = "", *_: Any):
        self.code, self.order = str(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def plain(self) -> np.dtype[Any]:
        if not re.fullmatch("b1|[iuf][1248]", self.code) or self.order not in ("<", ">", "=", "|"):
            raise DataError(f"it has an array of {self.code!r}, expected numbers")
        return np.dtype(self.code).newbyteorder(self.order)


class _Array:
    """What stands for ``numpy.ndarray``; ``value`` is the array once the pickle has told its content."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, fortran, raw = state
        self.fill(raw, kind, shape, "F" if fortran else "C")

    def fill(self, raw: Any, kind: _Type, shape: Any, order: Any) -> None:
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        self.value = np.frombuffer(data, kind.plain()).reshape(tuple(shape), order=order)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.fill(raw, kind, shape, order)
    return array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Byte strings that Python 3 pickled for Python 2 arrive as (text, "latin1")."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise DataError(f"it has a byte string in an encoding that such files do not use: {encoding!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in ("numpy.core", "numpy._core")},
    **{
        (builtins, kind.__name__): kind
        for builtins in ("builtins", "__builtin__")
        for kind in (dict, list, tuple, set, frozenset, bytearray, bytes)
    },
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _ADMITTED:
            raise DataError(f"it asks for {module}.{name}, which no such file needs; it was not run")
        return _ADMITTED[module, name]


def read_arrays(raw: bytes, path: Path) -> dict[str, Any]:
    """The dictionary of arrays, lists, numbers and strings in ``raw``; its keys as text.

    Raises:
        DataError: the pickle asks for any other global (the message names it), is cut short, or is no dictionary.
    """
    try:
        # Python 2 wrote the originals: latin1 keeps their bytes one to one.
        content = _ArraysOnly(io.BytesIO(raw), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"'{path}' is refused: {error}\nfetch the file again from where you trust it") from None
    except Exception as error:
        raise DataError(
            f"'{path}' cannot be read ({len(raw):,} bytes found): {type(error).__name__}: {error}\n"
            "it is cut short or damaged; fetch it again"
        ) from None
    if not isinstance(content, dict):
        raise DataError(f"'{path}' holds a {type(content).__name__}, not the dictionary of a CIFAR batch")
    return {_text(key): value.value if isinstance(value, _Array) else value for key, value in content.items()}


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
