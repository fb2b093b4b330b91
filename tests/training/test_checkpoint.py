"""Checkpoints: exact resume, whole files, refusals."""

from __future__ import annotations

import dataclasses
import errno
import os

import pytest
import torch
from safetensors import safe_open
from torch.utils.data import DataLoader, TensorDataset

from secateur._errors import FileError
from secateur.measure import accuracy
from secateur.training import TrainConfig, checkpoint, fit
from secateur.training.checkpoint import FILE_NAME

CONFIGS = [
    TrainConfig(epochs=4, lr=0.05, nesterov=True, schedule="step", seed=5),
    TrainConfig(epochs=4, lr=0.01, optimiser="adam", schedule="cosine", warmup_epochs=2),
    TrainConfig(epochs=4, lr=0.01, optimiser="adamw", schedule="step", warmup_epochs=1, clip_grad_norm=1.0),
    TrainConfig(epochs=4, lr=0.05, schedule="constant", channels_last=True, mixed_precision="bf16"),
]


class Interrupt:
    """Ctrl-C at one batch."""

    def __init__(self, batch: int):
        self.left = batch

    def after_step(self, model):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Counter:
    """A hook with state: noise on a weight that depends on how many steps there were."""

    def __init__(self):
        self.steps = 0
        self.sum = torch.zeros(8)

    def after_step(self, model):
        self.steps += 1
        with torch.no_grad():
            self.sum += model[1].weight
            model[1].bias += 1e-3 * self.steps * self.sum

    def state_dict(self):
        return {"steps": self.steps, "sum": self.sum}

    def load_state_dict(self, state):
        self.steps, self.sum = state["steps"], state["sum"]


def _same(one, two):
    return all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.optimiser}-{c.schedule}-{c.mixed_precision}")
@pytest.mark.parametrize("batch", [9, 14, 27])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(toy, blobs, tmp_path, capsys, config, batch):
    def run(model, folder, *hooks):
        return fit(
            model,
            blobs,
            config,
            eval_fn=lambda m: accuracy(m, blobs),
            hooks=[Counter(), *hooks],
            checkpoint_dir=folder,
            device="cpu",
        )

    whole = toy()
    expected = run(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(toy(), tmp_path / "parts", Interrupt(batch))
    said = capsys.readouterr().err
    assert f"Interrupted after {(batch - 1) // len(blobs)} of 4 epochs" in said
    assert str(tmp_path / "parts" / FILE_NAME) in said
    assert "same command again" in said
    torch.manual_seed(99)
    resumed = toy()
    assert run(resumed, tmp_path / "parts") == expected
    assert _same(whole, resumed)
    with (
        safe_open(tmp_path / "whole" / FILE_NAME, "pt") as one,
        safe_open(tmp_path / "parts" / FILE_NAME, "pt") as two,
    ):
        assert set(one.keys()) == set(two.keys())
        assert all(torch.equal(one.get_tensor(k), two.get_tensor(k)) for k in one.keys())  # noqa: SIM118


@pytest.mark.parametrize("generator", [None, 11])
def test_a_shuffling_loader_resumes_in_its_order(toy, blobs, tmp_path, generator):
    def loader():
        own = None if generator is None else torch.Generator().manual_seed(generator)
        return DataLoader(TensorDataset(blobs.x, blobs.y), batch_size=16, shuffle=True, generator=own)

    config = TrainConfig(epochs=3, lr=0.05)
    whole, resumed = toy(), toy()
    expected = fit(whole, loader(), config, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(toy(), loader(), config, hooks=[Interrupt(10)], checkpoint_dir=tmp_path, device="cpu")
    assert fit(resumed, loader(), config, checkpoint_dir=tmp_path, device="cpu") == expected
    assert _same(whole, resumed)


def test_a_finished_run_is_only_loaded(toy, blobs, tmp_path):
    config = TrainConfig(epochs=2, lr=0.05)
    first, again = toy(), toy()
    history = fit(first, blobs, config, checkpoint_dir=tmp_path, device="cpu")
    assert fit(again, blobs, config, checkpoint_dir=tmp_path, hooks=[Interrupt(1)], device="cpu") == history
    assert _same(first, again)


def test_an_interrupt_before_the_first_checkpoint_says_so(toy, blobs, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        fit(toy(), blobs, CONFIGS[0], hooks=[Interrupt(2)], checkpoint_dir=tmp_path, device="cpu")
    assert "no epoch was finished" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["replace", "fsync"])
def test_a_disk_that_fills_up_leaves_the_old_checkpoint_whole(toy, blobs, tmp_path, monkeypatch, where):
    config = CONFIGS[0]
    real = getattr(os, where)
    calls = []

    def full(*args):
        calls.append(args)
        if len(calls) > (1 if where == "replace" else 2):  # the first epoch passes (fsync: file, then folder)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, where, full)
    with pytest.raises(FileError, match=r"No space left on device(.|\n)*is whole"):
        fit(toy(), blobs, config, checkpoint_dir=tmp_path, device="cpu")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]
    whole, resumed = toy(), toy()
    expected = fit(whole, blobs, config, device="cpu")
    fresh = []
    assert fit(resumed, blobs, config, checkpoint_dir=tmp_path, log=fresh.append, device="cpu") == expected
    assert [record.epoch for record in fresh] == [1, 2, 3]
    assert _same(whole, resumed)


def test_a_checkpoint_of_another_run_is_refused(toy, blobs, tmp_path):
    fit(toy(), blobs, TrainConfig(epochs=1), checkpoint_dir=tmp_path, device="cpu")
    with pytest.raises(FileError) as caught:
        fit(toy(), blobs, TrainConfig(epochs=2, lr=0.2), checkpoint_dir=tmp_path, device="cpu")
    message = str(caught.value)
    for part in ("epochs: the checkpoint has 1, this run 2", "lr: the checkpoint has 0.1, this run 0.2", "delete"):
        assert part in message
    other = toy()
    other[0] = torch.nn.Conv2d(3, 8, 1)
    before = other[0].weight.clone()
    with pytest.raises(FileError, match=r"shapes of the model's tensors differ: \('0.weight'"):
        fit(other, blobs, TrainConfig(epochs=1), checkpoint_dir=tmp_path, device="cpu")
    assert torch.equal(other[0].weight, before)


def test_a_truncated_or_altered_checkpoint_is_refused(toy, blobs, tmp_path):
    config = TrainConfig(epochs=1)
    fit(toy(), blobs, config, checkpoint_dir=tmp_path, device="cpu")
    path = tmp_path / FILE_NAME
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(FileError, match="truncated"):
        fit(toy(), blobs, config, checkpoint_dir=tmp_path, device="cpu")
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FileError, match="hash does not match"):
        fit(toy(), blobs, config, checkpoint_dir=tmp_path, device="cpu")


def test_tied_weights_are_saved_and_stay_tied(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x))

    data = [(torch.randn(8, 4), torch.randint(0, 4, (8,)))]
    config = TrainConfig(epochs=1)
    torch.manual_seed(0)
    first, again = Tied(), Tied()
    fit(first, data, config, checkpoint_dir=tmp_path, device="cpu")
    fit(again, data, config, checkpoint_dir=tmp_path, device="cpu")
    assert _same(first, again)
    assert again.one.weight is again.two.weight


def test_a_setting_that_came_later_was_at_its_default(toy, blobs, tmp_path, monkeypatch):
    config = TrainConfig(epochs=2, lr=0.05)

    def older(run):
        found = fingerprint(run)
        del found["config"]["evaluate_every"]
        return found

    fingerprint = checkpoint._fingerprint
    with monkeypatch.context() as before:
        before.setattr(checkpoint, "_fingerprint", older)
        fit(toy(), blobs, config, checkpoint_dir=tmp_path, device="cpu")
    assert len(fit(toy(), blobs, config, checkpoint_dir=tmp_path, device="cpu")) == 2
    with pytest.raises(FileError, match="evaluate_every: the checkpoint has 1, this run 2"):
        fit(toy(), blobs, dataclasses.replace(config, evaluate_every=2), checkpoint_dir=tmp_path, device="cpu")
