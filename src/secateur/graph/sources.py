"""Where does a size that the model's code hands over come from?

``y.view(b, n, self.heads, c // self.heads)``: an attribute, and a share of a size that was read off another tensor.
Integers do not say so. During a trace the code gets some that do: its attributes and the sizes of its activations are
each a :class:`SourcedInt`. Where one is given as the size of an axis, an attribute is bound to that axis (a *literal*);
two axes of which the code gave the size of one to the other are noted, and tied if a dry run shows that it matters.

So what ``mend.py`` would have to search for, one failing dry run after another, is known at once. Other arithmetic
gives plain integers, of which nothing is known here. All of it only proposes; dry runs decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from secateur.graph.labels import Labels, varying
from secateur.graph.leaves import undispatched, unheard
from secateur.graph.ledger import AxisRef, Ledger, Literal

#: A longer list holds no sizes of axes.
_MOST_ENTRIES = 64


class Place(NamedTuple):
    """An attribute of a module, or an entry of one."""

    module: str
    attribute: str
    entry: int | None = None


class Share(NamedTuple):
    """The size of an axis divided by a number, without a rest: ``c // heads``."""

    axis: AxisRef
    divisor: int


class SourcedInt(int):
    """A number and where it comes from: a place that holds it, an axis that is so long, or a share of one."""

    source: Place | AxisRef | Share

    def __floordiv__(self, divisor: Any) -> Any:
        share = int(self) // divisor
        if isinstance(self.source, AxisRef) and isinstance(divisor, int) and share * divisor == self:
            return _sourced(share, Share(self.source, int(divisor)))
        return share

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        # What the code keeps outlives the trace, and is copied as the number that it is.
        return int, (int(self),)


def _sourced(value: int, source: Place | AxisRef | Share) -> SourcedInt:
    number = SourcedInt(value)
    number.source = source
    return number


def name_attributes(modules: Iterable[tuple[str, nn.Module]]) -> None:
    """Let the integers that modules hold say so, where the code is not PyTorch's."""
    own_code: dict[type, bool] = {}
    for path, module in modules:
        kind = type(module)
        if kind not in own_code:
            own_code[kind] = not (getattr(kind.forward, "__module__", None) or "").startswith("torch.")
        if not own_code[kind]:
            continue
        held = module.__dict__
        for name, value in held.items():
            # Values change, no entry comes or goes, so the dictionary may be gone through meanwhile.
            if type(value) is int:
                if value > 1:
                    held[name] = _sourced(value, Place(path, name))
            elif type(value) in (tuple, list) and 0 < len(value) <= _MOST_ENTRIES and {*map(type, value)} == {int}:
                held[name] = type(value)(_sourced(v, Place(path, name, k)) for k, v in enumerate(value))


class Pair(NamedTuple):
    """An axis whose size the code took, and to which it gave that size: one, or two neighbours as one.

    Attributes:
        taken: the axis whose size it took.
        system: of the tensor to which it gave it.
        axes: of that tensor, along which the system varies.
        line: of the code.
    """

    taken: AxisRef
    system: Tensor
    axes: tuple[int, ...]
    line: str


class Scale(NamedTuple):
    """An attention whose scale PyTorch works out of the width of its queries: their systems, and where it runs."""

    systems: tuple[Tensor, ...]
    where: str


class Call(NamedTuple):
    """A call of one of PyTorch's functions, its result, and the number of the first operation that it ran."""

    args: tuple
    kwargs: dict
    out: Any
    first: int


class Sources:
    """Hears which sizes the code reads and which it gives.

    Args:
        ledger: where literals are noted.
        labels: of a tensor.
        operations: that have run.
        line: of the code that is running.

    Attributes:
        pairs: by the number of the operation that was given a size.
        scales: by the number of an operation of an attention.
    """

    def __init__(
        self,
        ledger: Ledger,
        labels: Callable[[Tensor], Labels],
        operations: Sequence[Any],
        line: Callable[[], str],
    ):
        self._ledger, self._labels, self._operations, self._line = ledger, labels, operations, line
        self._bound: dict[Place, AxisRef] = {}
        self.pairs: dict[int, list[Pair]] = {}
        self.scales: dict[int, Scale] = {}

    def may_change(self, tensor: Tensor) -> bool:
        """Whether a cut may change the size of a tensor."""
        return bool(self._labels(tensor).systems)

    def run(self, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        """Run a function that the code calls; the sizes in its result say where they come from."""
        hear = _HEARD.get(func.__name__)
        if hear is None:
            return func(*args, **kwargs)
        first = len(self._operations)
        call = Call(args, kwargs, func(*args, **kwargs), first)
        with unheard():
            return hear(self, call)

    # -- what the code reads ----------------------------------------------------------------------------------------

    def _property(self, call: Call) -> Any:
        return self._sizes(call.args[0], call.out) if type(call.out) is torch.Size else call.out

    def _size(self, call: Call) -> Any:
        if type(call.out) is torch.Size:
            return self._sizes(call.args[0], call.out)
        return self._read(call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs["dim"], call.out)

    def _sizes(self, tensor: Tensor, shape: torch.Size) -> torch.Size:
        if not self._labels(tensor).systems:
            return shape
        return torch.Size([self._read(tensor, axis, size) for axis, size in enumerate(shape)])

    def _read(self, tensor: Tensor, axis: int, size: int) -> int:
        systems = self._labels(tensor).systems
        ref = self._ledger.axis(systems, axis % tensor.dim(), size) if systems else None
        return _sourced(size, ref) if ref is not None and ref.systems else size

    # -- what the code gives ----------------------------------------------------------------------------------------

    def _reshape(self, call: Call) -> Any:
        sizes = call.args[1:]
        self._laid_out(call.out, sizes[0] if sizes and isinstance(sizes[0], (tuple, list)) else sizes)
        return call.out

    def _unflatten(self, call: Call) -> Any:
        if len(call.args) > 2:
            self._laid_out(call.out, call.args[2], call.args[1] % call.args[0].dim())
        return call.out

    def _narrow(self, call: Call) -> Any:
        if len(call.args) > 3:
            self._laid_out(call.out, call.args[3:], call.args[1] % call.args[0].dim())
        return call.out

    def _split(self, call: Call) -> Any:
        if len(call.args) > 1:
            dim = call.args[2] if len(call.args) > 2 else call.kwargs.get("dim", 0)
            size = call.args[1]
            for k, piece in enumerate(call.out):
                self._laid_out(piece, [size[k] if isinstance(size, (tuple, list)) else size], dim % piece.dim())
        return call.out

    def _index(self, call: Call) -> Any:
        index = call.args[1] if type(call.args[1]) is tuple else call.args[1:]
        asked = [part for part in index if type(part) is slice and part != slice(None)]
        for part, operation in zip(asked, (o for o in self._operations[call.first :] if o.span is not None)):
            axis, *ends = operation.span
            for bound, end in zip((part.start, part.stop), ends):
                if type(bound) is SourcedInt and isinstance(bound.source, Place) and bound == end:
                    with undispatched():
                        front = [s.narrow(axis, 0, end) for s in operation.inputs if axis in varying(s)]
                    self._given(bound, self._ledger.axis(front, axis, end))
        return call.out

    def _attention(self, call: Call) -> Any:
        if call.kwargs.get("scale") is None:
            queries = call.args[0] if call.args else call.kwargs["query"]
            systems = tuple(s for s in self._labels(queries).systems if queries.dim() - 1 in varying(s))
            if systems:
                where = f"{self._operations[-1].module or 'the model'}{self._line()}"
                ran = range(call.first, len(self._operations))
                self.scales.update(dict.fromkeys(ran, Scale(systems, where)))
        return call.out

    def _laid_out(self, out: Tensor, sizes: Sequence[Any], first: int = 0) -> None:
        """The code asked for these sizes, of the axes of ``out`` from ``first`` on."""
        for k, size in enumerate(sizes):
            if type(size) is not SourcedInt:
                continue
            systems = self._labels(out).systems
            if isinstance(size.source, Share):
                taken, divisor = size.source
                for other in (k - 1, k + 1):
                    if 0 <= other < len(sizes) and sizes[other] == divisor:
                        self._pair(taken, systems, (first + min(k, other), first + max(k, other)))
                        break
            else:
                self._given(size, self._ledger.axis(systems, first + k, out.shape[first + k]))

    def _given(self, size: SourcedInt, ref: AxisRef) -> None:
        if not ref.systems or size != ref.size:
            return
        source = size.source
        if isinstance(source, Place):
            if source not in self._bound:
                self._bound[source] = ref
                self._ledger.literals.append(Literal(source.module, source.attribute, ref, index=source.entry))
                return
            source = self._bound[source]
        if isinstance(source, AxisRef):
            system, axis = ref.systems[0]
            self._pair(source, [system], (axis,))

    def _pair(self, taken: AxisRef, systems: Sequence[Tensor], axes: tuple[int, ...]) -> None:
        for system in systems:
            if set(axes) <= set(varying(system)):
                pair = Pair(taken, system, axes, self._line())
                self.pairs.setdefault(len(self._operations) - 1, []).append(pair)
                return


#: What is heard of functions, by their names.
_HEARD: dict[str, Callable[[Sources, Call], Any]] = {
    "__get__": Sources._property,
    "size": Sources._size,
    **dict.fromkeys(("view", "reshape", "expand"), Sources._reshape),
    "unflatten": Sources._unflatten,
    "narrow": Sources._narrow,
    **dict.fromkeys(("split", "split_with_sizes"), Sources._split),
    "__getitem__": Sources._index,
    "scaled_dot_product_attention": Sources._attention,
}
