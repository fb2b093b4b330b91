"""How large a model is: bytes, parameters, and multiply-accumulates by PyTorch's own counter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from secateur.measure.inputs import Inputs, as_call, in_own_containers
from secateur.measure.modes import evaluation_mode


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, a tied one counted once."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def count_parameters(model: nn.Module) -> int:
    """Numbers in all parameters, frozen ones too, a tied one counted once."""
    return sum(p.numel() for p in model.parameters())


def _grouped_flops(a: Sequence[int], b: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """Of the products by which mixtures of experts compute, each for its rows or its columns. PyTorch counts none."""
    own_columns = len(a) == 3 and len(b) == 2
    return 2 * math.prod(a[1:] if own_columns else a) * b[-1]


def count_macs(model: nn.Module, example_inputs: Inputs) -> int:
    """Multiply-accumulates of convolutions and matrix products in one call: half of PyTorch's flop count.

    It watches the operations that really run, so it is independent of any formula over layer widths. Fused kernels
    that the counter does not know (the attention fast path, the CPU's recurrent kernels) are switched off for the
    call, so that their matrix products are seen.

    Args:
        example_inputs: the batch size counts; use a batch of one for the usual figure.
    """
    args, kwargs = as_call(example_inputs)
    # The counter hangs a hook on whatever needs a gradient, and fails on a view of a parameter that is handed on.
    trained = [p for p in model.parameters() if p.requires_grad]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: _grouped_flops})
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with ExitStack() as stack:
            stack.enter_context(evaluation_mode(model))
            stack.enter_context(torch.no_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            # Setting any oneDNN flag makes PyTorch warn about TF32 on Intel GPUs, which is beside the point here.
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(counter)
            for p in trained:
                p.requires_grad_(False)
            args, kwargs = in_own_containers((args, kwargs))
            model(*args, **kwargs)
    finally:
        for p in trained:
            p.requires_grad_(True)
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return counter.get_total_flops() // 2
