"""Is what is cut at random what is masked, and does it cost what was foretold? For any model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from secateur.graph import PruningGraph, trace
from secateur.surgery import Plan, cut, make_plan, verify


def random_plan(graph: PruningGraph, seed: int, least: int = 1) -> Plan:
    """Keep from ``least`` units to all but one of every group that has more."""
    rng = np.random.default_rng(seed)
    floors = {g.name: max(least, g.least) for g in graph.prunable}
    some = {g.name: rng.integers(floors[g.name], g.width) for g in graph.prunable if g.width > floors[g.name]}
    keep = {name: rng.choice(graph[name].width, count, replace=False).tolist() for name, count in some.items()}
    return make_plan(graph, keep)


def call(model: nn.Module, example: Any) -> Any:
    """The model's output on example inputs: a tensor, a tuple of arguments, or a dict of keyword arguments."""
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def counted(model: nn.Module, example: Any) -> tuple[int, int]:
    """(MACs, parameters) by PyTorch's own counter, which does not see into fused kernels."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    (own_kernels, *_) = torch.backends.mkldnn.set_flags(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            call(model.eval(), example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        torch.backends.mkldnn.set_flags(own_kernels)
    return counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())


def cut_problem(model: nn.Module, example: Any, seeds: int = 2) -> str:
    """What is wrong with random cuts of a model: an error, an inexact cut, a cost that was foretold wrongly.

    Args:
        seeds: how many random plans to try.

    Returns:
        One line; empty if nothing is wrong.
    """
    stage = "trace"
    try:
        graph = trace(model, example)
        for seed in range(seeds):
            stage = f"plan {seed}"
            # Of an axis of one, einsum makes a pointwise product, which PyTorch's counter does not count.
            plan = random_plan(graph, seed, least=2 - seed % 2)
            stage = f"verify {seed}"
            check = verify(model, plan, example)
            if not check.exact:
                return f"{stage}: {check} {plan.keep}"
            if seed % 2:
                continue
            stage = f"cost {seed}"
            cost, real = graph.cost(plan.widths), counted(cut(model, plan), example)
            if (cost.macs, cost.params) != real:
                return f"{stage}: foretold {(cost.macs, cost.params)}, counted {real} {plan.keep}"
    except Exception as error:
        return f"{stage}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""
