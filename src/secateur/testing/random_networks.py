"""Random networks: one integer is one network, wired at random from the parts of ``random_image_parts`` and
``random_token_parts`` over a pool of live tensors.

A failure is a seed, and :func:`shrunk` finds the fewest parts that still fail. Every part draws from a generator of its
own, so that leaving one out changes nothing in the others but what they are fed with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.testing import random_image_parts, random_token_parts
from secateur.testing.random_parts import Draw, Part, Unfit

PARTS: list[type[Part]] = [*random_image_parts.PARTS, *random_token_parts.PARTS]


class RandomNetwork(nn.Module):
    """Parts in a row, each fed from a pool of tensors; whatever nobody reads is pooled and joined by the head.

    Attributes:
        wires: per part, which tensors of the pool it reads.
        ends: the tensors that no part reads.
    """

    def __init__(self, stems: Sequence[nn.Module], parts: Sequence[nn.Module], wires: Sequence[tuple[int, ...]]):
        super().__init__()
        self.stems, self.parts, self.wires = nn.ModuleList(stems), nn.ModuleList(parts), tuple(wires)
        read = {k for wire in wires for k in wire}
        self.ends = tuple(k for k in range(len(stems) + len(parts)) if k not in read)
        self.head: nn.Module = nn.Identity()

    def pool(self, *inputs: Tensor) -> list[Tensor]:
        """Every tensor that lives: the inputs behind their stems, then the result of each part."""
        found = [stem(x) for stem, x in zip(self.stems, inputs, strict=True)]
        for part, wire in zip(self.parts, self.wires, strict=True):
            found.append(part(*(found[k] for k in wire)))
        return found

    def forward(self, *inputs: Tensor) -> Tensor:
        """An image (batch, 3, 8, 8) and tokens (batch, 9, 6) to (batch, 5)."""
        found = self.pool(*inputs)
        return self.head(torch.cat([_pooled(found[k]) for k in self.ends], 1))


def _pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3)) if x.dim() == 4 else x.mean(1)


@dataclass(frozen=True)
class Sample:
    """A network in training mode, example inputs of batch 1, and the numbers of the parts that it is made of."""

    model: RandomNetwork
    inputs: tuple[Tensor, ...]
    steps: tuple[int, ...]

    def __str__(self) -> str:
        pairs = enumerate(zip(self.model.parts, self.model.wires), len(self.inputs))
        return "\n".join(f"{k}: {part} <- {wire}" for k, (part, wire) in pairs)


def random_network(seed: int, steps: Sequence[int] | None = None) -> Sample:
    """The network of a seed.

    Args:
        seed: decides everything.
        steps: which of its parts to build; all of them by default.
    """
    draw = random.Random(seed)
    count = draw.randint(3, 12)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        inputs = (torch.randn(1, 3, 8, 8), torch.randn(1, 9, 6))
        own = Draw(seed * 1000 + 999)
        stems = [own.conv(3, own.width()), own.linear(6, own.width())]
        live: list[Tensor] = [stem.eval()(x) for stem, x in zip(stems, inputs)]
        parts, wires, built = [], [], []
        for step in range(count) if steps is None else steps:
            own = Draw(seed * 1000 + step)
            torch.manual_seed(seed * 1000 + step)
            part, wire = _part(own, live)
            live.append(part.eval()(*(live[k] for k in wire)))
            parts.append(part)
            wires.append(wire)
            built.append(step)
        model = RandomNetwork(stems, parts, wires)
        model.head = nn.Linear(sum(_pooled(live[k]).shape[1] for k in model.ends), 5)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                assert module.running_var is not None
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 1.5)
    return Sample(model.train(), inputs, tuple(built))


def _part(draw: Draw, live: list[Tensor]) -> tuple[Part, tuple[int, ...]]:
    """A random part that fits tensors of the pool, preferably young ones."""
    while True:
        kind = draw.one_of(*PARTS)
        wire = tuple(_young(draw, live) for _ in range(draw.one_of(*kind.arity)))
        try:
            return kind(draw, *(live[k] for k in wire)), wire
        except Unfit:
            continue


def _young(draw: Draw, live: list[Tensor]) -> int:
    return len(live) - 1 - min(draw.geometric(0.5), len(live) - 1)


def shrunk(seed: int, fails: Callable[[Sample], bool]) -> Sample:
    """The network of a seed with as few parts as still fail.

    Args:
        fails: what is looked for; it may raise, which counts as no.
    """
    best = random_network(seed)
    smaller = True
    while smaller:
        smaller = False
        for step in best.steps:
            candidate = random_network(seed, [k for k in best.steps if k != step])
            if fails(candidate):
                best, smaller = candidate, True
                break
    return best
