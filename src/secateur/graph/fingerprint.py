"""Which network is this? A plan made for one must not be applied to another."""

from __future__ import annotations

import hashlib
from operator import itemgetter

from torch import nn

from secateur.graph.clone import Mould


def fingerprint(model: nn.Module | Mould) -> str:
    """A hash of the names and shapes of everything in the model, and of its class.

    Buffers that are not saved are left out: some models fill them at their first run.
    """
    mould = model if isinstance(model, Mould) else Mould(model)
    fleeting = {
        f"{path}.{name}" if path else name
        for path, module in mould.modules
        for name in module._non_persistent_buffers_set
    }
    kinds = mould.parameters, mould.buffers
    shapes = [(name, tensor.shape) for kind in kinds for name, tensor in kind.items() if name not in fleeting]
    # A network has few different shapes, and writing one takes longer than looking it up.
    text = {shape: str(tuple(shape)) for _, shape in shapes}
    parts = [name + text[shape] for name, shape in sorted(shapes, key=itemgetter(0))]
    return hashlib.sha256("".join([type(mould.model).__name__, *parts]).encode()).hexdigest()[:16]
