"""The registry of methods."""

from __future__ import annotations

import importlib
import re

import pytest
import torch
from torch import nn

import secateur as sc
from secateur._errors import UnknownName
from secateur.methods import REGISTRY, Evidence, find
from secateur.methods.l1 import L1


def test_the_table_is_the_registry():
    assert sc.methods() == {name: cls.summary for name, cls in REGISTRY.items()}
    assert all(name == cls.name for name, cls in REGISTRY.items())


@pytest.mark.parametrize("name", REGISTRY)
def test_every_file_names_its_paper(name: str):
    text = importlib.import_module(REGISTRY[name].__module__).__doc__ or ""
    for word in ("Paper", "Idea", "Here", "Differs"):
        assert re.search(rf"^{word}: ", text, re.MULTILINE), f"{name} does not say: {word}"
    assert re.search(r"arXiv \d{4}\.\d{4,5}", text)


def test_unknown():
    with pytest.raises(UnknownName, match="did you mean 'l1'"):
        find("l11", REGISTRY)


def test_l1_takes_the_same_share_of_every_layer():
    model = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 3))
    graph = sc.trace(model, torch.randn(1, 4))
    with torch.no_grad():
        list(model.parameters())[2].mul_(100)
    plan = sc.plan(graph, L1().judge(graph, Evidence()), sc.Budget(macs=0.3), round_to=1, ranking=L1.ranking, floor=0.0)
    shares = [plan.widths[name] / graph.widths[name] for name in graph.widths]
    assert max(shares) - min(shares) <= 1 / 20
