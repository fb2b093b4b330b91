"""What takes the place of a residual block that is left out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from secateur.graph import PruningGraph
from secateur.graph.blocks import Block
from secateur.graph.groups import roles
from secateur.graph.labels import compressed, varying
from secateur.graph.trees import tensors


class Skip(nn.Module):
    """Gives back what it works on: the first tensor among its arguments."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return tensors((args, kwargs))[0]


def silenced(graph: PruningGraph, block: Block) -> tuple[str, ...]:
    """The parameters that make what a block adds; with these at zero it adds nothing.

    They are those of the block that lie on the stream and do not only read it.
    """
    classes = graph.classes.of
    stream = {int(c) for s in block.stream for c in classes[compressed(s, varying(s)).numpy()].ravel()}
    parameters = {name for name, _ in graph.model.named_parameters()}
    found = dict.fromkeys(
        axis.tensor
        for axis, role in zip(graph.ledger.axes, roles(graph.ledger))
        if role != "in"
        and axis.tensor in parameters
        and axis.tensor.startswith(f"{block.name}.")
        and stream.issuperset(classes[axis.start : axis.start + axis.size].tolist())
    )
    return tuple(found)
