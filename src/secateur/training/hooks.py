"""Where a method reaches into training: the moments that the loop calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn


class Hook:
    """The moments of training, all doing nothing. Subclass it, or pass any object that has some of these methods.

    A hook that carries state from step to step offers ``state_dict() -> dict`` and ``load_state_dict(dict)`` (tensors
    and JSON values under string keys); they go into the checkpoint, so that a resumed run is the same run.
    """

    def on_epoch_start(self, model: nn.Module, epoch: int) -> None:
        """Before the first batch of an epoch (0-based); the model is in training mode already."""

    def learning_rate(self, rate: float) -> None:
        """Before the first batch of an epoch: the optimiser's learning rate in it."""

    def regulariser(self, model: nn.Module) -> Tensor | None:
        """A scalar that is added to the loss of every batch, or ``None``."""
        return None

    def after_backward(self, model: nn.Module) -> None:
        """Between backward and step: the gradients are complete, unscaled and not clipped yet."""

    def after_step(self, model: nn.Module) -> None:
        """After the optimiser's step of every batch."""

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        """After the last batch of an epoch, before evaluation and checkpoint."""


MOMENTS = ("learning_rate", "on_epoch_start", "regulariser", "after_backward", "after_step", "on_epoch_end")


def call(hooks: Iterable[object], moment: str, *arguments: Any) -> None:
    """Call one moment of all hooks that have it, in order."""
    for hook in hooks:
        method = getattr(hook, moment, None)
        if method is not None:
            method(*arguments)


def regularisers(hooks: Iterable[object], model: nn.Module) -> list[Tensor]:
    """What the hooks add to the loss."""
    found = (hook.regulariser(model) for hook in hooks if hasattr(hook, "regulariser"))  # pyright: ignore[reportAttributeAccessIssue]
    return [term for term in found if term is not None]


def state_of(hooks: Iterable[object]) -> dict[str, dict[str, Any]]:
    """The states of the hooks that have one, by their place in the sequence."""
    return {str(i): dict(hook.state_dict()) for i, hook in enumerate(hooks) if hasattr(hook, "state_dict")}  # pyright: ignore[reportAttributeAccessIssue]


def load_state(hooks: Iterable[object], states: Mapping[str, Mapping[str, Any]]) -> None:
    """Give the hooks back what :func:`state_of` found."""
    for i, hook in enumerate(hooks):
        if str(i) in states and hasattr(hook, "load_state_dict"):
            hook.load_state_dict(states[str(i)])  # pyright: ignore[reportAttributeAccessIssue]
