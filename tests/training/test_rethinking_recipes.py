"""The study files of recipes/rethinking: they are read, they say what the papers say, and one epoch of each runs."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secateur.pipeline import prune
from secateur.study.recipe import RunRecipe, parse_study, read_study
from secateur.workbench import set_up

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "rethinking"
FILES = sorted(path.stem for path in FOLDER.glob("*.toml"))
IMAGENET = [name for name in FILES if name.endswith("-imagenet")]


def runs_of(name: str, **changes: Any) -> tuple[RunRecipe, ...]:
    """The runs of a file, with other settings in all of its grids."""
    raw = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    grids = raw.get("grid", [raw])
    for grid in (raw, *grids):
        for key, value in changes.items():
            if key in grid or grid is raw:
                grid[key] = value
    return parse_study(raw, name).runs


def test_every_table_has_its_files():
    for table in ("l1", "thinet", "reconstruction", "slimming", "sss", "sfp", "unstructured", "lottery"):
        found = [name for name in FILES if name.startswith(f"{table}-")]
        assert f"{table}-short" in found
        assert len(found) > 1


@pytest.mark.parametrize("name", FILES)
def test_it_is_read(name: str):
    runs = runs_of(name)
    assert len(runs) == len({str(run.words()) for run in runs}) > 0
    assert len({run.job.seed for run in runs}) == (1 if name in IMAGENET else 3 if name.endswith("-short") else 5)
    assert read_study(FOLDER / f"{name}.toml").title


def test_the_schedules_of_the_paper():
    cifar, imagenet = runs_of("l1-cifar")[0].job.config, runs_of("l1-imagenet")[0].job.config
    assert (cifar.epochs, cifar.lr, cifar.weight_decay, cifar.batch_size) == (160, 0.1, 1e-4, 64)
    assert cifar.milestone_epochs == (80, 120)
    assert (imagenet.epochs, imagenet.batch_size, imagenet.milestone_epochs) == (90, 256, (30, 60))
    sfp, sss = runs_of("sfp-cifar")[0].job.config, runs_of("sss-imagenet")[0].job.config
    assert (sfp.epochs, sfp.milestone_epochs, sfp.gamma, sfp.weight_decay) == (200, (60, 120, 160), 0.2, 5e-4)
    assert (sss.epochs, sss.milestone_epochs, sss.nesterov) == (100, (30, 60, 90), True)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A dozen random images of two classes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for half, count in (("train", 4), ("val", 2)):
        for kind in ("cat", "dog"):
            folder = tmp_path / half / kind
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("data", ["imagenet", "folder"])
def test_photographs_have_the_size_of_the_example(data: str, photographs: Path):
    named = {"imagenet": "imagenet", "folder": f"folder:{photographs}"}[data]
    bench = set_up("torchvision:resnet18", named, data_dir=photographs, shape=(1, 3, 64, 64), batch_size=4)
    assert bench.example.shape == bench.data.test[0][0][None].shape == (1, 3, 64, 64)


def models_of(name: str) -> list[str]:
    raw = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    listed = [g["model"] for g in (raw, *raw.get("grid", [])) if "model" in g]
    return [m for models in listed for m in (models if isinstance(models, list) else [models])]


def marked(name: str, model: str) -> Any:
    # The dense layers of VGG have over a hundred million weights.
    slow = "torchvision:vgg" in model
    return pytest.param(name, model, marks=pytest.mark.nightly if slow else (), id=f"{name}-{model}")


@pytest.mark.parametrize(("name", "model"), [marked(name, model) for name in IMAGENET for model in models_of(name)])
def test_one_epoch_of_imagenet_runs(name: str, model: str, photographs: Path):
    small = {"data": f"folder:{photographs}", "pretrained": False, "recover": "scratch-e", "input": "1x3x64x64"}
    run = next(r for r in runs_of(name, **small) if r.model == model)
    bench = set_up(run.model, run.data, shape=(1, 3, 64, 64), batch_size=4)
    asked = run.job
    result = prune(
        bench.model,
        bench.example,
        method=asked.method.name,
        options=asdict(asked.method),
        # The published numbers are those of 224 pixels.
        budget=asked.goal.budget and replace_target(asked.goal.budget),
        preset=asked.goal.preset,
        round_to=1,
        recover="scratch-e",
        train_data=bench.train,
        eval_data=bench.test,
        config=replace(asked.config, epochs=1, batch_size=4),
        latency_runs=0,
        progress=False,
    )
    assert result.check.exact
    assert result.card.recovery is not None
    assert result.card.recovery.epochs == 1
    assert all(p.isfinite().all() for p in result.model.parameters())
    assert torch.isfinite(result.model(bench.example)).all()


def replace_target(budget: Any) -> Any:
    """An absolute budget as the share of ResNet-50 that it is."""
    return budget if budget.target <= 1 else type(budget)(**{budget.metric: budget.target / 4_089_184_256})
