"""Residual blocks: modules that add something to what enters them, so that one can be left out as a whole.

While the skeleton runs, every tensor that enters a module starts a *trail*. It is kept by additions and by operations
that change no number, and a module at whose end the trail of its own input arrives is a block: without it, its input
goes on as it is. A ReLU behind the addition keeps the trail of what was never negative.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from secateur.graph.trees import tensors

_TRAIL = "_secateur_trail"
_POSITIVE = "_secateur_positive"

_ADDITIONS = {"add", "add_"}
_UNCHANGING = {"clone", "alias", "detach", "contiguous", "_to_copy", "dropout", "native_dropout", "lift_fresh"}
_RECTIFIERS = {"relu", "relu_"}
_POOLINGS = {"max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d"}
FOLLOWED = _ADDITIONS | _UNCHANGING | _RECTIFIERS | _POOLINGS


@dataclass(frozen=True, eq=False)
class Block:
    """A module that can be left out.

    Attributes:
        name: path of the module.
        stack: path of the module that holds it, with its neighbours.
        stream: label systems of what enters it; not printed.
        shape: of what enters it, and leaves it.
    """

    name: str
    stack: str
    # A row for every position of the map: pages, for one block.
    stream: tuple[Tensor, ...] = field(repr=False)
    shape: tuple[int, ...]


class Trails:
    """Follows what entered modules. A trail maps the module to whether something was added since."""

    def __init__(self) -> None:
        self._open: dict[str, list[tuple[Tensor, tuple[Tensor, ...]]]] = {}
        self._found: dict[str, Block] = {}
        self._calls: dict[str, int] = {}

    def enter(self, module: str, x: Tensor | None, systems: tuple[Tensor, ...]) -> None:
        self._calls[module] = self._calls.get(module, 0) + 1
        if x is not None and x.dim() > 1:
            self._open.setdefault(module, []).append((x, systems))
            setattr(x, _TRAIL, {**getattr(x, _TRAIL, {}), module: False})

    def leave(self, module: str, output: Any) -> None:
        waiting = self._open.get(module)
        if not waiting:
            return
        x, systems = waiting.pop()
        if isinstance(output, Tensor) and output.shape == x.shape and getattr(output, _TRAIL, {}).get(module):
            self._found[module] = Block(module, module.rpartition(".")[0], systems, tuple(x.shape))

    def operation(self, name: str, flat: list[Tensor], out: Any) -> None:
        """Carry trails over one operation."""
        outs = tensors(out)
        if not outs or not flat:
            return
        y, trail = outs[0], {}
        if name in _POOLINGS:
            # Another tensor, but no number of it is negative where none was.
            setattr(y, _POSITIVE, getattr(flat[0], _POSITIVE, False))
        elif name in _ADDITIONS:
            for x in flat:
                if x.shape == y.shape:
                    trail.update(dict.fromkeys(getattr(x, _TRAIL, {}), True))
        elif name in _UNCHANGING:
            trail = getattr(flat[0], _TRAIL, {})
            if getattr(flat[0], _POSITIVE, False):
                setattr(y, _POSITIVE, True)
        else:
            before = getattr(flat[0], _TRAIL, {})
            # What entered and was never negative passes a ReLU unchanged.
            trail = {m: added for m, added in before.items() if self._never_negative(m)}
            setattr(y, _POSITIVE, True)
        if trail:
            setattr(y, _TRAIL, trail)
        elif y is flat[0] and hasattr(y, _TRAIL):
            delattr(y, _TRAIL)

    def _never_negative(self, module: str) -> bool:
        waiting = self._open.get(module)
        return bool(waiting) and getattr(waiting[-1][0], _POSITIVE, False)

    def blocks(self) -> list[Block]:
        """The innermost blocks, in the order of the model; a module that runs twice is none."""
        once = {name: b for name, b in self._found.items() if self._calls[name] == 1 and name and b.stream}
        holders = {holder for name in once for holder in _holders(name)}
        return [b for name, b in once.items() if name not in holders]


def _holders(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]
