"""Copies of a model with other tensors in it, made in milliseconds.

``copy.deepcopy`` walks into every attribute of every module. Here modules are cloned by their dictionaries, plain
values are shared, and only what is neither (configurations, schedulers, objects that hold modules) is deep-copied.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.hooks import RemovableHandle

from secateur.graph.constants import held_tensors, is_constant, is_memory

#: What a copy may share with its original: values, and code.
_SHARED = frozenset(
    (
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        type,
        torch.dtype,
        torch.device,
        torch.Size,
        types.BuiltinFunctionType,
        types.ModuleType,
    )
)
_FILLED_LATER = frozenset((OrderedDict, dict, set))
_HOLDERS = frozenset((OrderedDict, dict, list, tuple))
_REGISTRIES = ("_parameters", "_buffers", "_modules")


def modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module once, with its path: ``named_modules`` without its generators, which take milliseconds."""
    found: list[tuple[str, nn.Module]] = []
    _walk("", model, found, set())
    return found


def _walk(path: str, module: nn.Module, found: list[tuple[str, nn.Module]], seen: set[int]) -> None:
    if id(module) in seen:
        return
    seen.add(id(module))
    found.append((path, module))
    for name, child in module._modules.items():
        if child is not None:
            _walk(f"{path}.{name}" if path else name, child, found, seen)


def parameter_of(model: nn.Module, name: str) -> Tensor | None:
    """The parameter of this name, ``None`` if there is none: ``get_parameter`` without its checks."""
    *path, own = name.split(".")
    module: nn.Module | None = model
    for part in path:
        if module is None:
            return None
        module = module._modules.get(part)
    return None if module is None else module._parameters.get(own)


def _tensors_in(modules: list[tuple[str, nn.Module]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and buffers of some modules by their first names."""
    kinds: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    seen: set[int] = set()
    for path, module in modules:
        for found, held in zip(kinds, (module._parameters, module._buffers)):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[f"{path}.{name}" if path else name] = tensor
    return kinds


def copy_with(model: nn.Module, change: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """A copy of the modules in which every parameter and buffer is ``change(name, tensor)``.

    The dense tensors are never copied. Tied tensors stay tied. Dictionaries that the model fills with tensors when it
    runs (at other sizes, maybe) are empty in the copy, and what ``compile()`` made of a module is not in it.
    """
    return Mould(model).cast(change).model


@dataclass(frozen=True)
class Copy:
    """A copy of a model.

    Attributes:
        modules: with their paths, the model itself first.
        tensors: its parameters, then its buffers, then its constants, by their first names.
    """

    modules: list[tuple[str, nn.Module]]
    tensors: dict[str, Tensor]

    @property
    def model(self) -> nn.Module:
        return self.modules[0][1]


class Mould:
    """A model taken apart once, to be copied many times.

    Attributes:
        modules: of the model, with their paths, itself first.
        parameters, buffers: by their first names.
    """

    def __init__(self, model: nn.Module):
        self.modules = modules_of(model)
        self.parameters, self.buffers = _tensors_in(self.modules)

    @property
    def model(self) -> nn.Module:
        return self.modules[0][1]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters, then buffers, then constants."""
        return {**self.parameters, **self.buffers, **self.constants}

    @functools.cached_property
    def constants(self) -> dict[str, Tensor]:
        """Tensors that modules hold without having registered them, see ``constants.py``; by their first names."""
        seen = {id(t) for held in (self.parameters, self.buffers) for t in held.values()}
        found: dict[str, Tensor] = {}
        for part in self._parts:
            for attribute, name, tensor in part.tensors:
                if id(tensor) not in seen and is_constant(part.module, attribute, tensor):
                    seen.add(id(tensor))
                    found[f"{part.path}.{name}" if part.path else name] = tensor
        return found

    @functools.cached_property
    def _parts(self) -> list[_Part]:
        return [_Part(path, module) for path, module in self.modules]

    def cast(self, change: Callable[[str, Tensor], Tensor]) -> Copy:
        """A copy, as :func:`copy_with` makes them."""
        with _handles_that_follow():
            return self._cast(change)

    def _cast(self, change: Callable[[str, Tensor], Tensor]) -> Copy:
        memo = _Memo(self._parts)
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            new = Tensor._make_subclass(nn.Parameter, change(name, parameter.detach()), parameter.requires_grad)
            if attributes := vars(parameter):
                vars(new).update(attributes)
            memo[id(parameter)] = tensors[name] = new
        for kind in (self.buffers, self.constants):
            for name, tensor in kind.items():
                memo[id(tensor)] = tensors[name] = change(name, tensor.detach())
        modules: list[tuple[str, nn.Module]] = []
        for part in self._parts:
            new = memo[id(part.module)] = _blank(part.module.__class__)
            modules.append((part.path, new))
            for _, name, tensor in part.tensors:
                if id(tensor) not in memo:
                    memo[id(tensor)] = change(f"<attribute {name}>", tensor.detach())
        for part, (_, new) in zip(self._parts, modules):
            target = new.__dict__
            target.update(part.shared)
            for name, kind in part.empty:
                target[name] = kind()
            for name, held in part.held:
                target[name] = {k: None if v is None else memo[id(v)] for k, v in held.items()}
        for part, (_, new) in zip(self._parts, modules):
            for name, value in part.other:
                new.__dict__[name] = _copied(value, memo)
        return Copy(modules, tensors)


def _blank(kind: type[nn.Module]) -> nn.Module:
    """A module without anything in it."""
    new = kind.__new__(kind)
    if isinstance(new, GraphModule):
        # Each gets a class of its own, for the code that was written for it.
        type(new).__name__, type(new).forward = kind.__name__, kind.forward
    return new


class _Part:
    """One module taken apart: what copies share, empty containers, registered tensors and modules, and the rest.

    ``tensors`` are those of the rest: the attribute, the name with the place in it, and the tensor.
    """

    __slots__ = ("empty", "held", "module", "other", "path", "shared", "tensors")

    def __init__(self, path: str, module: nn.Module):
        self.path = path
        self.module = module
        self.shared: dict[str, Any] = module.__dict__.copy()
        # What ``compile()`` made of this one; ``copy.deepcopy`` leaves it behind, too.
        self.shared.pop("_compiled_call_impl", None)
        self.empty: list[tuple[str, type]] = []
        self.held: list[tuple[str, dict[str, Any]]] = []
        self.other: list[tuple[str, Any]] = []
        self.tensors: list[tuple[str, str, Tensor]] = []
        for name, value in self.shared.items():
            kind = type(value)
            if kind in _SHARED:
                continue
            if kind in _FILLED_LATER and not value:
                self.empty.append((name, kind))
            elif name in _REGISTRIES:
                self.held.append((name, value))
            elif kind is not tuple or not _SHARED.issuperset(map(type, value)):
                if kind in _HOLDERS and any(held_tensors(name, value)) and is_memory(module, name):
                    value = _forgotten(value)
                self.other.append((name, value))
                if kind in _HOLDERS or isinstance(value, Tensor):
                    self.tensors += [(name, full, tensor) for full, tensor in held_tensors(name, value)]


def _forgotten(value: Any) -> Any:
    """What a module remembers, without the dictionaries that hold tensors: the code fills them again."""
    if isinstance(value, dict):
        return type(value)() if any(held_tensors("", value)) else value
    return [_forgotten(item) for item in value] if isinstance(value, list) else value


class _Memo(dict[int, Any]):
    """What has been copied, by the identity of the original."""

    def __init__(self, parts: list[_Part]):
        super().__init__()
        self._parts = parts

    def follows(self, value: Any) -> bool:
        """Whether what a function refers to is a part of the model, of which a copy has one of its own."""
        kind = type(value)
        if id(value) in self or kind in (types.FunctionType, types.MethodType, weakref.ReferenceType):
            return True
        return kind in _HOLDERS and id(value) in self._held

    @functools.cached_property
    def _held(self) -> frozenset[int]:
        """Identities of the containers that modules hold; those of empty ones are known from now on."""
        for part in self._parts:
            for name, _ in part.empty:
                self[id(part.module.__dict__[name])] = self[id(part.module)].__dict__[name]
        return frozenset(id(v) for part in self._parts for _, v in part.other if type(v) in _HOLDERS).union(self)


def _copied(value: Any, memo: _Memo) -> Any:
    kind = type(value)
    if kind in _SHARED:
        return value
    found = memo.get(id(value))
    if found is not None:
        return found
    if kind is dict or kind is OrderedDict:
        new = kind()
        memo[id(value)] = new
        for k, v in value.items():
            new[k] = _copied(v, memo)
        return new
    if kind is list:
        new = []
        memo[id(value)] = new
        new.extend(_copied(v, memo) for v in value)
        return new
    if kind is tuple:
        return tuple([_copied(v, memo) for v in value])
    if kind is set:
        return set(value)
    if kind is types.FunctionType:
        return _rebound(value, memo) if value.__closure__ else value
    if kind is weakref.ReferenceType:
        return value if (known := memo.get(id(value()))) is None else weakref.ref(known)
    if kind is types.MethodType:
        owner = value.__self__
        inside = not isinstance(owner, (nn.Module, type))
        return types.MethodType(value.__func__, _copied(owner, memo) if inside else memo.get(id(owner), owner))
    if kind is functools.partial:
        keywords = {k: _copied(v, memo) for k, v in value.keywords.items()}
        return functools.partial(_copied(value.func, memo), *[_copied(v, memo) for v in value.args], **keywords)
    return deep_copy(value, memo)


def _rebound(function: types.FunctionType, memo: _Memo) -> types.FunctionType:
    """A function that is written inside of another one, with copies of the parts of the model that it refers to."""
    memo[id(function)] = function
    cells = function.__closure__ or ()
    new = tuple([_rebound_cell(cell, memo) for cell in cells])
    if all(a is b for a, b in zip(new, cells)):
        return function
    bound = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, new)
    for name in (*functools.WRAPPER_ASSIGNMENTS, "__kwdefaults__"):
        setattr(bound, name, getattr(function, name))
    vars(bound).update(vars(function))
    memo[id(function)] = bound
    return bound


def _rebound_cell(cell: types.CellType, memo: _Memo) -> types.CellType:
    try:
        value = cell.cell_contents
    except ValueError:
        # The name is not bound yet.
        return cell
    if not memo.follows(value) or (new := _copied(value, memo)) is value:
        return cell
    return types.CellType(new)


@contextlib.contextmanager
def _handles_that_follow() -> Iterator[None]:
    """The copy of a hook's handle belongs to the copy of the hook; PyTorch's own cannot even be copied once more."""
    RemovableHandle.__deepcopy__ = _copied_handle  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del RemovableHandle.__deepcopy__  # type: ignore[attr-defined]


def _copied_handle(handle: RemovableHandle, memo: _Memo) -> RemovableHandle:
    def follow(hooks: Any) -> Any:
        return hooks if (held := hooks()) is None else weakref.ref(_copied(held, memo))

    new = memo[id(handle)] = RemovableHandle.__new__(RemovableHandle)
    new.id = handle.id
    new.hooks_dict_ref = follow(handle.hooks_dict_ref)
    # Empty ones hold nothing of this hook, and copies begin with others.
    new.extra_dict_ref = tuple([follow(hooks) for hooks in handle.extra_dict_ref if hooks()])
    return new


def deep_copy(value: Any, memo: dict[int, Any]) -> Any:
    """What ``copy.deepcopy`` gives, without its detour for every plain value that an object holds."""
    kind = type(value)
    if isinstance(value, Tensor) and not value.is_leaf:
        # What a hook kept of the last call: nobody trains through it, and PyTorch refuses to copy it.
        value = value.detach()
    if not _is_its_attributes(kind):
        return copy.deepcopy(value, memo)
    found = memo.get(id(value))
    if found is None:
        found = memo[id(value)] = object.__new__(kind)
        held = {name: v if type(v) in _SHARED else deep_copy(v, memo) for name, v in vars(value).items()}
        vars(found).update(held)
    return found


@functools.lru_cache(4096)
def _is_its_attributes(kind: type) -> bool:
    """Whether an object of a class is copied by its attributes alone."""
    own = all(getattr(kind, name) is getattr(object, name) for name in ("__reduce__", "__reduce_ex__", "__new__"))
    state = getattr(kind, "__getstate__", None) is getattr(object, "__getstate__", None)
    other = any(hasattr(kind, name) for name in ("__deepcopy__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"))
    slots = any("__slots__" in vars(base) for base in kind.__mro__)
    return own and state and not other and not slots and kind.__dictoffset__ != 0
