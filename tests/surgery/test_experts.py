"""Experts of a mixture are units: the router, their weights and the numbers of them go together."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur._errors import PlanError
from secateur.measure import count_macs
from secateur.surgery import make_plan

TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
}
FAMILIES = {
    "mixtral": lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**TEXT, num_local_experts=6)),
    "qwen3-moe": lambda: transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(**TEXT, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16)
    ),
}


class Routed(nn.Module):
    """A router, and experts whose weights are one tensor."""

    def __init__(self, chosen: int = 2) -> None:
        super().__init__()
        self.stem, self.router, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(8, 3)
        self.weight, self.chosen = nn.Parameter(torch.randn(6, 8, 8) / 3), chosen

    def weighed(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        return scores.topk(self.chosen, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        values, experts = self.weighed(self.router(x))
        y = torch.einsum("tc,tkoc->tko", x, self.weight[experts.reshape(-1)].view(*experts.shape, 8, 8))
        return self.head((y * values.softmax(-1).unsqueeze(-1)).sum(1))


class Gathered(Routed):
    """Experts are chosen by one score and weighed by another."""

    def weighed(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        _, experts = scores.sigmoid().topk(self.chosen, dim=-1)
        return scores.gather(1, experts), experts


class Numbered(Routed):
    """The number of an expert is a value."""

    def weighed(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        values, experts = scores.topk(self.chosen, dim=-1)
        return values * (1 + experts), experts


@pytest.mark.parametrize("kind", [Routed, Gathered])
def test_experts_are_removed_exactly(kind: type[Routed]):
    model, x = kind(), torch.randn(7, 5)
    graph = sc.trace(model, x)
    group = graph["router"]
    assert (group.kind, group.width, group.least) == ("expert", 6, 2)
    assert {str(m) for m in group.members} == {"router.weight[0]", "router.bias[0]", "weight[0]"}
    for keep in ([0, 3], [1, 2, 5], [0, 1, 2, 3, 4]):
        check = sc.verify(model, make_plan(graph, {"router": keep}), x)
        assert check.exact, str(check)


def test_fewer_experts_than_are_chosen_is_refused():
    graph = sc.trace(Routed(), torch.randn(7, 5))
    with pytest.raises(PlanError, match="chooses 2"):
        make_plan(graph, {"router": [4]})
    assert not sc.trace(Routed(chosen=6), torch.randn(7, 5))["router"].locked
    assert "router" not in sc.trace(Routed(chosen=6), torch.randn(7, 5)).widths


def test_numbers_of_experts_that_are_values_lock_them():
    group = sc.trace(Numbered(), torch.randn(7, 5))["router"]
    assert group.locked
    assert "used as numbers" in group.reason


@pytest.mark.parametrize("name", FAMILIES)
def test_mixtures_of_transformers(name: str):
    torch.manual_seed(0)
    model, inputs = FAMILIES[name]().eval(), {"input_ids": torch.arange(12).view(1, 12)}
    graph = sc.trace(model, inputs)
    experts = [g.name for g in graph.prunable if g.kind == "expert"]
    assert len(experts) == 2
    plan = make_plan(graph, {experts[0]: [0, 2, 3, 5], experts[1]: [1, 4]})
    check = sc.verify(model, plan, inputs)
    assert check.exact, str(check)
    small, logits, macs = sc.cut(model, plan), {}, set()
    for way in ("eager", "batched_mm", "grouped_mm"):
        small.set_experts_implementation(way)
        macs.add(count_macs(small, inputs))
        with torch.no_grad():
            logits[way] = F.log_softmax(small(**inputs).logits, -1)
    for way in ("eager", "grouped_mm"):
        torch.testing.assert_close(logits[way], logits["batched_mm"], rtol=1e-4, atol=1e-5)
    assert macs == {graph.cost({g.name: g.kept for g in plan.groups}).macs}
