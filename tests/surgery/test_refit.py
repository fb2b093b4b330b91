"""Layers of more inputs than samples, layers of a single place, and what is said of layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from secateur import trace
from secateur.solvers import GramAccumulator, Grams, Samples
from secateur.surgery import (
    Calibration,
    Refitter,
    by_lasso,
    by_removal,
    by_scales,
    by_weights,
    choose_in_order,
    cut,
    make_plan,
    merged,
    refit_in_order,
)
from secateur.testing.toys import Residual


class ByProducts(GramAccumulator):
    """Products of the samples, however few these are."""

    def gathered(self) -> Grams:
        return self.grams()


@pytest.fixture
def refitter(compensate: bool) -> Refitter:
    """Of a network whose last layer reads 16 channels of 36 places, with 20 samples, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10)).double().eval()
    batches = [torch.randn(5, 3, 8, 8, dtype=torch.float64) for _ in range(4)]
    return Refitter(trace(model, batches[0]), Calibration(batches, positions=1), compensate)


def pruned(refitter: Refitter, fit: Any) -> tuple[dict[str, list[int]], nn.Module]:
    widths = {group.name: group.width // 2 for group in refitter.graph.prunable}
    keep = choose_in_order(refitter, widths, by_lasso, fit)
    plan = make_plan(refitter.graph, keep)
    return keep, cut(refit_in_order(refitter, plan, fit), plan)


@pytest.mark.parametrize(("fit", "compensate"), [(by_weights, True), (by_scales, False)])
def test_the_network_is_that_of_the_products(refitter: Refitter, fit: Any, monkeypatch: pytest.MonkeyPatch):
    model = refitter.graph.model
    assert isinstance(refitter.gathered(model, "3"), Samples)
    keep, ours = pruned(refitter, fit)
    remarks, refitter.remarks = refitter.remarks, []
    monkeypatch.setattr("secateur.surgery.refit.LayerAccumulator", ByProducts)
    assert isinstance(refitter.gathered(model, "3"), Grams)
    same, theirs = pruned(refitter, fit)
    assert keep == same
    assert remarks == refitter.remarks
    dependent = [path for path, note in remarks if note.startswith("the inputs") and "ridge" in note]
    assert set(dependent) == ({"3"} if fit is by_weights else set())
    before = cut(model, make_plan(refitter.graph, keep))
    for path in ("0.weight", "3.weight"):
        ours_, theirs_, old = (m.get_parameter(path) for m in (ours, theirs, before))
        torch.testing.assert_close(ours_, theirs_, rtol=1e-4, atol=1e-5)
        assert torch.equal(ours_, old) == (path == "0.weight")


@pytest.mark.parametrize("compensate", [True])
def test_of_all_weights_that_fit_the_nearest_to_the_old_ones_are_taken(refitter: Refitter):
    model, images = refitter.graph.model, torch.cat(refitter.calibration.batches)
    keep, small = pruned(refitter, by_weights)
    before: Any = cut(model, make_plan(refitter.graph, keep))
    with torch.no_grad():
        x, missing = before[:3](images), model(images) - before(images)
        size = torch.linalg.vector_norm(x, dim=0)
        nearest = (torch.linalg.pinv(x / size) @ missing / size[:, None]).T
        moved = small.get_parameter("3.weight") - before.get_parameter("3.weight")
        torch.testing.assert_close(moved, nearest, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(small(images), model(images), rtol=1e-6, atol=1e-7)
        assert float(missing.abs().max()) > 0.1


@pytest.fixture
def flat() -> tuple[nn.Module, list[torch.Tensor]]:
    """A network whose last two layers are linear ones on flat features, and 60 images."""
    torch.manual_seed(0)
    head = (nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), *head).double().eval()
    return model, [torch.randn(20, 3, 8, 8, dtype=torch.float64) for _ in range(3)]


def test_a_layer_of_a_single_place_is_looked_at_once_per_image(flat: Any):
    model, batches = flat
    calibration = Calibration(batches, positions=7)
    seen = list(calibration.watch(model, {}, "0", "4", "6"))
    assert {path: [len(rows.x) for _, p, rows in seen if p == path] for path in ("0", "4", "6")} == {
        "0": [140, 140, 140],
        "4": [20, 20, 20],
        "6": [20, 20, 20],
    }
    features = [model[:4](batch) for batch in batches]
    assert all(torch.equal(rows.x[:, :, 0], features[number]) for number, path, rows in seen if path == "4")


class Repeats(Calibration):
    """Looks at a single place as often as at many."""

    def places(self, path: str, number: int, images: int, size: int) -> Any:
        image, place = super().places(path, number, images, size)
        return (image, place) if size > 1 else (image.repeat_interleave(self.positions), place.repeat(self.positions))


@pytest.mark.parametrize("shared", [False, True], ids=["flat", "read by a convolution and a linear layer"])
@pytest.mark.parametrize(("select", "fit"), [(by_lasso, by_weights), (by_removal, by_scales)])
def test_repeats_of_a_single_place_would_change_nothing(flat: Any, select: Any, fit: Any, shared: bool):
    model, batches = flat
    if shared:
        model = Residual().double().eval()
        with torch.no_grad():
            model.head.weight *= torch.rand(6) * 4
    last = "head.weight" if shared else "6.weight"
    graph = trace(model, batches[0])
    widths = {group.name: group.width // 2 for group in graph.prunable}
    found = []
    for kind in (Calibration, Repeats):
        refitter = Refitter(graph, kind(batches, positions=10), fit is by_weights)
        keep = choose_in_order(refitter, widths, select, fit)
        found.append((keep, refit_in_order(refitter, make_plan(graph, keep), fit).state_dict()))
    (ours, once), (theirs, often) = found
    assert ours == theirs, (ours, theirs)
    for name, tensor in once.items():
        torch.testing.assert_close(tensor, often[name], rtol=1e-9, atol=1e-11)
    assert not torch.equal(once[last], model.state_dict()[last])


def test_remarks_of_one_kind_become_one_line():
    ridge = "solved with a ridge of {}"
    said = [("a.1", ridge.format("1e-05")), ("b", ridge.format("1e-05")), ("a.1", ridge.format("1e-05"))]
    assert merged(said[:1]) == ["solved with a ridge of 1e-05 (layer a.1)"]
    assert merged(said) == ["solved with a ridge of 1e-05 (2 layers: a.1, b)"]
    said += [("c", "the path was given up"), *((name, ridge.format("1e-03")) for name in "defg")]
    assert merged(said) == [
        "solved with a ridge of 1e-05 to 1e-03 (6 layers: a.1, b, d and 3 more)",
        "the path was given up (layer c)",
    ]
    assert merged([("a", "12 of 20"), ("b", "9 of 30")]) == ["9 to 12 of 20 to 30 (2 layers: a, b)"]
    assert merged([]) == []
