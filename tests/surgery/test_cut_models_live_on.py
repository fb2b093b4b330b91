"""A cut model is an ordinary module: it is compiled, exported, copied, saved, trained, wrapped and cut again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torchvision.models as tv
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from secateur._errors import InputError
from secateur.graph import trace
from secateur.surgery import cut, load, make_plan, rebuild_optimizer, save, verify
from secateur.surgery.plan import Plan
from secateur.testing.toys import toys


@dataclass(frozen=True)
class Case:
    """A model that was cut to about half of every width, and one input."""

    dense: nn.Module
    plan: Plan
    small: nn.Module
    example: Tensor

    @property
    def fresh(self) -> nn.Module:
        """The dense architecture with other weights."""
        twin = copy.deepcopy(self.dense)
        with torch.no_grad():
            for p in twin.parameters():
                p.normal_()
        return twin


def _resnet18() -> tuple[nn.Module, Tensor]:
    return tv.resnet18(num_classes=7), torch.randn(2, 3, 64, 64)


def _vit() -> tuple[nn.Module, Tensor]:
    net = tv.VisionTransformer(32, 16, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=7)
    nn.init.normal_(net.heads.head.weight)
    return net, torch.randn(2, 3, 32, 32)


TOYS = ["residual", "grouped_convolution", "flatten_linear", "layer_norm", "mha_batch_first", "transformer_encoder"]
MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {"resnet18": _resnet18, "vit": _vit}
NAMES = [*TOYS, *MODELS]


@cache
def _cut(name: str) -> Case:
    torch.manual_seed(0)
    model, example = MODELS[name]() if name in MODELS else toys()[name]
    model.eval()
    graph = trace(model, example)
    plan = make_plan(graph, {g.name: range(g.width // 2) for g in graph.prunable})
    assert plan.slices
    return Case(model, plan, cut(model, plan), example)


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    """Every model; nobody may change it, so whoever trains takes a copy."""
    return _cut(request.param)


def output(model: nn.Module, example: Tensor) -> Tensor:
    with torch.no_grad():
        return model(example)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, example: Tensor, count: int = 3) -> list[float]:
    """The losses of a few steps towards fixed random targets."""
    target = torch.randn(output(model.eval(), example).shape, generator=torch.Generator().manual_seed(1))
    model.train()
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = (model(example) - target).square().mean()
        loss.backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(loss.item())
    return losses


# -- compiled and exported -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_one_graph_when_compiled(name: str):
    """``fullgraph`` refuses any break; the code that the compiler generates is the nightly test's matter."""
    case = _cut(name)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(case.small), fullgraph=True, backend="eager")
    torch.testing.assert_close(output(compiled, case.example), output(case.small, case.example))


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["residual", "mha_batch_first", "resnet18", "vit"])
@pytest.mark.filterwarnings("ignore")
def test_compiled_to_machine_code(name: str):
    case = _cut(name)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(case.small), fullgraph=True)
    torch.testing.assert_close(output(compiled, case.example), output(case.small, case.example), rtol=1e-3, atol=1e-4)


def test_exported(case: Case):
    program = torch.export.export(case.small, (case.example,))
    torch.testing.assert_close(output(program.module(), case.example), output(case.small, case.example))
    sizes = {tuple(t.shape) for t in program.state_dict.values()}
    assert sizes == {tuple(t.shape) for t in case.small.state_dict().values()}


@pytest.mark.parametrize("name", ["residual", "mha_batch_first"])
def test_another_batch_size(name: str):
    case = _cut(name)
    larger = torch.cat([case.example, case.example.flip(0)])
    torch.testing.assert_close(output(case.small, larger)[: len(case.example)], output(case.small, case.example))


# -- copied and saved ------------------------------------------------------------------------------------------------


def test_copied(case: Case):
    twin = copy.deepcopy(case.small)
    assert torch.equal(output(twin, case.example), output(case.small, case.example))
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in case.small.parameters()}
    assert twin.secateur_plan.widths == case.plan.widths


def test_state_through_a_file_without_pickle(case: Case, tmp_path: Path):
    safetensors.torch.save_model(case.small, str(tmp_path / "state.safetensors"))
    other = cut(case.fresh, case.plan).eval()
    assert not torch.equal(output(other, case.example), output(case.small, case.example))
    missing, unexpected = safetensors.torch.load_model(other, str(tmp_path / "state.safetensors"))
    assert not missing
    assert not unexpected
    assert torch.equal(output(other, case.example), output(case.small, case.example))


def test_saved_and_loaded_into_a_fresh_instance(case: Case, tmp_path: Path):
    save(case.small, tmp_path / "run")
    loaded = load(tmp_path / "run", model=case.fresh)
    assert type(loaded) is type(case.dense)
    assert torch.equal(output(loaded, case.example), output(case.small, case.example))


# -- trained ---------------------------------------------------------------------------------------------------------


def test_trained(case: Case):
    small = copy.deepcopy(case.small)
    losses = steps(small, torch.optim.SGD(small.parameters(), lr=0.01), case.example)
    assert losses[-1] < losses[0]
    shapes = [{n: t.shape for n, t in net.state_dict().items()} for net in (small, case.small)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(output(small.eval(), case.example), output(case.small, case.example))


def test_the_optimizer_goes_on(case: Case):
    dense = copy.deepcopy(case.dense)
    before = torch.optim.AdamW(dense.parameters(), lr=1e-3)
    steps(dense, before, case.example, count=1)
    small = cut(dense, case.plan)
    after = rebuild_optimizer(before, dense, small, case.plan)
    assert all(after.state[p]["exp_avg"].shape == p.shape for p in small.parameters() if p in after.state)
    assert len(after.state) == len(before.state)
    weights = [p.detach().clone() for p in small.parameters()]
    assert all(math.isfinite(loss) for loss in steps(small, after, case.example))
    assert all(not torch.equal(p, old) for p, old in zip(small.parameters(), weights, strict=True))


@pytest.mark.parametrize("name", ["residual", "vit"])
def test_trained_when_compiled(name: str):
    case = _cut(name)
    torch._dynamo.reset()
    small = copy.deepcopy(case.small)
    compiled = torch.compile(small, fullgraph=True, backend="aot_eager")
    losses = []
    optimizer = torch.optim.SGD(small.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss = compiled(case.example).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# -- wrapped ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed(case: Case):
    small, alone = copy.deepcopy(case.small), copy.deepcopy(case.small)
    wrapped = nn.parallel.DistributedDataParallel(small)
    torch.manual_seed(0)
    losses = steps(wrapped, torch.optim.SGD(wrapped.parameters(), lr=0.01), case.example)
    torch.manual_seed(0)
    assert losses == pytest.approx(steps(alone, torch.optim.SGD(alone.parameters(), lr=0.01), case.example))
    with pytest.raises(InputError, match=r"it is DistributedDataParallel: use what it wraps \(model\.module\)"):
        trace(wrapped, case.example)


@pytest.mark.usefixtures("one_process")
def test_sharded(case: Case):
    small, alone = copy.deepcopy(case.small), copy.deepcopy(case.small)
    sharded = fully_shard(small, mesh=init_device_mesh("cpu", (1,)))
    torch.manual_seed(0)
    losses = steps(sharded, torch.optim.SGD(sharded.parameters(), lr=0.01), case.example)
    torch.manual_seed(0)
    assert losses == pytest.approx(steps(alone, torch.optim.SGD(alone.parameters(), lr=0.01), case.example))
    name = next(name for name, _ in sharded.named_parameters())
    with pytest.raises(InputError, match=f"DTensor instead of a plain tensor: {name}.*: shard, .* the cut model"):
        trace(sharded, case.example)


# -- cut again -------------------------------------------------------------------------------------------------------


def test_cut_again(case: Case):
    graph = trace(case.small, case.example)
    assert graph.widths
    assert graph.widths.items() <= case.plan.widths.items()
    plan = make_plan(graph, {g.name: range(g.width - 1) for g in graph.prunable})
    smaller = cut(case.small, plan)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in case.small.parameters())
    assert verify(case.small, plan, case.example).exact
    assert smaller.secateur_plan is plan
