"""An optimiser goes on behind the cut exactly where it stood."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.graph import PruningGraph
from secateur.surgery import cut, make_plan, rebuild_optimizer
from secateur.surgery.cut import shrunk
from secateur.surgery.pool import Pool
from surgery.small_cnn import KEEP, SmallCNN

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-6),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.05, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, example: Tensor, steps: int) -> None:
    """A few steps on any loss."""
    for _ in range(steps):
        optimizer.zero_grad()
        model(example).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_kept_entry_goes_on_exactly(model: SmallCNN, graph: PruningGraph, example: Tensor, name: str):
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, example, 3)
    plan = make_plan(graph, KEEP)
    small = cut(model, plan)
    rebuilt = rebuild_optimizer(optimizer, model, small, plan)
    assert type(rebuilt) is type(optimizer)
    pairs = [(n, p, dict(small.named_parameters())[n]) for n, p in model.named_parameters()]
    for n, old, new in pairs:
        for key, value in optimizer.state[old].items():
            got = rebuilt.state[new][key]
            want = shrunk(n, value, plan, Pool()) if isinstance(value, Tensor) and value.shape == old.shape else value
            assert torch.equal(torch.as_tensor(got), torch.as_tensor(want)), (n, key)
    # All of these work number by number, so the same gradients must give the same numbers, step after step.
    for _ in range(3):
        for n, old, new in pairs:
            old.grad = torch.randn_like(old)
            new.grad = shrunk(n, old.grad, plan, Pool())
        optimizer.step()
        rebuilt.step()
    for n, old, new in pairs:
        assert torch.equal(new, shrunk(n, old.detach(), plan, Pool())), n


def test_settings_of_every_parameter_group_stay(model: SmallCNN, graph: PruningGraph, example: Tensor):
    groups = [
        {"params": list(model.fc.parameters()), "lr": 0.5},
        {"params": [*model.conv1.parameters(), *model.conv2.parameters()], "weight_decay": 0.01},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    train(model, optimizer, example, 2)
    optimizer.param_groups[1]["lr"] = 0.025
    plan = make_plan(graph, KEEP)
    small = cut(model, plan)
    rebuilt = rebuild_optimizer(optimizer, model, small, plan)
    for old, new in zip(optimizer.param_groups, rebuilt.param_groups, strict=True):
        assert {k: v for k, v in old.items() if k != "params"} == {k: v for k, v in new.items() if k != "params"}
    owners = {id(p): n for n, p in small.named_parameters()}
    assert [owners[id(p)] for p in rebuilt.param_groups[0]["params"]] == ["fc.weight", "fc.bias"]


def test_a_fresh_optimizer_has_no_state(model: SmallCNN, graph: PruningGraph, example: Tensor):
    plan = make_plan(graph, KEEP)
    small = cut(model, plan)
    rebuilt = rebuild_optimizer(torch.optim.Adam(model.parameters()), model, small, plan)
    assert not rebuilt.state
    train(small, rebuilt, example, 1)


def test_state_is_copied(model: SmallCNN, graph: PruningGraph, example: Tensor):
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, example, 2)
    before = {n: optimizer.state[p]["exp_avg"].clone() for n, p in model.named_parameters()}
    plan = make_plan(graph, KEEP)
    small = cut(model, plan)
    rebuilt = rebuild_optimizer(optimizer, model, small, plan)
    train(small, rebuilt, example, 2)
    assert all(torch.equal(optimizer.state[p]["exp_avg"], before[n]) for n, p in model.named_parameters())
    assert all(int(optimizer.state[p]["step"]) == 2 for p in model.parameters())


def test_a_foreign_parameter_is_refused(model: SmallCNN, graph: PruningGraph):
    plan = make_plan(graph, KEEP)
    stranger = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*model.parameters(), *stranger.parameters()], lr=0.1)
    with pytest.raises(UsageError, match="2 parameters that are not of this model"):
        rebuild_optimizer(optimizer, model, cut(model, plan), plan)
