"""From a batch to gradients: as it comes, compiled, or as a CUDA graph."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.training import hooks as hook_calls

if TYPE_CHECKING:
    from accelerate import Accelerator

Objective = Callable[[nn.Module, Any, Any], "tuple[Tensor, Tensor | None]"]
_WARM_UP = 3


class Gradients:
    """Forward and backward of one batch. The gradients of the batch before are dropped first.

    Args:
        callee: what computes the output: the model, or what wraps it.
        model: the bare model, which the hooks get.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        callee: nn.Module,
        model: nn.Module,
        trained: Sequence[nn.Parameter],
        objective: Objective,
        hooks: Sequence[object],
    ):
        self.accelerator, self.callee, self.model = accelerator, callee, model
        self.trained, self.objective, self.hooks = trained, objective, hooks
        self._mixed = accelerator.mixed_precision != "no"

    def on_epoch_start(self) -> None:
        """Before the first batch of every epoch, after the hooks."""

    def __call__(self, x: Any, y: Any) -> tuple[Tensor, Tensor | None]:
        """The loss, regularisers included, and how many labels the largest logit hits (``None``: no class indices)."""
        for parameter in self.trained:
            parameter.grad = None
        with self.accelerator.autocast() if self._mixed else nullcontext():
            loss, logits = self.objective(self.callee, x, y)
            for term in hook_calls.regularisers(self.hooks, self.model):
                loss = loss + term
        self.accelerator.backward(loss)
        return loss.detach(), _hits(logits, y)


class CapturedGradients(Gradients):
    """The same, recorded once an epoch as a CUDA graph and replayed for every batch of that shape.

    A small network launches hundreds of kernels a step that take microseconds each; a graph launches them at once.
    The update of the weights and the hooks stay outside, so what they do in Python is done at every step.
    """

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._graph: torch.cuda.CUDAGraph | None = None

    def on_epoch_start(self) -> None:
        # A hook may have put other tensors into the model.
        if self.hooks:
            self._graph = None

    def __call__(self, x: Any, y: Any) -> tuple[Tensor, Tensor | None]:
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise UsageError("compiled=True takes batches of one tensor and its targets\ntrain with compiled=False")
        if self._graph is None:
            self._record(x, y)
        assert self._graph is not None
        if x.shape != self._x.shape or y.shape != self._y.shape:
            return super().__call__(x, y)
        self._x.copy_(x)
        self._y.copy_(y)
        for parameter, gradient in zip(self.trained, self._gradients):
            parameter.grad = gradient
        self._graph.replay()
        return self._loss.clone(), None if self._correct is None else self._correct.clone()

    def _record(self, x: Tensor, y: Tensor) -> None:
        self._x, self._y = x.clone(), y.clone()
        present, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        buffers = [(b, b.clone()) for b in self.model.buffers()]
        aside.wait_stream(present)
        cudnn = torch.backends.cudnn
        chosen, cudnn.benchmark = cudnn.benchmark, not cudnn.deterministic
        try:
            # Libraries set themselves up in the first calls; neither statistics nor random numbers may move by it.
            with torch.random.fork_rng(devices=[x.device]), torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    super().__call__(self._x, self._y)
            present.wait_stream(aside)
            for buffer, before in buffers:
                buffer.copy_(before)
            # Gradients that are born inside the graph keep their place in memory.
            for parameter in self.trained:
                parameter.grad = None
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._loss, self._correct = super().__call__(self._x, self._y)
        except RuntimeError as error:
            raise UsageError(
                f"this network cannot be recorded as a CUDA graph: {error}\ntrain it with compiled=False"
            ) from error
        finally:
            cudnn.benchmark = chosen
        self._graph = graph
        self._gradients = [p.grad for p in self.trained]


def gradients(
    compiled: bool,
    accelerator: Accelerator,
    callee: nn.Module,
    model: nn.Module,
    trained: Sequence[nn.Parameter],
    objective: Objective,
    hooks: Sequence[object],
) -> Gradients:
    """What takes the steps of one run.

    Args:
        compiled: on CUDA a graph, where neither a loss scaler nor a regulariser, which is Python, stands against it;
            on the CPU ``torch.compile``.

    Raises:
        UsageError: there is no C++ compiler for the CPU.
    """
    if not compiled:
        return Gradients(accelerator, callee, model, trained, objective, hooks)
    if accelerator.device.type == "cuda":
        regularised = any(
            getattr(type(h), "regulariser", None) not in (None, hook_calls.Hook.regulariser) for h in hooks
        )
        python = regularised or accelerator.scaler is not None or accelerator.num_processes > 1
        kind = Gradients if python else CapturedGradients
        return kind(accelerator, callee, model, trained, objective, hooks)
    if not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")):
        raise UsageError("compiled=True needs a C++ compiler on the CPU, and there is none\ntrain with compiled=False")
    # The last batch of an epoch may be shorter: one more fixed shape is faster than shapes that may vary.
    fixed: Any = torch.compile(callee, dynamic=False)
    return Gradients(accelerator, fixed, model, trained, objective, hooks)


def _hits(logits: Tensor | None, y: Any) -> Tensor | None:
    if logits is None or not isinstance(y, Tensor) or y.is_floating_point() or logits.ndim != y.ndim + 1:
        return None
    return (logits.detach().argmax(1) == y).sum()
