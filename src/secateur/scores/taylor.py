"""``taylor``: what would the loss lose without a unit, to first order?

Source: Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural Network Pruning", CVPR 2019, arXiv
1906.10771, equation 8: the squared sum of weight times gradient over the parameters of a unit, averaged over batches.
The parameters are the filters and the norms that produce the unit. The model runs in evaluation mode, so that batch
statistics do not mix the images.
"""

from __future__ import annotations

import itertools

import torch
from torch.nn import functional as F

from secateur._errors import UsageError
from secateur.graph import PruningGraph
from secateur.scores.criterion import Inputs, Scores, criterion, rows


@criterion("taylor", "squared weight times gradient, summed over each unit (Molchanov 2019)", needs_data=True)
def taylor(graph: PruningGraph, inputs: Inputs) -> Scores:
    model, loss = graph.model, inputs.loss or F.cross_entropy
    parameters = dict(model.named_parameters())
    chosen = {
        g.name: [m for m in g.members if m.tensor in parameters and m.role != "in"] or list(g.members)
        for g in graph.prunable
    }
    if not chosen:
        return {}
    wanted = {m.tensor for members in chosen.values() for m in members}
    device = next(iter(parameters.values())).device
    modes = [(m, m.training) for m in model.modules()]
    grads = [(p, p.requires_grad, p.grad) for p in parameters.values()]
    scores: Scores = {g.name: torch.zeros(g.width, dtype=torch.float64) for g in graph.prunable}
    count = 0
    try:
        model.eval()
        for name, p in parameters.items():
            p.requires_grad_(name in wanted)
        for x, y in itertools.islice(inputs.data or (), inputs.batches):
            with torch.enable_grad():
                value = loss(model(x.to(device)), y.to(device))
            names = sorted(wanted)
            found = torch.autograd.grad(value, [parameters[n] for n in names], allow_unused=True)
            products = {n: parameters[n].detach() * g for n, g in zip(names, found) if g is not None}
            for group, members in chosen.items():
                total = sum(rows(products[m.tensor], m).sum(1) for m in members if m.tensor in products)
                if isinstance(total, torch.Tensor):
                    scores[group] += total.square().cpu()
            count += 1
    finally:
        for module, mode in modes:
            module.training = mode
        for p, needed, grad in grads:
            p.requires_grad_(needed)
            p.grad = grad
    if not count:
        raise UsageError("'taylor' got no batch of data: pass data= with at least one batch (x, y)")
    return {name: s / count for name, s in scores.items()}
