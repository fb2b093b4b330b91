"""Saving and loading: what comes back is what went in, or nothing does."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur._errors import FileError, PlanError, UsageError
from secateur.models import build
from secateur.surgery import make_plan

WEIGHTS, PLAN = "model.safetensors", "plan.json"
SOURCE = {"name": "digits-resnet", "num_classes": 10, "in_channels": 1}


class Tied(nn.Module):
    """A little language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.decoder = nn.Linear(8, 11, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        return self.decoder(x + self.down(self.up(x).relu()))


def dense(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = build("digits-resnet")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_()
    return model.eval()


def pruned(model: nn.Module, share: float = 0.5) -> nn.Module:
    graph = sc.trace(model, torch.randn(1, 1, 8, 8))
    return sc.cut(model, sc.plan(graph, sc.score(graph, "l1"), sc.Budget(macs=share)))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return pruned(dense())


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(small: nn.Module, tmp_path: Path) -> Path:
    return sc.save(small, tmp_path / "run", source=SOURCE)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_files_and_nothing_else(saved: Path):
    assert sorted(contents(saved)) == [WEIGHTS, PLAN]


def test_round_trip_with_a_model(small: nn.Module, x: Tensor, tmp_path: Path):
    folder = sc.save(small, tmp_path / "deep" / "run")
    again = sc.load(folder, model=dense(seed=9))
    assert torch.equal(again(x), small(x))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in small.state_dict().items()}
    assert all(torch.equal(v, small.state_dict()[k]) for k, v in again.state_dict().items())
    assert not any(m.training for m in again.modules())
    assert again.secateur_plan == small.secateur_plan


def test_round_trip_by_name(saved: Path, small: nn.Module, x: Tensor):
    assert torch.equal(sc.load(saved)(x), small(x))


def test_what_was_loaded_can_be_saved_again(saved: Path, tmp_path: Path):
    again = sc.save(sc.load(saved), tmp_path / "again", source=SOURCE)
    assert contents(again) == contents(saved)


def test_trained_weights_are_what_is_saved(x: Tensor, tmp_path: Path):
    small = pruned(dense()).train()
    optimiser = torch.optim.SGD(small.parameters(), 0.1)
    small(x).square().mean().backward()
    optimiser.step()
    again = sc.load(sc.save(small, tmp_path), model=dense())
    assert torch.equal(again(x), small.eval()(x))


def test_tied_weights_survive(tmp_path: Path):
    torch.manual_seed(0)
    model, tokens = Tied(), torch.tensor([[1, 2, 3]])
    graph = sc.trace(model, tokens)
    small: Any = sc.cut(model, make_plan(graph, {g.name: range(g.width // 2) for g in graph.prunable}))
    assert small.embedding.weight.shape == (11, 4)
    again: Any = sc.load(sc.save(small, tmp_path), model=Tied())
    assert again.decoder.weight is again.embedding.weight
    assert torch.equal(again(tokens), small(tokens))


class Silent(nn.Sequential):
    """Reads its state in a way of its own, and says nothing of it."""

    def load_state_dict(self, state_dict, strict=True, assign=False):
        super().load_state_dict(state_dict, strict=strict, assign=assign)


def test_a_model_that_does_not_say_what_it_read(tmp_path: Path):
    x, dense = torch.randn(2, 4), Silent(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    small = sc.cut(dense, make_plan(sc.trace(dense, x), {"0": [1, 2, 5]}))
    sc.save(small, tmp_path / "out")
    fresh = Silent(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    assert torch.equal(sc.load(tmp_path / "out", model=fresh)(x), small(x))


def test_other_memory_layouts_are_saved_as_plain_ones(x: Tensor, tmp_path: Path):
    small = pruned(dense()).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    again = sc.load(sc.save(small, tmp_path), model=dense())
    torch.testing.assert_close(again(x), small(x))


def cut_short(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def empty(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")


def one_byte_changed(folder: Path) -> None:
    body = bytearray((folder / WEIGHTS).read_bytes())
    body[-7] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(body))


def other_bytes_with_their_hash(folder: Path) -> None:
    """Both files agree with each other, but the weights are none."""
    import hashlib

    document = json.loads((folder / PLAN).read_text())
    for junk in (b"x", b"\xff" * 64):
        (folder / WEIGHTS).write_bytes(junk)
        document |= {"weights_sha256": hashlib.sha256(junk).hexdigest(), "weights_bytes": len(junk)}
    (folder / PLAN).write_text(json.dumps(document))


def a_unit_exchanged(folder: Path) -> None:
    document = json.loads((folder / PLAN).read_text())
    group = next(g for g in document["plan"]["groups"] if "0" not in g["keep"].split(","))
    group["keep"] = "0" + group["keep"][1:]
    (folder / PLAN).write_text(json.dumps(document))


def another_source(folder: Path) -> None:
    document = json.loads((folder / PLAN).read_text())
    document["source"]["name"] = "/tmp/evil.py:run"
    (folder / PLAN).write_text(json.dumps(document))


def plan_cut_short(folder: Path) -> None:
    (folder / PLAN).write_text((folder / PLAN).read_text()[:-30])


def no_plan_at_all(folder: Path) -> None:
    (folder / PLAN).write_text("[1, 2]")


def not_text(folder: Path) -> None:
    (folder / PLAN).write_bytes(b"\xff\xfe\x00\x01")


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def no_plan(folder: Path) -> None:
    (folder / PLAN).unlink()


@pytest.mark.parametrize(
    ("spoil", "file", "said"),
    [
        (cut_short, WEIGHTS, "cut short"),
        (empty, WEIGHTS, "has 0 bytes"),
        (one_byte_changed, WEIGHTS, "was changed after it was written"),
        (other_bytes_with_their_hash, PLAN, "does not match"),
        (a_unit_exchanged, PLAN, "was changed after it was written"),
        (another_source, PLAN, "was changed after it was written"),
        (plan_cut_short, PLAN, "cut short or not a plan"),
        (no_plan_at_all, PLAN, "not a plan"),
        (not_text, PLAN, "not a plan"),
        (no_weights, WEIGHTS, "No such file"),
        (no_plan, PLAN, "No such file"),
    ],
)
@pytest.mark.parametrize("with_model", [True, False], ids=["model", "by name"])
def test_spoilt_files_are_refused(saved: Path, spoil: Callable[[Path], None], file: str, said: str, with_model: bool):
    spoil(saved)
    before = dense()
    state = {k: v.clone() for k, v in before.state_dict().items()}
    with pytest.raises(FileError) as caught:
        sc.load(saved, model=before if with_model else None)
    assert str(saved / file) in str(caught.value)
    assert said in str(caught.value)
    # Nothing is half loaded.
    assert all(torch.equal(v, state[k]) for k, v in before.state_dict().items())


def test_files_of_two_runs_do_not_mix(saved: Path, tmp_path: Path):
    other = sc.save(pruned(dense(seed=2)), tmp_path / "other", source=SOURCE)
    (other / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes())
    with pytest.raises(FileError, match=r"replaced|was changed"):
        sc.load(other)


def test_same_shapes_of_two_runs_do_not_mix_either(saved: Path, small: nn.Module, tmp_path: Path):
    moved = sc.load(saved)
    with torch.no_grad():
        next(moved.parameters()).add_(1)
    other = sc.save(moved, tmp_path / "other", source=SOURCE)
    (other / PLAN).write_bytes((saved / PLAN).read_bytes())
    with pytest.raises(FileError, match="its hash does not match"):
        sc.load(other)


def test_another_dense_model(saved: Path):
    with pytest.raises(PlanError, match="made for another model"):
        sc.load(saved, model=build("digits-resnet", num_classes=7))
    with pytest.raises(PlanError, match="the plan names tensors that the model lacks"):
        sc.load(saved, model=build("lenet5"))
    with pytest.raises(PlanError, match="cut already"):
        sc.load(saved, model=sc.load(saved))


def test_a_run_that_names_no_model_needs_one(small: nn.Module, tmp_path: Path):
    with pytest.raises(UsageError, match="pass model="):
        sc.load(sc.save(small, tmp_path))


def test_a_model_that_was_not_cut(tmp_path: Path):
    with pytest.raises(UsageError, match="carries no plan"):
        sc.save(dense(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_folders_place(small: nn.Module, tmp_path: Path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(FileError, match="cannot write to"):
        sc.save(small, tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def full_disk(monkeypatch: pytest.MonkeyPatch, name: str, calls: int) -> None:
    """``os.name`` works so many times, and then there is no space left; taking things back still works."""
    real: Any = getattr(os, name)
    done: Iterator[int] = iter(range(100))

    def limited(*args: Any, **kwargs: Any) -> Any:
        if next(done) == calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, limited)


# Two files are forced to disk and renamed to temporary names, then both take their own names.
@pytest.mark.parametrize(("name", "calls"), [("fsync", 0), ("fsync", 2), *[("replace", k) for k in range(4)]])
def test_a_full_disk_leaves_the_old_files_whole(
    saved: Path, small: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch, name: str, calls: int
):
    before = contents(saved)
    other = pruned(dense(seed=3), share=0.3)
    with monkeypatch.context() as patch:
        full_disk(patch, name, calls)
        with pytest.raises(FileError, match=r"No space left on device\nwhat was there before is unchanged"):
            sc.save(other, saved, source=SOURCE)
    assert contents(saved) == before
    assert torch.equal(sc.load(saved)(x), small(x))


@pytest.mark.parametrize(("name", "calls"), [("fsync", 0), ("fsync", 2), *[("replace", k) for k in range(4)]])
def test_a_full_disk_leaves_a_new_folder_empty(
    small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, calls: int
):
    with monkeypatch.context() as patch:
        full_disk(patch, name, calls)
        with pytest.raises(FileError, match="No space left"):
            sc.save(small, tmp_path / "run")
    assert contents(tmp_path / "run") == {}


def test_without_hard_links(saved: Path, small: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    before, other = contents(saved), pruned(dense(seed=3), share=0.3)
    monkeypatch.setattr(os, "link", refuse)
    with monkeypatch.context() as patch:
        full_disk(patch, "replace", 3)
        with pytest.raises(FileError):
            sc.save(other, saved, source=SOURCE)
    assert contents(saved) == before
    sc.save(other, saved, source=SOURCE)
    assert sorted(contents(saved)) == [WEIGHTS, PLAN]
    assert torch.equal(sc.load(saved)(x), other.eval()(x))


def test_overwriting_a_run(saved: Path, x: Tensor):
    other = pruned(dense(seed=3), share=0.3)
    sc.save(other, saved, source=SOURCE)
    assert sorted(contents(saved)) == [WEIGHTS, PLAN]
    assert torch.equal(sc.load(saved)(x), other(x))


class Remembering(nn.Module):
    """Fills a buffer that is not saved at its first run, and reads the version of its state."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("places", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.places) != x.shape[1]:
            self.places = torch.arange(x.shape[1]).to(x)
        return self.b(self.a(x + self.places).relu())

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *more: Any) -> None:  # pyright: ignore
        if metadata.get("version") != 2:
            raise ValueError("an old state")
        super()._load_from_state_dict(state, prefix, metadata, *more)


def test_a_fresh_instance_may_not_have_run_yet(tmp_path: Path):
    model, x = Remembering().eval(), torch.randn(3, 4)
    expected = model(x)
    graph = sc.trace(model, x)
    small = sc.cut(model, make_plan(graph, {"a": [0, 2, 3, 5]}))
    again = sc.load(sc.save(small, tmp_path), model=Remembering())
    assert torch.equal(small(x), again(x))
    assert expected.shape == again(x).shape
