"""What cannot be traced, said before or instead of a traceback."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from secateur._errors import InputError, UsageError
from secateur.graph.clone import Mould
from secateur.graph.trees import tensors

#: Modules that only wrap another one, by the name of their class (importing some of them takes seconds), with the
#: attribute that holds the other one.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
}
_MOST_NAMES = 3
#: Types of tensors with nothing odd about them.
_PLAIN = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))


def admitted(model: Any) -> Mould:
    """The model, taken apart to be copied; what cannot be traced or cut is refused, with all reasons at once.

    Raises:
        UsageError: it is no ``nn.Module``.
        InputError: it is, or holds, a TorchScript module, an exported program, a compiled or parallel wrapper, a lazy
            parameter, or a parameter that consists of others (``fully_shard``).
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"trace takes an nn.Module, not {type(model).__name__}")
    mould = Mould(model)
    problems = [*_wrapped(mould), *_scripted(mould), *_exported(mould), *_lazy(mould), *_spread_out(mould)]
    if problems:
        raise InputError("this model cannot be traced as it is:\n" + "\n".join(problems))
    return mould


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


def _wrapped(mould: Mould) -> Iterator[str]:
    for name, module in mould.modules:
        attribute = _WRAPPERS.get(type(module).__name__)
        if attribute is not None and type(module).__module__.startswith("torch.") and hasattr(module, attribute):
            kind = "a compiled model" if attribute == "_orig_mod" else type(module).__name__
            path = f"{name}.{attribute}" if name else attribute
            yield f"{name or 'it'} is {kind}: use what it wraps (model.{path}) and wrap the cut model again"


def _scripted(mould: Mould) -> Iterator[str]:
    found = [name or "it" for name, module in mould.modules if isinstance(module, torch.jit.ScriptModule)]
    if found:
        found = found[:1] if found[0] == "it" else found
        yield f"TorchScript: {_names(found)}: use the Python module that it was made from, and script the cut model"


def _exported(mould: Mould) -> Iterator[str]:
    # Those alone have an ``eval`` of their own, which says that it cannot be called.
    found = [n or "it" for n, m in mould.modules if isinstance(m, GraphModule) and "eval" in m.__dict__]
    if found:
        yield f"an exported program: {_names(found)}: use the module that it was made from, and export the cut model"


def _lazy(mould: Mould) -> Iterator[str]:
    found = [name for name, tensor in _held(mould) if nn.parameter.is_lazy(tensor)]
    if found:
        yield f"lazy, without a shape yet: {_names(found)}: run the model once, model(*example_inputs)"


def _spread_out(mould: Mould) -> Iterator[str]:
    kinds: dict[str, list[str]] = {}
    for name, tensor in _held(mould):
        if type(tensor) not in (nn.Parameter, Tensor) and hasattr(type(tensor), "__tensor_flatten__"):
            kinds.setdefault(type(tensor).__name__, []).append(name)
    for kind, names in kinds.items():
        yield f"{kind} instead of a plain tensor: {_names(names)}: shard, quantise or convert the cut model instead"


def _held(mould: Mould) -> Iterator[tuple[str, Tensor]]:
    yield from mould.parameters.items()
    yield from mould.buffers.items()


def does_not_run(model: nn.Module, call: tuple[tuple, dict], on_meta: Exception, error: Exception) -> InputError:
    """The error that says why the model did not run on the example inputs.

    Args:
        call: positional and keyword arguments.
        on_meta: what happened on the meta device.
        error: what happened on real tensors.
    """
    if isinstance(error, InputError):
        return error
    places = {"example inputs": tensors(call), "model": _tensors_of(model)}
    absent = [what for what, found in places.items() if any(t.is_meta for t in found)]
    reason = on_meta if absent else error
    first_line = (str(reason) or "without a message").splitlines()[0]
    lines = [f"the model does not run on the example inputs: {type(reason).__name__}: {first_line}"]
    if absent:
        lines.append(f"on the meta device, which has no numbers: the {' and the '.join(absent)}")
    with contextlib.suppress(TypeError, ValueError):
        lines.append(f"forward takes: {inspect.signature(model.forward)}")
    lines.append(f"given: {_given(call)}")
    lines.append("pass what the model's forward takes: a tensor, a tuple of arguments, or a dict of keyword arguments")
    return InputError("\n".join(lines))


def _tensors_of(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _given(call: tuple[tuple, dict]) -> str:
    args, kwargs = call
    parts = [*map(_text, args), *(f"{name}={_text(value)}" for name, value in kwargs.items())]
    return ", ".join(parts) or "nothing"


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_text(item)}' for key, item in value.items())}}}"
    return repr(value) if isinstance(value, (int, float, bool, str, type(None))) else type(value).__name__


def oddity(tensor: Tensor) -> str:
    """What keeps a parameter or buffer from being cut; empty for real floating-point numbers, and for buffers of
    whole numbers that are no weights (those are masks and indices, and carry no labels at all)."""
    if tensor.dtype in _PLAIN and tensor.layout == torch.strided:
        return ""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_quantized:
        return f"is quantised ({kind})"
    if tensor.layout != torch.strided:
        return f"is sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_complex():
        return f"is complex ({kind})"
    is_weight = isinstance(tensor, nn.Parameter) or tensor.dtype in (torch.int8, torch.uint8)
    return f"holds whole numbers ({kind})" if is_weight and not tensor.is_floating_point() else ""


def elsewhere(model: nn.Module, example_inputs: Any) -> str:
    """A note on example inputs that had to be copied to the model's device; empty if none had to."""
    home = next((t.device for t in _tensors_of(model)), None)
    others = {str(t.device) for t in tensors(example_inputs) if home is not None and t.device != home}
    return f"the example inputs lie on {', '.join(sorted(others))}; they were copied to {home}" if others else ""
