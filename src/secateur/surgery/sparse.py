"""Masks: single weights set to zero and held there. No tensor becomes smaller."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from secateur._atomic import write_atomic
from secateur._errors import BudgetError, FileError, PlanError, UsageError

FILE_NAME = "masks.safetensors"


@dataclass(frozen=True, eq=False)
class Masks:
    """Which single weights stay.

    Attributes:
        keep: name of a parameter to a boolean tensor of its shape.
    """

    keep: Mapping[str, Tensor]

    @property
    def weights(self) -> int:
        """How many weights are under a mask."""
        return sum(k.numel() for k in self.keep.values())

    @property
    def kept(self) -> int:
        """How many of them stay."""
        return sum(int(k.sum()) for k in self.keep.values())

    def apply(self, model: nn.Module) -> None:
        """Set what does not stay to zero, in place.

        Raises:
            PlanError: the masks are of another model.
        """
        parameters = dict(model.named_parameters())
        wrong = [n for n, k in self.keep.items() if n not in parameters or parameters[n].shape != k.shape]
        if wrong:
            raise PlanError(f"the masks are of another model: {', '.join(wrong[:5])} are not in it in these shapes")
        with torch.no_grad():
            for name, keep in self.keep.items():
                parameters[name].mul_(keep.to(parameters[name].device))

    def applied(self, model: nn.Module) -> nn.Module:
        """A copy of the model with the masks applied."""
        masked = copy.deepcopy(model)
        self.apply(masked)
        return masked


class Hold:
    """A hook of the training loop: after every step what is masked is zero again.

    The masks are stored, not read off the zeros: a weight that passes through zero is not lost, and neither momentum
    nor weight decay brings a masked one back.
    """

    def __init__(self, masks: Masks):
        self.masks = masks

    def after_step(self, model: nn.Module) -> None:
        self.masks.apply(model)


def layers_of(model: nn.Module) -> list[str]:
    """The weights that single-weight methods look at: of all convolutions; of all linear layers if there are none.

    Raises:
        UsageError: the model has neither.
    """
    for kind in (_ConvNd, nn.Linear):
        found = [f"{name}.weight" if name else "weight" for name, m in model.named_modules() if isinstance(m, kind)]
        known = dict(model.named_parameters())
        found = [name for name in found if name in known]
        if found:
            return found
    raise UsageError("this model has no weights of convolutions or linear layers that could be masked")


def largest(scores: Mapping[str, Tensor], count: int) -> Masks:
    """Keep the ``count`` weights of the largest scores over all tensors together; of equal ones the first.

    Raises:
        BudgetError: nothing would be left, or more is asked for than there is.
    """
    flat = torch.cat([t.detach().reshape(-1) for t in scores.values()])
    if not 1 <= count <= len(flat):
        raise BudgetError(f"of {len(flat):,} weights {count:,} were to be kept: keep at least 1 and at most all")
    keep = torch.zeros(len(flat), dtype=torch.bool)
    keep[torch.argsort(flat, descending=True, stable=True)[:count]] = True
    parts = keep.split([t.numel() for t in scores.values()])
    return Masks({name: part.view(t.shape) for (name, t), part in zip(scores.items(), parts, strict=True)})


def n_of_m(scores: Mapping[str, Tensor], n: int, m: int) -> Masks:
    """Keep the ``n`` largest of every ``m`` neighbours along the input axis (axis 1); some GPUs compute 2:4 fast.

    Tensors whose input axis is no multiple of ``m`` are left whole.
    """
    keep = {}
    for name, t in scores.items():
        if t.dim() < 2 or t.shape[1] % m:
            continue
        last = t.detach().movedim(1, -1)
        best = last.unflatten(-1, (-1, m)).topk(n, dim=-1).indices
        mask = torch.zeros(*last.shape[:-1], t.shape[1] // m, m, dtype=torch.bool).scatter_(-1, best, True)
        keep[name] = mask.flatten(-2).movedim(-1, 1).contiguous()
    if not keep:
        raise UsageError(f"no weight of this model has an input axis that is a multiple of {m}: {n}:{m} masks nothing")
    return Masks(keep)


def save_masks(masks: Masks | None, folder: str | Path, weights_sha256: str) -> None:
    """Write ``masks.safetensors``; without masks none is left there from before.

    Args:
        masks: what stays.
        folder: of the saved model.
        weights_sha256: of the file of the weights that the masks lie on.

    Raises:
        FileError: it cannot be written.
    """
    path = Path(folder, FILE_NAME)
    try:
        if masks is None:
            path.unlink(missing_ok=True)
            return
        tensors = {name: keep.to("cpu", torch.uint8).contiguous() for name, keep in masks.keep.items()}
        write_atomic(path, save(tensors, {"weights_sha256": weights_sha256, "masks_sha256": _hash(tensors)}))
    except OSError as error:
        raise FileError(f"cannot write to {path}: {error.strerror or error}") from error


def load_masks(folder: str | Path, weights_sha256: str) -> Masks | None:
    """Read what :func:`save_masks` wrote; ``None`` where there is nothing.

    Raises:
        FileError: the file is truncated, was changed, belongs to other weights or is no safetensors file.
    """
    path = Path(folder, FILE_NAME)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            # It is no mapping, whatever its methods look like.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path} is truncated or is not a safetensors file: {error}") from None
    if said.get("masks_sha256") != _hash(tensors):
        raise FileError(f"{path} was changed after it was written (its hash does not match); nothing was loaded")
    if said.get("weights_sha256") != weights_sha256:
        raise FileError(f"{path} lies on other weights than those beside it; nothing was loaded")
    return Masks({name: t.bool() for name, t in tensors.items()})


def _hash(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].numpy().tobytes())
    return found.hexdigest()


def masks_of(model: Any) -> Masks | None:
    """The masks under which a model's weights are held, if it has any."""
    found = getattr(model, "secateur_masks", None)
    return found if isinstance(found, Masks) else None


def hold(model: nn.Module, masks: Masks | None) -> None:
    """Let a model remember the masks under which its weights are held.

    Raises:
        PlanError: the masks are of another model.
    """
    if masks is not None:
        masks.apply(model)
        model.secateur_masks = masks  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
