"""Where does a size that the model's code hands over come from?

``y.view(b, n, self.heads, c // self.heads)``: an attribute, and a share of a size that was read off another tensor.
Integers do not say so, but during a trace the code gets some that do (``sourced.py``). Where one is given as the size
of an axis, an attribute is bound to that axis (a *literal*); two axes of which the code gave the size of one to the
other are noted, and tied if a dry run shows that it matters.

So what ``mend.py`` would have to search for, one failing dry run after another, is known at once. A plain number that
is given as the size of an axis that a cut may change is a doubt (``doubts.py``), and so is a function of which nothing
is known here. Where there is a doubt, dry runs decide.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from secateur.graph.doubts import Doubts, Pair, Place
from secateur.graph.labels import Labels, varying
from secateur.graph.leaves import undispatched, unheard
from secateur.graph.ledger import AxisRef, Ledger, Literal
from secateur.graph.sourced import Share, SourcedInt, doubt_numbers, hides_numbers, plain, sourced
from secateur.graph.trees import tensors

#: The names under which functions take the sizes of the pieces.
_SPLIT_SIZES = ("split_size_or_sections", "split_size", "split_sizes")
#: On tensors that are the same everywhere: the sizes that the code gave them, by axis.
_GIVEN = "_secateur_given"


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

    def given(self, place: int, *names: str, otherwise: Any = None) -> Any:
        """An argument, by its place or by one of its names."""
        if len(self.args) > place:
            return self.args[place]
        return next((self.kwargs[name] for name in names if name in self.kwargs), otherwise)


class Sources:
    """Hears which sizes the code reads and which it gives.

    Args:
        ledger: where literals are noted.
        labels: of a tensor.
        operations: that have run.
        frame: of the model's own code that is running.
        doubts: what nobody follows.
        call: calls a function.

    Attributes:
        pairs: by the number of the operation that was given a size.
        scales: by the number of an operation of an attention.
        bound: the axes of attributes that were given as sizes.
    """

    def __init__(
        self,
        ledger: Ledger,
        labels: Callable[[Tensor], Labels],
        operations: Sequence[Any],
        frame: Callable[[], types.FrameType | None],
        doubts: Doubts,
        call: Callable[[Any, tuple, dict], Any],
    ):
        self._ledger, self._labels, self._operations, self._frame = ledger, labels, operations, frame
        self._doubts, self._call = doubts, call
        self.bound: dict[Place, AxisRef] = {}
        self._unexplained: list[dict[int, SourcedInt]] = []
        self.pairs: dict[int, list[Pair]] = {}
        self.scales: dict[int, Scale] = {}

    def run(self, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        """Run a function that the code calls; the sizes in its result say where they come from."""
        hear = _HEARD.get(func.__name__, Sources._anything)
        first = len(self._operations)
        call = Call(args, kwargs, self._call(func, args, kwargs), first)
        with unheard():
            try:
                return hear(self, call)
            except Exception:
                # The call itself went well. What is not understood of it must cost dry runs, never the trace.
                return self._anything(call)

    def finish(self) -> None:
        """The model has run: sizes that met nothing with units are in doubt."""
        doubt_numbers(self._unexplained)

    def _anything(self, call: Call) -> Any:
        """Whatever it does may depend on every size that it is given, or that its tensors have."""
        self._doubt((call.args, call.kwargs, call.out))
        return call.out

    def _doubt(self, tree: Any) -> None:
        for tensor in tensors(tree):
            self._doubts.about_systems(self._labels(tensor).systems)
        doubt_numbers(tree)

    def _line(self) -> str:
        return line_of(self._frame())

    def _tells(self, number: Any) -> TypeGuard[SourcedInt]:
        """Whether a number says where it comes from. One that the code kept since another trace speaks of that one."""
        return type(number) is SourcedInt and number.doubts is self._doubts

    # -- what the code reads ----------------------------------------------------------------------------------------

    def _property(self, call: Call) -> Any:
        if type(call.out) is torch.Size:
            return self._sizes(call.args[0], call.out)
        return self._anything(call)

    def _size(self, call: Call) -> Any:
        if type(call.out) is torch.Size:
            return self._sizes(call.args[0], call.out)
        return self._sizes(call.args[0], call.args[0].shape)[call.given(1, "dim")]

    def _sizes(self, tensor: Tensor, shape: torch.Size) -> Sequence[int]:
        """The sizes of a tensor, each of which says whose it is if there are units on its axis."""
        systems = self._labels(tensor).systems
        labelled = self._labelled(systems)
        if not labelled:
            return shape
        frame = self._frame()
        hidden = frame is not None and hides_numbers(frame.f_code)
        sizes = list(shape)
        for axis in labelled:
            ref = self._ledger.axis(systems, axis, sizes[axis])
            if hidden:
                self._doubts.about(ref)
            sizes[axis] = sourced(sizes[axis], ref, self._doubts)
        return torch.Size(sizes)

    @staticmethod
    def _labelled(systems: Sequence[Tensor]) -> set[int]:
        """The axes on which units lie."""
        return {axis for system in systems for axis in varying(system)}

    # -- what the code gives ----------------------------------------------------------------------------------------

    def _reshape(self, call: Call) -> Any:
        sizes = call.args[1:]
        sizes = sizes[0] if sizes and isinstance(sizes[0], (tuple, list)) else sizes
        self._laid_out(call.out, sizes)
        # A type instead of sizes, or sizes by their name.
        return self._anything(call) if call.kwargs or len(sizes) != call.out.dim() else call.out

    def _unflatten(self, call: Call) -> Any:
        self._laid_out(call.out, call.given(2, "sizes"), call.given(1, "dim") % call.args[0].dim())
        return call.out

    def _narrow(self, call: Call) -> Any:
        dim, start, length = call.given(1, "dim"), call.given(2, "start"), call.given(3, "length")
        self._laid_out(call.out, [length], dim % call.out.dim())
        return call.out if type(start) is int and start == 0 else self._anything(call)

    def _split(self, call: Call) -> Any:
        size, dim = call.given(1, *_SPLIT_SIZES), call.given(2, "dim", otherwise=0)
        for k, piece in enumerate(call.out):
            self._laid_out(piece, [size[k] if isinstance(size, (tuple, list)) else size], dim % piece.dim())
        return call.out

    def _chunk(self, call: Call) -> Any:
        """Equal parts of an axis, which have to stay equal."""
        x, count = call.args[0], call.given(1, "chunks")
        axis = call.given(2, "dim", otherwise=0) % x.dim()
        whole = self._axis(x, axis)
        if not whole.systems:
            return call.out
        if type(count) is not int or x.shape[axis] % count:
            return self._anything(call)
        first, *others = (self._axis(part, axis) for part in call.out)
        for other in others:
            self._doubts.about_sizes(first, other, self._line())
        return call.out

    def _unbind(self, call: Call) -> Any:
        return self._only(call, [call.given(1, "dim", otherwise=0)])

    def _roll(self, call: Call) -> Any:
        dims = call.given(2, "dims")
        if dims is None:
            return self._anything(call)
        return self._only(call, dims if isinstance(dims, (tuple, list)) else [dims])

    def _pad(self, call: Call) -> Any:
        widths = call.given(1, "pad")
        if not isinstance(widths, (tuple, list)):
            return self._anything(call)
        return self._only(call, [-1 - k // 2 for k, width in enumerate(widths) if type(width) is not int or width])

    def _only(self, call: Call, axes: Sequence[int]) -> Any:
        """What the function does depends on the sizes of some axes of its first argument, and on numbers."""
        x = call.args[0]
        for axis in axes:
            self._doubts.about(self._axis(x, axis % x.dim()))
        self._doubt((call.args[1:], call.kwargs))
        return call.out

    def _like(self, call: Call) -> Any:
        """The shape of another tensor."""
        other = call.given(1, "other")
        for axis in range(other.dim()):
            self._doubts.about_sizes(self._axis(other, axis), self._axis(call.out, axis), self._line())
        return call.out

    def _made(self, call: Call) -> Any:
        """A tensor that is the same everywhere, which fits any size until it meets one: then its own is explained."""
        args = call.args[isinstance(call.args[0], Tensor) :] if call.args else ()
        sizes = args[0] if args and isinstance(args[0], (tuple, list)) else args
        own = {axis: n for axis, n in enumerate(sizes) if self._tells(n)}
        if not own or not self._labels(call.out).is_uniform:
            return self._anything(call)
        self._give(call.out, {axis: number for axis, number in own.items() if axis < call.out.dim()})
        doubt_numbers((args[1:], call.kwargs) if sizes is not args else call.kwargs)
        return call.out

    def _made_alike(self, call: Call) -> Any:
        """The same, in the shape of another tensor."""
        shape = self._sizes(call.args[0], call.args[0].shape) if call.args else ()
        if not call.args or not self._labels(call.out).is_uniform:
            return self._anything(call)
        self._give(call.out, {axis: n for axis, n in enumerate(shape) if self._tells(n)})
        doubt_numbers((call.args[1:], call.kwargs))
        return call.out

    def _give(self, tensor: Tensor, sizes: dict[int, SourcedInt]) -> None:
        """Note where a tensor that is the same everywhere has its sizes from."""
        setattr(tensor, _GIVEN, sizes)
        self._unexplained.append(sizes)

    def explain(self, tensor: Tensor, axis: int, ref: AxisRef) -> bool:
        """An axis of a tensor that is the same everywhere met one with units: whether the code said how long it is."""
        given = getattr(tensor, _GIVEN, {})
        if axis not in given:
            return False
        with unheard():
            # The operation in which they met is not written down yet.
            self._given(given.pop(axis), ref, len(self._operations))
        return True

    def _axis(self, tensor: Tensor, axis: int) -> AxisRef:
        return self._ledger.axis(self._labels(tensor).systems, axis, tensor.shape[axis])

    def _index(self, call: Call) -> Any:
        x, index = call.args[0], call.args[1] if type(call.args[1]) is tuple else call.args[1:]
        settled = self._sliced(call, [part for part in index if type(part) is slice and not _is_everything(part)])
        if not all(part is None or part is Ellipsis or _takes_one_axis(part) for part in index):
            return self._anything(call)
        systems, axis = self._labels(x).systems, 0
        for part in index:
            if part is Ellipsis:
                axis += x.dim() - sum(other is not None and other is not Ellipsis for other in index)
            elif part is not None:
                if not (type(part) is slice and (_is_whole(part, x.shape[axis]) or id(part) in settled)):
                    self._doubts.about(self._ledger.axis(systems, axis, x.shape[axis]))
                    self._doubt(part)
                elif type(part) is slice and id(part) not in settled:
                    doubt_numbers(part)
                axis += 1
        return call.out

    def _sliced(self, call: Call, asked: list[slice]) -> set[int]:
        """Bind attributes that are ends of slices to what lies in front of them: those slices whose ends follow."""
        settled = set()
        ran = [o for o in self._operations[call.first :] if o.span is not None]
        for part, operation in zip(asked, ran if len(ran) == len(asked) else ()):
            axis, *ends = operation.span
            given = [(bound, end) for bound, end in zip((part.start, part.stop), ends) if bound is not None]
            # From the beginning on, whatever is cut.
            given = [(bound, end) for bound, end in given if not (type(bound) is int and bound == end == 0)]
            sources = [(bound, end) for bound, end in given if self._tells(bound) and plain(bound) == end]
            if part.step is not None or len(sources) < len(given):
                continue
            for bound, end in sources:
                with undispatched():
                    front = [s.narrow(axis, 0, end) for s in operation.inputs if axis in varying(s)]
                self._given(bound, self._ledger.axis(front, axis, end))
            settled.add(id(part))
        return settled

    def _attention(self, call: Call) -> Any:
        if call.kwargs.get("scale") is None:
            queries = call.given(0, "query")
            systems = tuple(s for s in self._labels(queries).systems if queries.dim() - 1 in varying(s))
            if systems:
                where = f"{self._operations[-1].module or 'the model'}{self._line()}"
                ran = range(call.first, len(self._operations))
                self.scales.update(dict.fromkeys(ran, Scale(systems, where)))
                self._doubts.about(self._ledger.axis(systems, queries.dim() - 1, queries.shape[-1]))
        if call.kwargs.get("enable_gqa"):
            queries, keys, values = call.given(0, "query"), call.given(1, "key"), call.given(2, "value")
            heads = self._axis(queries, queries.dim() - 3)
            for other in (keys, values):
                shared = self._axis(other, other.dim() - 3)
                self._doubts.about_sizes(shared, heads, self._line(), heads.size // shared.size)
        doubt_numbers((call.args, call.kwargs))
        return call.out

    def _laid_out(self, out: Tensor, sizes: Sequence[Any], first: int = 0) -> None:
        """The code asked for these sizes, of the axes of ``out`` from ``first`` on."""
        systems = self._labels(out).systems
        labelled = self._labelled(systems)
        for k, size in enumerate(sizes):
            if not self._tells(size):
                # One is inferred from all others.
                if first + k in labelled and not (type(size) is int and size == -1):
                    self._doubts.about(self._ledger.axis(systems, first + k, out.shape[first + k]))
                continue
            if isinstance(size.source, Share):
                self._shared(size, systems, sizes, k, first)
            else:
                self._given(size, self._ledger.axis(systems, first + k, out.shape[first + k]))

    def _shared(self, size: SourcedInt, systems: Sequence[Tensor], sizes: Sequence[Any], k: int, first: int) -> None:
        """A share of a size was given, beside its divisor or elsewhere."""
        assert isinstance(size.source, Share)
        taken, divisor = size.source
        for other in (k - 1, k + 1):
            if 0 <= other < len(sizes) and plain(sizes[other]) == plain(divisor):
                if getattr(sizes[other], "source", None) is not getattr(divisor, "source", None):
                    size.doubted()
                if not self._pair(taken, systems, (first + min(k, other), first + max(k, other))):
                    size.doubted()
                return
        size.doubted()

    def _given(self, size: SourcedInt, ref: AxisRef, index: int | None = None) -> None:
        """The code asked for an axis of this size, in the operation of that number; by default the last."""
        source = size.source
        if isinstance(source, Share) or len(ref.systems) == 0 or plain(size) != ref.size:
            size.doubted()
            return
        if len(ref.systems) > 1:
            self._doubts.about(ref)
        if isinstance(source, Place):
            if source not in self.bound:
                self.bound[source] = ref
                self._ledger.literals.append(Literal(source.module, source.attribute, ref, index=source.entry))
                return
            source = self.bound[source]
        system, axis = ref.systems[0]
        if not self._pair(source, [system], (axis,), index):
            size.doubted()

    def _pair(self, taken: AxisRef, systems: Sequence[Tensor], axes: tuple[int, ...], index: int | None = None) -> bool:
        """Note that two axes have one size; whether there was such a second one."""
        for system in systems:
            if set(axes) <= set(varying(system)):
                pair = Pair(taken, system, axes, self._line())
                self.pairs.setdefault(len(self._operations) - 1 if index is None else index, []).append(pair)
                return True
        return False


def line_of(frame: types.FrameType | None) -> str:
    """A line of code in words, empty where there is none."""
    return "" if frame is None else f" [{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}]"


def _is_everything(part: slice) -> bool:
    # Slices compare what they hold, and a size would hear of it.
    return part.start is None and part.stop is None and part.step is None


def _is_whole(part: slice, size: int) -> bool:
    """Whether a slice takes all of an axis, and of a shorter one, too."""
    if part.step is not None or (part.start is not None and plain(part.start) != 0):
        return False
    stop = plain(part.stop)
    return part.stop is None or (stop is not None and stop >= size)


def _takes_one_axis(part: Any) -> bool:
    """Whether a part of an index is about one axis: a slice, a number, or a tensor of numbers."""
    if isinstance(part, Tensor):
        return not (part.is_floating_point() or part.dtype in (torch.bool, torch.uint8))
    return isinstance(part, slice) or type(part) in (int, SourcedInt)


#: What is heard of functions, by their names.
_HEARD: dict[str, Callable[[Sources, Call], Any]] = {
    "__get__": Sources._property,
    "size": Sources._size,
    **dict.fromkeys(("view", "reshape", "expand"), Sources._reshape),
    "unflatten": Sources._unflatten,
    "narrow": Sources._narrow,
    **dict.fromkeys(("split", "split_with_sizes"), Sources._split),
    **dict.fromkeys(("zeros", "ones", "empty", "new_zeros", "new_ones", "new_empty"), Sources._made),
    **dict.fromkeys(("zeros_like", "ones_like", "empty_like", "full_like"), Sources._made_alike),
    "chunk": Sources._chunk,
    "unbind": Sources._unbind,
    "roll": Sources._roll,
    "pad": Sources._pad,
    **dict.fromkeys(("view_as", "reshape_as", "expand_as"), Sources._like),
    "__getitem__": Sources._index,
    "scaled_dot_product_attention": Sources._attention,
}
