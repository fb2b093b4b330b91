"""Which attributes does the model's code read?

Setting one that it does not read before it fails changes nothing, so that needs no run. Attributes lie in a dictionary,
where Python finds a name by its hash and a comparison; names that note the comparison hear of every way of reading
(``self.heads``, ``getattr``, ``vars(self)["heads"]``), and neither a class nor a value becomes another. Only code that
goes through all of its attributes is not heard: what depends on that is locked, as if no attribute held the size.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

#: An attribute of a module, or a field of its settings (``config.heads``): the path of the module, and the name.
Attribute = tuple[str, str]


class _Name(str):
    """A name that notes in ``read`` that it was looked up."""

    __slots__ = ("attribute", "read")

    attribute: Attribute
    read: set[Attribute]

    def __eq__(self, other: object) -> bool:
        if not str.__eq__(self, other):
            return False
        self.read.add(self.attribute)
        return True

    __hash__ = str.__hash__


def listen(model: nn.Module, attributes: Iterable[Attribute]) -> set[Attribute]:
    """Listen for reads of some attributes as long as the model lives.

    Returns:
        Those that were read; it fills while the model runs. Attributes that cannot be listened for are in it at once.
    """
    read: set[Attribute] = set()
    targets: dict[tuple[str, str], Any] = {}
    names: dict[int, dict[str, _Name]] = {}
    for path, attribute in attributes:
        holder, _, name = attribute.rpartition(".")
        if (path, holder) not in targets:
            targets[path, holder] = _target(model.get_submodule(path), holder)
        target = targets[path, holder]
        noting = names.setdefault(id(target), {})
        # A class that decides what happens to a name may read others in its place.
        decides = hasattr(inspect.getattr_static(type(target), name, None), "__set__")
        if decides or name in noting or name not in getattr(target, "__dict__", ()):
            read.add((path, attribute))
        else:
            noting[name] = _Name(name)
            noting[name].attribute, noting[name].read = (path, attribute), read
    for target in targets.values():
        if noting := names.pop(id(target), None):
            held = vars(target)
            entries = [(noting.get(name, name), value) for name, value in held.items()]
            held.clear()
            held.update(entries)
    return read


def _target(module: nn.Module, holder: str) -> Any:
    """The module, or a copy of its settings for it alone, because others may hold the same object."""
    if not holder or (settings := getattr(module, holder, None)) is None:
        return None if holder else module
    own = copy.copy(settings)
    setattr(module, holder, own)
    return own
