"""Knowledge distillation: train a network on what another one says, beside the labels.

Paper: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531; weights and
temperature of Dong, Yang, "Network Pruning via Transformable Architecture Search", NeurIPS 2019, arXiv 1905.09717.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur._errors import UsageError
from secateur.graph.capture import as_call
from secateur.graph.trees import copied
from secateur.measure import evaluation_mode
from secateur.training.gradients import Objective
from secateur.training.schedule import TrainConfig

SHARE = 0.9
TEMPERATURE = 4.0


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    share: float = SHARE,
    temperature: float = TEMPERATURE,
    label_smoothing: float = 0.0,
) -> Tensor:
    """``(1 - share) CE(student, labels) + share T^2 KL(softmax(teacher / T) || softmax(student / T))``, batch means.

    Args:
        student, teacher: logits, shape ``[batch, classes]``.
        labels: shape ``[batch]``.
        share: of the teacher, from 0 to 1 (lambda in the paper).
        temperature: T, above 0; its square keeps the gradient of the second part at the size of the first.
    """
    hard = F.cross_entropy(student, labels, label_smoothing=label_smoothing)
    soft = F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.log_softmax(teacher / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - share) * hard + share * temperature**2 * soft


def distillation(
    teacher: nn.Module, *, share: float = SHARE, temperature: float = TEMPERATURE, label_smoothing: float = 0.0
) -> Objective:
    """An objective for :func:`secateur.training.fit`: learn from the labels and from a teacher.

    The teacher is copied; it runs in evaluation mode and no gradient reaches it.

    Args:
        share, temperature, label_smoothing: see :func:`distillation_loss`.

    Raises:
        UsageError: numbers out of range, all of them at once.
    """
    problems = []
    if not 0 <= share <= 1:
        problems.append(f"share={share!r} of the teacher has to be from 0 to 1")
    if not temperature > 0:
        problems.append(f"temperature={temperature!r} has to be above 0")
    if problems:
        raise UsageError("\n".join(["this distillation does not work:", *problems]))
    wise = copy.deepcopy(teacher).eval().requires_grad_(False)

    def objective(model: nn.Module, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        logits = _logits(model(x))
        if next(wise.parameters()).device != logits.device:
            wise.to(logits.device)
        with torch.no_grad():
            told = _logits(wise(x))
        return distillation_loss(logits, told, y, share, temperature, label_smoothing), logits

    return objective


@dataclass(frozen=True)
class Tutor:
    """A teacher with a name, as a recovery is given it.

    Attributes:
        name: for the card.
        network: what teaches.
    """

    name: str
    network: nn.Module
    share: float = SHARE
    temperature: float = TEMPERATURE

    def objective(self, config: TrainConfig) -> Objective:
        """See :func:`distillation`; the labels are smoothed as the configuration says."""
        return distillation(
            self.network, share=self.share, temperature=self.temperature, label_smoothing=config.label_smoothing
        )

    def settings(self) -> dict[str, Any]:
        """As a card says it."""
        return {"teacher": self.name, "teacher_share": self.share, "teacher_temperature": self.temperature}


def check_teacher(teacher: nn.Module, student: nn.Module, example_inputs: Any) -> None:
    """Refuse a teacher that cannot teach this network.

    Args:
        example_inputs: as ``trace`` takes them.

    Raises:
        UsageError: the teacher does not take the inputs, or has other classes.
    """
    call = as_call(example_inputs)
    with torch.no_grad(), evaluation_mode(teacher), evaluation_mode(student):
        wanted = tuple(_logits_of(student, call).shape)
        try:
            found = tuple(_logits_of(teacher, call).shape)
        except (RuntimeError, TypeError, ValueError) as error:
            raise UsageError(
                f"the teacher does not run on the example input: {str(error).splitlines()[0]}\n"
                "take a teacher for the same data, or --teacher dense"
            ) from None
    if found != wanted:
        raise UsageError(
            f"the teacher does not match the classes: it gives outputs of shape {found}, the network {wanted}\n"
            f"take a teacher that was trained for the same {wanted[-1]} classes, or --teacher dense"
        )


def _logits_of(model: nn.Module, call: tuple[tuple, dict]) -> Tensor:
    args, kwargs = copied(call)
    return _logits(model(*args, **kwargs))


def _logits(out: Any) -> Tensor:
    # Models of transformers give their logits by name.
    return getattr(out, "logits", out)
