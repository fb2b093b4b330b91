"""What every method owes its callers, as a test that ships: :func:`check_method`."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.budget import RANKINGS, Budget, Goal
from secateur.budget import plan as make_plan
from secateur.graph import PruningGraph, trace
from secateur.methods import Evidence, Method, WeightMethod
from secateur.scores import Scores
from secateur.surgery import Hold, Masks, Plan, cut, load, save, verify
from secateur.testing.toys import Image, Residual, conv_bn

BUDGETS = (Budget(macs=0.7), Budget(macs=0.45), Budget(params=0.5))


class Plain(Image):
    """Three convolutions in a row."""

    def __init__(self) -> None:
        super().__init__(10)
        self.a, self.b, self.c = conv_bn(3, 8), conv_bn(8, 12), conv_bn(12, 10)

    def features(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu()).relu()).relu()


class Depthwise(Image):
    """Expand, filter each channel, project, and add: the block of the mobile networks."""

    def __init__(self) -> None:
        super().__init__(9)
        self.stem, self.expand = conv_bn(3, 8), conv_bn(8, 12, 1)
        self.filter, self.project = conv_bn(12, 12, groups=12), conv_bn(12, 8, 1)
        self.last = conv_bn(8, 9)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(x + self.project(self.filter(self.expand(x).relu()).relu())).relu()


NETS: dict[str, Callable[[], nn.Module]] = {"plain": Plain, "residual": Residual, "depthwise": Depthwise}


@dataclass(frozen=True)
class Case:
    """One network to try a method on; every call builds it anew, always the same."""

    cls: type[Method]
    net: str

    def build(self) -> nn.Module:
        """The network in training mode, with batch norms that have seen something, one parameter frozen, one gradient
        waiting, and one layer in evaluation mode."""
        with _generators(11):
            model = NETS[self.net]()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                    assert module.running_var is not None
                    for tensor in (module.weight.data, module.running_var):
                        tensor.uniform_(0.5, 1.5)
                    for tensor in (module.bias.data, module.running_mean):
                        tensor.normal_(0, 0.2)
            parameters = list(model.parameters())
            parameters[0].requires_grad_(False)
            parameters[-1].grad = torch.randn_like(parameters[-1])
            next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()
        return model

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Three batches ``(x, y)``: eight images of shape (3, 8, 8), five classes."""
        generator = torch.Generator().manual_seed(5)
        return [
            (torch.randn(8, 3, 8, 8, generator=generator), torch.randint(5, (8,), generator=generator))
            for _ in range(3)
        ]

    def example(self) -> Tensor:
        """Shape ``(1, 3, 8, 8)``."""
        return self.batches()[0][0][:1]

    def judge(self, model: nn.Module, method: Method | None = None, noise: int = 0) -> tuple[PruningGraph, Scores]:
        """Scores of a model by a new instance or a given one; ``noise`` seeds what a method must not look at."""
        graph = trace(model, self.example())
        with _generators(noise):
            return graph, (method or self.cls()).judge(graph, Evidence(self.batches(), seed=3))

    def plan(self, budget: Budget, model: nn.Module | None = None, noise: int = 0) -> tuple[PruningGraph, Plan]:
        """The plan of the method for a budget, unit by unit."""
        graph, scores = self.judge(self.build() if model is None else model, noise=noise)
        return graph, make_plan(graph, scores, budget, round_to=1, ranking=self.cls.ranking)


def check_method(cls: type[Method]) -> None:
    """Hold a method to its contract on small networks with random data: for the tests of whoever writes one.

    The clauses are the functions of :data:`CLAUSES`, or of :data:`WEIGHT_CLAUSES` for a method that masks single
    weights; each docstring is one. All are tried on every network before
    anything is reported. It takes seconds for a method that does not train.

    Args:
        cls: a class derived from :class:`secateur.methods.Method`; it need not be registered.

    Raises:
        AssertionError: with every clause that failed, on which network, and how.
    """
    problems = []
    clauses = WEIGHT_CLAUSES if issubclass(cls, WeightMethod) else CLAUSES
    for net in NETS:
        for name, clause in clauses.items():
            try:
                clause(Case(cls, net))
            except Exception as error:
                kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                problems.append(f"- clause {name!r} on the {net} network: {kind}{error}")
    if problems:
        raise AssertionError("\n".join([f"{cls.__name__} breaks the contract of a method:", *problems]))


def _named(case: Case) -> None:
    """It has a name, a summary of one line and a ranking that exists."""
    for attribute in ("name", "summary"):
        text = getattr(case.cls, attribute, None)
        one_line = isinstance(text, str) and len(text.splitlines()) == 1
        assert one_line, f"{attribute} is {text!r}, not one line of text"
    assert case.cls.ranking in RANKINGS, f"ranking is {case.cls.ranking!r}, not one of {', '.join(RANKINGS)}"


def _scores(case: Case) -> None:
    """Every group that can be cut has scores, and no other: one finite number per unit."""
    graph, scores = case.judge(case.build())
    wanted = graph.widths
    assert set(scores) == set(wanted), f"scores for {sorted(scores)}, groups that can be cut: {sorted(wanted)}"
    for name, width in wanted.items():
        shape = tuple(scores[name].shape)
        assert shape == (width,), f"the scores of {name} have shape {shape}, not ({width},)"
        assert bool(torch.isfinite(scores[name]).all()), f"the scores of {name} are not all finite"


def _budget_met(case: Case) -> None:
    """The cut model costs no more than the budget, and one unit more of any group would be too much."""
    # Counted on fresh models: a method that tampers with its graph cannot hide behind it.
    honest = trace(case.build(), case.example())
    for budget in BUDGETS:
        _, plan = case.plan(budget)
        limit = budget.limit(honest.cost())
        spent = getattr(trace(cut(case.build(), plan), case.example()).cost(), budget.metric)
        assert spent <= limit, f"{budget}: the cut model has {spent:,} {budget.metric}, allowed are {limit:,.0f}"
        for name, kept in plan.widths.items():
            if kept < honest.widths[name]:
                wider = getattr(honest.cost({**plan.widths, name: kept + 1}), budget.metric)
                assert wider > limit, f"{budget}: {name} could keep {kept + 1} units instead of {kept}"


def _no_cut(case: Case) -> None:
    """A budget of all there is changes no bit."""
    model = case.build()
    _, plan = case.plan(Budget(macs=1.0), model)
    _assert_same(dict(case.build().state_dict()), dict(cut(model, plan).state_dict()), "the uncut model's")
    assert _same(_run(case.build(), case), _run(cut(model, plan), case)), "the outputs differ"


def _exact(case: Case) -> None:
    """The cut model is the masked model."""
    model = case.build()
    _, plan = case.plan(BUDGETS[0], model)
    found = verify(model, plan, case.example())
    assert found.exact, str(found)


def _reload(case: Case) -> None:
    """Saved and loaded, the cut model gives the same outputs to the last bit."""
    model = case.build()
    _, plan = case.plan(BUDGETS[0], model)
    small = cut(model, plan)
    with tempfile.TemporaryDirectory() as folder:
        again = load(save(small, folder), model=case.build())
    assert _same(_run(small, case), _run(again, case)), "the outputs differ"


def _seed(case: Case) -> None:
    """The same seed gives the same plan, whatever the global random generators hold."""
    first, second = (case.plan(BUDGETS[0], noise=noise)[1].keep for noise in (1, 2))
    changed = [name for name in first if first[name] != second[name]]
    assert not changed, f"two runs kept other units of {', '.join(changed)}"


def _no_state(case: Case) -> None:
    """Judging another model in between changes nothing, neither through the instance nor through the class."""
    method = case.cls()
    _, first = case.judge(case.build(), method)
    other = next(net for net in NETS if net != case.net)
    case_b = Case(case.cls, other)
    case_b.judge(case_b.build(), method)
    for again, what in ((method, "the same instance"), (case.cls(), "a new instance")):
        _, second = case.judge(case.build(), again)
        assert set(first) == set(second), f"{what} then scored other groups"
        changed = [name for name in first if not torch.equal(first[name], second[name])]
        assert not changed, f"{what} then gave other scores to {', '.join(changed)}"


def _nothing_moves(case: Case) -> None:
    """Judging leaves the model and the data as they were: values, gradients, modes, hooks, what is frozen."""
    model, data = case.build(), case.batches()
    graph = trace(model, case.example())
    before = _snapshot(model)
    with _generators(0):
        case.cls().judge(graph, Evidence(data, seed=3))
    _assert_same(before, _snapshot(model), "the model's")
    _assert_same(_named_batches(case.batches()), _named_batches(data), "the data's")


def _nested(case: Case) -> None:
    """Of two budgets the smaller one costs less, and no group exchanges units between them.

    The budget is used up unit by unit, so a group may end one unit wider under the smaller budget; what it keeps is
    still part of what it keeps under the other, or the other way round.
    """
    found = [case.plan(budget, noise=k) for k, budget in enumerate(BUDGETS[:2])]
    (graph, large), (_, small) = found
    assert graph.cost(small.widths).macs <= graph.cost(large.widths).macs, "less was asked for and more was kept"
    for name, units in small.keep.items():
        one, other = set(units), set(large.keep[name])
        assert one <= other or other <= one, f"{name} keeps units {sorted(one - other)} only under the smaller budget"


def _masks(case: Case, share: float, model: nn.Module | None = None, noise: int = 0) -> Masks:
    graph = trace(case.build() if model is None else model, case.example())
    method = case.cls()
    assert isinstance(method, WeightMethod)
    with _generators(noise):
        return method.masks(graph, Goal(Budget(weights=share)), Evidence(case.batches(), seed=3))


def _share_met(case: Case) -> None:
    """So many weights stay as were asked for, to one."""
    for share in (1.0, 0.5, 0.05):
        masks = _masks(case, share)
        assert masks.kept == round(share * masks.weights), f"weights={share}: {masks.kept} of {masks.weights} stay"


def _all_stay(case: Case) -> None:
    """A budget of all weights changes no bit."""
    model = case.build()
    masked = _masks(case, 1.0, model).applied(model)
    _assert_same(dict(case.build().state_dict()), dict(masked.state_dict()), "the unmasked model's")


def _masks_hold(case: Case) -> None:
    """Training with momentum and weight decay brings no masked weight back."""
    model = case.build().train()
    masks = _masks(case, 0.3, model)
    masks.apply(model)
    optimiser = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1, 0.9, weight_decay=0.1)
    for x, y in case.batches():
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
        Hold(masks).after_step(model)
    parameters = dict(model.named_parameters())
    back = [name for name, keep in masks.keep.items() if bool(parameters[name][~keep].any())]
    assert not back, f"masked weights came back in {', '.join(back)}"


def _masks_nested(case: Case) -> None:
    """What stays under the smaller budget stays under the larger one."""
    large, small = _masks(case, 0.6), _masks(case, 0.2)
    lost = [name for name, keep in small.keep.items() if bool((keep & ~large.keep[name]).any())]
    assert not lost, f"weights stay only under the smaller budget in {', '.join(lost)}"


def _masks_seed(case: Case) -> None:
    """The same seed gives the same masks, whatever the global random generators hold."""
    first, second = (_masks(case, 0.5, noise=noise) for noise in (1, 2))
    changed = [name for name in first.keep if not torch.equal(first.keep[name], second.keep[name])]
    assert not changed, f"two runs kept other weights of {', '.join(changed)}"


def _masking_moves_nothing(case: Case) -> None:
    """Choosing masks leaves the model as it was: values, gradients, modes, hooks, what is frozen."""
    model = case.build()
    before = _snapshot(model)
    _masks(case, 0.5, model)
    _assert_same(before, _snapshot(model), "the model's")


WEIGHT_CLAUSES: dict[str, Callable[[Case], None]] = {
    "named": _named,
    "share met": _share_met,
    "all stay": _all_stay,
    "masks hold": _masks_hold,
    "nested masks": _masks_nested,
    "seed": _masks_seed,
    "nothing moves": _masking_moves_nothing,
}

CLAUSES: dict[str, Callable[[Case], None]] = {
    "named": _named,
    "scores": _scores,
    "budget met": _budget_met,
    "no cut": _no_cut,
    "exact": _exact,
    "reload": _reload,
    "seed": _seed,
    "no state": _no_state,
    "nothing moves": _nothing_moves,
    "nested": _nested,
}


@contextmanager
def _generators(seed: int) -> Iterator[None]:
    """The global generator at a seed, and back to where it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _run(model: nn.Module, case: Case) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).eval()(case.batches()[0][0])


def _named_batches(batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return {f"{part} of batch {k}": t for k, batch in enumerate(batches) for part, t in zip("xy", batch)}


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)


def _assert_same(before: Mapping[str, Any], after: Mapping[str, Any], whose: str) -> None:
    changed = [name for name in {**before, **after} if name not in before or name not in after]
    changed += [name for name in before if name in after and not _same(before[name], after[name])]
    assert not changed, f"{whose} {', '.join(changed[:6])} changed"


def _snapshot(model: nn.Module) -> dict[str, Any]:
    """All of a model that judging could touch, as values."""
    found: dict[str, Any] = {f"state {name}": t.detach().clone() for name, t in model.state_dict().items()}
    for name, p in model.named_parameters():
        found[f"requires_grad of {name}"] = p.requires_grad
        found[f"gradient of {name}"] = None if p.grad is None else p.grad.clone()
    for name, module in model.named_modules():
        found[f"mode of {name or 'the model'}"] = module.training
        found[f"class of {name or 'the model'}"] = type(module)
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        found[f"hooks of {name or 'the model'}"] = [list(getattr(module, kind)) for kind in hooks]
        found[f"attributes of {name or 'the model'}"] = sorted(vars(module))
    return found
