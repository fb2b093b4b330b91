"""Study files: grids, the words of a run's own recipe, and every mistake named at once."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from secateur._errors import FileError, UsageError
from secateur.study import parse_study, read_study
from secateur.study.plan import plan_study
from secateur.study.recipe import RunRecipe
from secateur.study.stages import Stage

SMALL = 'model = "digits-resnet"\ntrain = 2\nlimit = 64\nlimit_test = 32\nbudget = "macs=50%"\n'


def runs(text: str) -> tuple[RunRecipe, ...]:
    return parse_study(tomllib.loads(text)).runs


def problems(text: str) -> str:
    with pytest.raises(UsageError) as error:
        runs(text)
    return str(error.value)


def test_lists_expand_to_the_grid():
    found = runs(
        'model = ["digits-resnet", "lenet5"]\nmethod = ["l1", "slimming"]\nbudget = ["macs=50%", "params=0.3"]\n'
        'recover = ["finetune", "scratch-e", "scratch-b"]\nseed = [0, 1, 2]\ntrain = 3\n'
    )
    assert len(found) == 2 * 2 * 2 * 3 * 3
    assert len(set(map(repr, found))) == len(found)
    assert {run.job.config.seed for run in found} == {0, 1, 2}
    assert {run.job.config.epochs for run in found} == {3}


def test_any_key_can_be_a_list():
    found = runs(SMALL + 'round_to = [1, 8]\nlr = [0.1, 0.01]\nprotect = [["conv1"], []]\n')
    assert len(found) == 8
    assert {run.job.goal.protect for run in found} == {("conv1",), ()}


def test_lists_of_values_that_are_lists_stay_one():
    (run,) = runs(SMALL + 'protect = ["conv1", "layer1.*"]\ntraining.milestones = [0.3, 0.6]\ncompare = ["scratch-e"]')
    assert run.job.goal.protect == ("conv1", "layer1.*")
    assert run.job.config.milestones == (0.3, 0.6)
    assert run.job.compare == ("scratch-e",)


def test_grids_hold_what_differs():
    found = runs(
        SMALL + 'seed = [0, 1]\n[[grid]]\nmethod = "l1"\n'
        '[[grid]]\nmethod = "slimming"\nbudget = "params=30%"\noptions.penalty = 1e-3\n'
    )
    said = [(r.job.method.name, str(r.job.goal.budget)) for r in found]
    assert said == [("l1", "macs = 0.5 of the dense")] * 2 + [("slimming", "params = 0.3 of the dense")] * 2


def test_a_preset_of_a_grid_replaces_the_budget_above_it():
    (run,) = runs('model = "cifar-resnet56"\ntrain = 1\nbudget = "macs=50%"\n[[grid]]\npreset = "resnet56-B"\n')
    assert run.job.goal.preset == "resnet56-B"


def test_options_go_to_the_methods_that_have_them():
    found = runs(
        SMALL + 'method = ["l1", "slimming", "sss"]\n'
        "[options]\npenalty = [1e-3, 1e-4]\nslimming.epochs = 5\nsss.penalty = 0.01\n"
    )
    said = [(r.job.method.name, getattr(r.job.method, "penalty", None)) for r in found]
    # l1 has no options, so it runs once; what is said for sss alone wins.
    assert said == [("l1", None), ("slimming", 1e-3), ("slimming", 1e-4), ("sss", 0.01)]


def test_epochs_are_those_of_fine_tuning():
    found = runs(SMALL + 'recover = ["finetune", "scratch-e"]\nepochs = 7\nrecover_lr = 0.01\n')
    assert [(r.job.recover, r.job.epochs, r.job.recover_lr) for r in found] == [
        ("finetune", 7, 0.01),
        ("scratch-e", None, None),
    ]
    (alone,) = runs(SMALL + 'recover = "scratch-e"\nepochs = 7\n')
    assert alone.job.epochs == 7


def test_all_mistakes_at_once():
    said = problems(
        'modle = "lenet5"\nmethod = ["l1", "l2"]\nbudget = "mac=50%"\nrecover = "finetun"\nseed = "0"\nround_to = 0\n'
        "trainning.lr = 1\ntraining.lrr = 1\noptions.penlty = 3\ndata = 'cifar'\nlimit = []\ntitle = 3\n"
    )
    for words in (
        "13 problems",
        "unknown key 'modle': did you mean 'model'",
        "model: missing",
        "unknown method 'l2'",
        "did you mean 'macs'?",
        "unknown recovery 'finetun'",
        "seed = '0'",
        "round_to = 0",
        "unknown key 'trainning': did you mean 'training'",
        "unknown key 'training.lrr': did you mean 'lr'?",
        "unknown key 'options.penlty': did you mean 'penalty'?",
        "unknown data set 'cifar'",
        "limit: the list is empty",
        "keys: base_epochs, batch_size, budget",
    ):
        assert words in said, words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('model = "digits-resnet"\nbudget = "macs=50%"', "has no weights yet"),
        ('model = "digits-resnet"\ntrain = 1', "say what may remain"),
        (SMALL + "lr = 0.1\ntraining.lr = 0.2", "lr = 0.1 and training.lr = 0.2: say it once"),
        (SMALL + "base_epochs = 9", "train = 2 and 9 epochs"),
        (SMALL + 'weights = "nowhere.safetensors"', "'nowhere.safetensors' does not exist"),
        (SMALL + 'recover = "none"\nepochs = 3', "there is no recovery to train"),
        (SMALL + "training.warmup_epochs = 5", "warmup_epochs=5 leaves nothing"),
        (SMALL + "[[grid]]\nseed = 1\n[[grid]]\nsede = 1", "unknown key 'sede': did you mean 'seed'? (in [[grid]] 2)"),
        (SMALL + "grid = 3", "each under a line [[grid]]"),
        (SMALL + "options = 3", "options: write a table"),
        (SMALL + 'method = "slimming"\noptions.penalty = "much"', "penalty='much'"),
        (SMALL + "method = 3", "method = 3"),
        (SMALL + "training = 3", "training = 3"),
    ],
)
def test_mistakes(text: str, words: str):
    assert words in problems(text)


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(FileError, match="cannot be read"):
        read_study(tmp_path / "nothing.toml")
    (tmp_path / "broken.toml").write_text("model = ")
    with pytest.raises(FileError, match="is not TOML"):
        read_study(tmp_path / "broken.toml")


def addresses(text: str) -> list[str]:
    return list(plan_study(parse_study(tomllib.loads(text))).runs)


def test_the_recipe_of_a_run_is_that_run():
    text = SMALL + 'method = "slimming"\nrecover = "scratch-b"\noptions.epochs = 3\nprotect = ["conv1"]\nseed = 4\n'
    (run,) = runs(text)
    words = "\n".join(f"{key} = {json.dumps(value)}" for key, value in run.words().items())
    assert addresses(words) == addresses(text)


def test_saying_a_default_changes_nothing():
    said = (
        'data = "digits"\nmethod = "l1"\nrecover = "finetune"\nepochs = 40\nrecover_lr = 0.001\nseed = 0\nfloor = 0.1'
    )
    assert addresses(SMALL + said) == addresses(SMALL)
    assert addresses(SMALL.replace("50%", "0.5")) == addresses(SMALL)


@pytest.mark.parametrize("more", ["seed = 1", "limit_test = 31", "lr = 0.2", "floor = 0.2", "epochs = 39"])
def test_whatever_changes_the_result_changes_the_address(more: str):
    base = SMALL if "limit_test" not in more else SMALL.replace("limit_test = 32\n", "")
    assert addresses(base + more) != addresses(SMALL)


def test_runs_share_their_stages():
    plan = plan_study(
        parse_study(
            tomllib.loads(
                SMALL + 'method = ["l1", "slimming"]\nrecover = ["finetune", "scratch-e", "scratch-b"]\nseed = [0, 1]'
            )
        )
    )
    assert plan.counts() == {"dense": 2, "cut": 4, "recover": 12}
    order = list(plan.stages)
    assert all(order.index(needed) < order.index(s.address) for s in plan.stages.values() for needed in s.needs)
    assert len({s.folder for s in plan.stages.values()}) == len(plan.stages)


def test_addresses_stay_what_they_are():
    # A change here makes every study that was ever run begin again: raise stages.SCHEMA only where results change.
    stage = Stage("cut", {"b": [1, 2.5], "a": {"é": None}}, ("0" * 64,), "any label", {"any": "place"})
    assert stage.address == "d71755eeeebe744e6f24ea2a56fcb22c7054f517a03c96b08996a5391b600386"
    assert stage.folder == f"stages/cut-any-label-{stage.address[:12]}"


def test_a_cap_on_scratch_b_is_of_scratch_b_alone():
    text = SMALL + 'recover = ["finetune", "scratch-e", "scratch-b"]\n'
    free, capped = runs(text), runs(text + "scratch_b_cap = 2\n")
    assert [run.job.scratch_b_cap for run in capped] == [None, None, 2]
    assert [repr(a) == repr(b) for a, b in zip(free, capped, strict=True)] == [True, True, False]
    assert "scratch_b_cap = 0.5" in problems(text + "scratch_b_cap = 0.5\n")


def test_how_often_one_looks_can_be_said():
    (run,) = runs(SMALL + "training.evaluate_every = 5\n")
    assert run.job.config.evaluate_every == 5
    assert "evaluate_every=0" in problems(SMALL + "training.evaluate_every = 0\n")
