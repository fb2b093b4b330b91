"""``verify``: the law. In float64 the cut model must equal the masked model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from secateur._errors import InputError, VerifyError
from secateur.graph.adapters import plain_settings
from secateur.graph.capture import as_call
from secateur.graph.clone import copy_with
from secateur.graph.luck import with_same_luck
from secateur.graph.skeleton import Dispatch, one_thread
from secateur.graph.training_parts import in_training
from secateur.graph.trees import map_tensors, output_tensors
from secateur.surgery.cut import cut
from secateur.surgery.mask import Masked, mask
from secateur.surgery.plan import Plan

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Verification:
    """The result of comparing the cut model with the masked one.

    Attributes:
        max_error: largest difference of any output number, relative to the largest output number of its tensor.
        exact: ``max_error <= 1e-9``.
        outputs: number of output numbers compared, once with the model's parameters and once with random ones.
        dtype: the precision of the comparison.
    """

    max_error: float
    exact: bool
    outputs: int
    dtype: str = "float64"

    def __str__(self) -> str:
        verdict = "exact" if self.exact else "NOT EXACT"
        return f"{verdict}: cut and masked model differ by at most {self.max_error:.1e} ({self.dtype})"

    def require(self) -> Verification:
        """Return self, or refuse.

        Raises:
            VerifyError: the cut is not exact.
        """
        if not self.exact:
            raise VerifyError(
                f"the cut model is not the masked model: they differ by {self.max_error:.3g} (allowed: {TOLERANCE:g})\n"
                "the smaller model is wrong and was not handed out\n"
                "protect the groups that are cut wrongly (protect=...), and please report the architecture"
            )
        return self


def in_double(model: nn.Module) -> nn.Module:
    """A float64 copy in evaluation mode."""
    return plain_settings(copy_with(model, lambda _, t: t.double() if t.is_floating_point() else t.clone()).eval())


class _InDouble(Dispatch):
    """Code that asks for a lower precision on its way (``x.float()`` in a norm) gets float64 all the same."""

    def passes(self, func: Any, args: tuple, kwargs: dict) -> Any:
        dtype = kwargs.get("dtype")
        if dtype is not None and dtype.is_floating_point and dtype != torch.float64:
            kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **kwargs)


def _lively(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Float inputs in float64; those that are the same everywhere would test nothing and become random."""
    if not tensor.is_floating_point():
        return tensor
    if tensor.layout != torch.strided or (tensor.numel() > 1 and bool((tensor != tensor.reshape(-1)[0]).any())):
        return tensor.detach().double()
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)


@torch.no_grad()
def stir(model: nn.Module, generator: torch.Generator) -> None:
    """Make the parameters random, in place, so that no zero or tiny one hides a wrong connection."""
    for t in model.parameters():
        if t.is_floating_point() and t.layout == torch.strided:
            noise = torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.device)
            t.copy_(noise / max(t[0].numel(), 1) ** 0.5 if t.dim() > 1 else t + 0.2 * noise)


def _even_out(model: nn.Module, call: tuple[tuple, dict]) -> None:
    """Scale the weights of layers down, in place, so that nothing they give has a spread above one on these inputs.

    Random weights let numbers grow from block to block. Where they then meet a sine or a gate, what was rounded is no
    longer small, and a cut that is exact would look as if it was not.
    """

    def scale(layer: nn.Module, args: Any, out: Any) -> Any:
        spread = _spread(out)
        if layer in left and 1 < spread < float("inf"):
            for own in layer._parameters.values():
                if own is not None:
                    # Code that asks for gradients in its forward must not notice.
                    own.data.div_(spread)
            out = out / spread
        left.discard(layer)
        return out

    left = {m for m in model.modules() if isinstance(w := m._parameters.get("weight"), Tensor) and w.dim() > 1}
    hooks = [layer.register_forward_hook(scale) for layer in left]
    try:
        with _in_precision():
            with_same_luck(model, *call)
    finally:
        for hook in hooks:
            hook.remove()


def verify(model: nn.Module, plan: Plan, example_inputs: Any) -> Verification:
    """Compare the cut model with the masked one in float64, with its own parameters and with random ones.

    Args:
        model: the dense model. What it draws at random, both draw alike, as long as they draw equally much.
        plan: made for it.
        example_inputs: as for ``trace``; constant tensors are replaced by random ones.

    Raises:
        PlanError: the plan was made for another model.
        InputError: model and example inputs lie on different devices, or have no numbers (``meta``).
    """
    _check_places(model, as_call(example_inputs))
    dense = in_double(model)
    generator = torch.Generator().manual_seed(0)
    call = map_tensors(as_call(example_inputs), lambda t: _lively(t, generator))
    results = [_compare(dense, plan, call)]
    # The copy is ours: a large model is not held twice.
    stir(dense, generator)
    _even_out(dense, call)
    results.append(_compare(dense, plan, call))
    worst, count = max(error for error, _ in results), results[0][1]
    return Verification(worst, worst <= TOLERANCE and count > 0, count)


def _check_places(model: nn.Module, call: tuple[tuple, dict]) -> None:
    homes = {t.device for t in (*model.parameters(), *model.buffers())}
    # A single number may lie on the processor, whatever it meets.
    given = {t.device for t in output_tensors(call) if t.dim()}
    both = f"the model lies on {_names(homes)}, the example inputs on {_names(given)}"
    if any(device.type == "meta" for device in homes | given):
        raise InputError(
            f"{both}\ntensors on meta have no numbers that could be compared\n"
            "verify with the loaded model and inputs of real numbers on its device"
        )
    if homes and not given <= homes:
        raise InputError(f"{both}\nmove one to the other: inputs.to(device), or model.to(device)")


def _names(devices: set[torch.device]) -> str:
    return ", ".join(sorted(map(str, devices))) or "no device"


def _spread(out: Any) -> float:
    """The standard deviation of a tensor of real numbers; 0 of anything else, and inside of a ``vmap``."""
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.numel() < 2:
        return 0.0
    return 0.0 if is_functorch_wrapped_tensor(out) else float(out.detach().std())


@contextlib.contextmanager
def _in_precision() -> Iterator[None]:
    """Everything in float64, also tensors that a forward makes for itself (``torch.zeros``)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), one_thread(), _InDouble():
            yield
    finally:
        torch.set_default_dtype(before)


def _outputs(network: nn.Module, call: tuple[tuple, dict], failed: str) -> list[Tensor]:
    try:
        return [*output_tensors(with_same_luck(network, *call))]
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        reason = (str(error) or "without a message").splitlines()[0]
        raise VerifyError(f"{failed}, so nothing is proven: {type(error).__name__}: {reason}") from error


def _compare(dense: nn.Module, plan: Plan, call: tuple[tuple, dict]) -> tuple[float, int]:
    """Largest relative error, and the number of outputs; with what runs only in training, if there is such."""
    masked, small = mask(dense, plan), cut(dense, plan)
    worst, count = _difference(masked, small, call)
    if plan.in_training is not None:
        callers = plan.in_training.callers
        masked = mask(dense, replace(plan, reads=plan.in_training.reads))
        whole = masked.model if isinstance(masked, Masked) else masked
        with _in_precision():
            # The other has run by now, and modules may count their passes.
            with_same_luck(whole, *call)
        with in_training(whole, callers), in_training(small, callers):
            error, more = _difference(masked, small, call)
        worst, count = max(worst, error), count + more
    return worst, count


def _difference(masked: nn.Module, small: nn.Module, call: tuple[tuple, dict]) -> tuple[float, int]:
    with _in_precision():
        want = _outputs(masked, call, "the masked model does not run in float64")
        got = _outputs(small, call, "the cut model does not run")
    worst, count = 0.0, 0
    if len(want) != len(got):
        return float("inf"), len(got)
    for a, b in zip(want, got):
        if a.shape != b.shape or not bool(torch.isfinite(b).all()):
            return float("inf"), count
        scale = float(a.abs().max()) if a.numel() else 0.0
        error = float((a - b).abs().max()) if a.numel() else 0.0
        worst = max(worst, error / scale if scale else error)
        count += a.numel()
    return worst, count
