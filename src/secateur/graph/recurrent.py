"""Recurrent layers: what they begin with, and what they hand on from step to step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from secateur.graph.clone import Copy
from secateur.graph.labels import fresh
from secateur.graph.ledger import Ledger


def begin_like_input(layer: nn.RNNBase) -> None:
    """Let a recurrent layer make its first state from its input.

    PyTorch makes it from nothing, which is a constant, and constants stay real on a pass without numbers; its recurrent
    operations then refuse a mixture of devices.
    """
    forward = layer.forward

    def begun(x: Any, hx: Any = None) -> Any:
        if hx is None and isinstance(x, Tensor):
            batch = (x.shape[0 if layer.batch_first else 1],) if x.dim() == 3 else ()
            count = layer.num_layers * (2 if layer.bidirectional else 1)
            hx = x.new_zeros(count, *batch, layer.proj_size or layer.hidden_size)
            hx = (hx, x.new_zeros(count, *batch, layer.hidden_size)) if isinstance(layer, nn.LSTM) else hx
        return forward(x, hx)

    layer.__dict__["forward"] = begun


def tie_states(ledger: Ledger, skeleton: Copy) -> None:
    """Tie what a recurrent layer reads of its state to what it gives: with one step in the inputs none is handed on."""
    axes = {(axis.tensor, axis.axis): axis for axis in ledger.axes}
    for path, layer in skeleton.modules:
        if not isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):
            continue
        for name in layer._parameters:
            own = f"{path}.{name}" if path else name
            read = axes.get((own, 1)) if name.startswith("weight_hh") else None
            # A state that is projected has the width of the projection; otherwise each gate gives all of it.
            given = axes.get((own.replace("weight_hh", "weight_hr"), 0), axes.get((own, 0)))
            if read is not None and given is not None:
                state = f"the state of {path or 'the model'}"
                ledger.tie(fresh(read.start, read.size), fresh(given.start, read.size), state)
