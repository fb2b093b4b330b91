"""The loop: it learns, it calls hooks, it stops at a loss that is not a number."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur._errors import TrainingError, UsageError
from secateur.measure import accuracy
from secateur.training import Hook, TrainConfig, fit

CONFIG = TrainConfig(epochs=3, lr=0.05, schedule="cosine", seed=1)


def test_the_loss_goes_down_and_the_history_says_so(toy, blobs):
    model = toy()
    seen = []
    history = fit(model, blobs, CONFIG, eval_fn=lambda m: accuracy(m, blobs), log=seen.append, device="cpu")
    assert len(history) == 3
    assert list(history) == seen
    assert history[2].train_loss < 0.5 * history[0].train_loss
    assert history.last is not None
    assert history.last.train_accuracy is not None
    assert history.last.train_accuracy > 0.8
    assert history.last.metrics["accuracy"] == accuracy(model, blobs) > 0.9
    assert history[0].lr == 0.05
    assert history[2].lr == pytest.approx(0.05 * 0.25)
    assert set(history[0].as_dict()) == {"epoch", "lr", "train_loss", "train_accuracy", "seconds", "accuracy"}


def test_train_loss_is_the_mean_over_items(blobs):
    class Still(Hook):
        def after_backward(self, model):
            model.zero_grad(set_to_none=True)

    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    before = F.cross_entropy(model(blobs.x), blobs.y).item()
    history = fit(model, blobs, TrainConfig(epochs=1, weight_decay=0.0), hooks=[Still()], device="cpu")
    assert history[0].train_loss == pytest.approx(before, rel=1e-6)
    assert history[0].train_accuracy == pytest.approx(accuracy(model, blobs))


def test_hooks_are_called_at_their_moments_and_may_have_only_some(toy, blobs):
    calls = []

    class All(Hook):
        def on_epoch_start(self, model, epoch):
            assert model.training
            calls.append(f"start{epoch}")

        def regulariser(self, model):
            calls.append("reg")
            return 0.0 * model[0].weight.sum()

        def after_backward(self, model):
            assert model[0].weight.grad is not None
            calls.append("backward")

        def after_step(self, model):
            calls.append("step")

        def on_epoch_end(self, model, epoch):
            calls.append(f"end{epoch}")

    class Some:
        def on_epoch_end(self, model, epoch):
            calls.append("some")

    fit(toy(), blobs, TrainConfig(epochs=1), hooks=[All(), Some(), object()], device="cpu")
    assert calls == ["start0", *["reg", "backward", "step"] * len(blobs), "end0", "some"]


def test_a_regulariser_is_minimised_with_the_loss(toy, blobs):
    class Shrink:
        def regulariser(self, model):
            return 10.0 * model[1].weight.abs().sum()

    free, shrunk = toy(), toy()
    fit(free, blobs, CONFIG, device="cpu")
    fit(shrunk, blobs, CONFIG, hooks=[Shrink()], device="cpu")
    assert shrunk[1].weight.abs().sum() < 0.7 * free[1].weight.abs().sum()


def test_an_objective_replaces_the_cross_entropy(blobs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 48))

    def reconstruct(net, x, y):
        return F.mse_loss(net(x), x.flatten(1)), None

    history = fit(model, blobs, TrainConfig(epochs=3, optimiser="adam", lr=0.01), objective=reconstruct, device="cpu")
    assert history[2].train_loss < history[0].train_loss
    assert history[2].train_accuracy is None


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_checkpoint(toy, blobs, tmp_path):
    class Poison:
        batches = 0

        def regulariser(self, model):
            self.batches += 1
            return torch.tensor(float("nan")) if self.batches == len(blobs) + 3 else None

    model = toy()
    with pytest.raises(TrainingError) as caught:
        fit(model, blobs, CONFIG, hooks=[Poison()], checkpoint_dir=tmp_path, device="cpu")
    message = str(caught.value)
    for part in ("loss is nan", "epoch 2 of 3", "batch 3", "learning rate 0.0375", str(tmp_path), "after epoch 1"):
        assert part in message
    assert all(p.isfinite().all() for p in model.parameters())
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    # The checkpoint is whole: without the poison the run goes on from epoch 2.
    fresh = []
    assert len(fit(toy(), blobs, CONFIG, checkpoint_dir=tmp_path, log=fresh.append, device="cpu")) == 3
    assert [record.epoch for record in fresh] == [1, 2]


def test_weights_that_are_not_numbers_are_never_saved(toy, blobs, tmp_path):
    class Spoil:
        batches = 0

        def after_step(self, model):
            self.batches += 1
            if self.batches == len(blobs):
                with torch.no_grad():
                    model[5].bias[0] = torch.inf

    with pytest.raises(TrainingError, match="weights are not finite after epoch 1 of 3"):
        fit(toy(), blobs, CONFIG, hooks=[Spoil()], checkpoint_dir=tmp_path, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_same_seed_same_weights_other_seed_other_weights(toy, blobs):
    one, two, other = toy(), toy(), toy()
    for model, seed in ((one, 1), (two, 1), (other, 2)):
        fit(model, blobs, TrainConfig(epochs=1, lr=0.05, seed=seed), device="cpu")
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_frozen_parameters_stay_and_gradients_are_clipped(toy, blobs):
    norms = []

    class Watch:
        def after_step(self, model):
            norms.append(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item())

    model = toy()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    fit(model, blobs, TrainConfig(epochs=1, clip_grad_norm=0.01), hooks=[Watch()], device="cpu")
    assert torch.equal(model[0].weight, before)
    assert max(norms) <= 0.01 * 1.001


def test_precision_and_memory_format_may_change_from_run_to_run(toy, blobs):
    for config in (
        TrainConfig(epochs=1, lr=0.01, mixed_precision="bf16"),
        TrainConfig(epochs=1, lr=0.01, channels_last=True),
    ):
        model = toy()
        history = fit(model, blobs, config, device="cpu")
        assert history[0].train_loss < 3
        assert model[0].weight.dtype == torch.float32
        assert model[0].weight.is_contiguous()
        assert "forward" not in vars(model)


def test_a_run_without_epochs_changes_nothing(toy, blobs):
    model = toy()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert len(fit(model, blobs, TrainConfig(epochs=0), device="cpu")) == 0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_what_cannot_be_trained_is_said(toy, blobs):
    with pytest.raises(UsageError, match="no parameter"):
        fit(toy().requires_grad_(False), blobs, CONFIG, device="cpu")
    with pytest.raises(UsageError, match="no batches"):
        fit(toy(), [], CONFIG, device="cpu")
    with pytest.raises(UsageError, match="needs CUDA"):
        fit(toy(), blobs, TrainConfig(mixed_precision="fp16"), device="cpu")
    with pytest.raises(UsageError, match="is not here"):
        fit(toy(), blobs, CONFIG, device="mps")


def test_inputs_may_be_nested(blobs):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(96, 4)

        def forward(self, batch):
            return self.head(torch.cat([batch["left"].flatten(1), batch["right"].flatten(1)], 1))

    batches = [({"left": x, "right": -x}, y) for x, y in blobs]
    assert fit(Two(), batches, CONFIG, device="cpu")[2].train_accuracy > 0.8


@pytest.mark.nightly
def test_a_compiled_step_learns_the_same(blobs):
    def losses(compiled: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
        )
        config = TrainConfig(epochs=2, lr=0.05, compiled=compiled)
        return [record.train_loss for record in fit(model, blobs, config, device="cpu")]

    assert losses(True) == pytest.approx(losses(False), rel=1e-4)


def test_evaluation_every_few_epochs_and_after_the_last(toy, blobs):
    seen = []
    config = TrainConfig(epochs=5, lr=0.05, evaluate_every=2, seed=1)
    model, same = toy(), toy()
    same.load_state_dict(model.state_dict())
    history = fit(model, blobs, config, eval_fn=lambda m: seen.append(m) or 0.5, device="cpu")
    assert len(seen) == 3
    assert [bool(record.metrics) for record in history] == [False, True, False, True, True]
    # How often one looks changes nothing about what is learned.
    fit(same, blobs, TrainConfig(epochs=5, lr=0.05, seed=1), device="cpu")
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in model.state_dict().items())
