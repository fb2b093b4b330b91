"""Stacks of equal residual blocks, of which the first so many stay, and the blend of what comes out after each number.

Paper: TAS (arXiv 1905.09717). What leaves a stack is the sum, over all candidate numbers of blocks, of their weights
times what comes out after so many. The blocks of a stack share one width, so nothing has to be interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.graph import PruningGraph
from secateur.graph.trees import tensors


@dataclass(frozen=True)
class Stack:
    """Residual blocks of one shape, one after another in one module.

    Attributes:
        name: path of that module; where it holds several stacks, their first and last block.
        blocks: paths of those that can be left out, in order.
        fixed: how many blocks stand before them and always stay (one that changes the shape, say).
        kept: candidates: how many of ``blocks`` stay, ascending; the last is all of them.
    """

    name: str
    blocks: tuple[str, ...]
    fixed: int
    kept: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """The candidates with the blocks that always stay."""
        return tuple(self.fixed + k for k in self.kept)

    def dropped(self, choice: int) -> tuple[str, ...]:
        """The blocks that candidate number ``choice`` leaves out."""
        return self.blocks[self.kept[choice] :]


def depths(blocks: int) -> tuple[int, ...]:
    """Candidate numbers of blocks, of so many: all of them up to three, else 1, 3, 5 … and the last (released code)."""
    return tuple(range(1, blocks + 1)) if blocks <= 3 else tuple(sorted({*range(1, blocks + 1, 2), blocks}))


def stacks(graph: PruningGraph) -> tuple[Stack, ...]:
    """The stacks of a traced network, those of a single possible depth left out."""
    runs: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for block in graph.blocks:
        if not graph.is_skipped(block.name):
            runs.setdefault((block.stack, block.shape), []).append(block.name)
    found = []
    for (path, _), names in runs.items():
        holder = graph.model.get_submodule(path)
        children = [f"{path}.{n}" if path else n for n, _ in holder.named_children()]
        # In a list of blocks, what stands before the first of them is one as well; elsewhere it may be anything.
        listed = isinstance(holder, (nn.Sequential, nn.ModuleList))
        before = children.index(names[0]) if listed and names[0] in children else 0
        fixed = 1 if before else 0
        counts = depths(len(names) + fixed)
        if len(counts) > 1:
            alone = sum(other == path for other, _ in runs) == 1
            name = (path or "(model)") if alone else f"{names[0]} to {names[-1].rpartition('.')[2]}"
            found.append(Stack(name, tuple(names), fixed, tuple(c - fixed for c in counts)))
    return tuple(found)


class BlendedDepth:
    """Watches the blocks of a stack and blends what leaves it, until :meth:`remove`.

    Attributes:
        weights: of every candidate in the next pass, shape ``[candidates]``; or the number of one candidate.
    """

    def __init__(self, model: nn.Module, stack: Stack):
        self.stack = stack
        self.weights: Tensor | int = len(stack.kept) - 1
        self._seen: list[Tensor] = []
        self._handles: list[Any] = []
        first, last = stack.blocks[0], stack.blocks[-1]
        handle = model.get_submodule(first).register_forward_pre_hook(self._enter, with_kwargs=True)
        self._handles.append(handle)
        for name in stack.blocks:
            hook = self._leave if name == last else self._pass
            self._handles.append(model.get_submodule(name).register_forward_hook(hook))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:

        self._seen = [tensors((args, kwargs))[0]]

    def _pass(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._seen.append(output)

    def _leave(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen, self._seen = [*self._seen, output], []
        outputs: Sequence[Tensor] = [seen[k] for k in self.stack.kept]
        if isinstance(self.weights, int):
            return outputs[self.weights]
        weights = self.weights.to(output.device, output.dtype)
        blended = outputs[0] * weights[0]
        for weight, y in zip(weights[1:], outputs[1:]):
            blended = blended + weight * y
        if blended.requires_grad and _is_channels_last(blended):
            # A gradient that comes through a shortcut may lie in another order, and every block would pay for that.
            blended.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        return blended


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
