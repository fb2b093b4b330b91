"""The study files of recipes/from-scratch, and studies of files that runs leave behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secateur._errors import SecateurError
from secateur.methods.pfs_settings import SETTINGS
from secateur.methods.pruning_from_scratch import PruningFromScratch
from secateur.study import run_study
from secateur.study.plan import plan_study
from secateur.study.recipe import read_study

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "from-scratch"
FILES = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.mark.parametrize("name", FILES)
def test_it_is_read(name: str):
    study = read_study(FOLDER / f"{name}.toml")
    assert study.title
    assert {run.job.seed for run in study.runs} == ({0} if name.startswith("imagenet") else {0, 1, 2})
    for run in study.runs:
        if isinstance(run.job.method, PruningFromScratch) and run.job.method.setting:
            assert SETTINGS[run.job.method.setting].model == run.model


def test_all_networks_of_the_paper_have_a_recipe():
    found = {
        run.job.method.setting
        for name in FILES
        for run in read_study(FOLDER / f"{name}.toml").runs
        if isinstance(run.job.method, PruningFromScratch)
    }
    assert found == {*SETTINGS, None}


def test_budget_training_of_the_paper_in_epochs():
    study = read_study(FOLDER / "cifar10.toml")
    config = study.runs[0].job.config
    assert (config.epochs, config.batch_size, config.lr, config.weight_decay) == (160, 128, 0.1, 1e-4)
    assert config.milestone_epochs == (80, 120)


SMALL = """
model = "digits-resnet"
data = "digits"
limit = 200
limit_test = 100
base_epochs = 1
recover = "scratch-e"
latency_runs = 0
"""


def test_a_study_leaves_gates_and_widths_in_the_folder_of_the_run_and_takes_them_up(tmp_path: Path):
    recipe = tmp_path / "one.toml"
    recipe.write_text(SMALL + 'method = "pruning-from-scratch"\noptions.epochs = 1\nbudget = "macs=50%"\n')
    done = run_study(recipe, tmp_path / "one", workers=1)
    assert not done.status.count("failed")
    (folder,) = [path.parent for path in (tmp_path / "one" / "runs").glob("*/card.json")]
    first = json.loads((folder / "widths.json").read_text())
    card = json.loads((folder / "card.json").read_text())
    assert "accuracy" not in card["dense"], "it has seen no data, so nothing is said of how good it is"
    assert "accuracy" in card["pruned"]
    words = f'preset = "{folder / "widths.json"}"\nmethod = "random"\n'
    recipe = tmp_path / "two.toml"
    recipe.write_text(SMALL + words)
    before = set(plan_study(read_study(recipe)).stages)
    done = run_study(recipe, tmp_path / "two", workers=1)
    assert not done.status.count("failed")
    (card,) = [json.loads(p.read_text()) for p in (tmp_path / "two" / "runs").glob("*/card.json")]
    assert card["pruned"]["macs"] == first["macs"]
    # Another file under the same name is another study.
    changed = {**first, "widths": {**first["widths"], "layer3.1.conv1": 8}}
    (folder / "widths.json").write_text(json.dumps(changed))
    assert not before & set(plan_study(read_study(recipe)).stages)
    recipe.write_text(SMALL + words.replace("widths.json", "nothing.json"))
    with pytest.raises(SecateurError, match=r"nothing.json cannot be read"):
        read_study(recipe)
