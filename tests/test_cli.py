"""The command line: every verb runs, and every mistake gets one screen, exit code 2 and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from secateur import cli
from secateur.methods import REGISTRY, WeightMethod
from secateur.models import build

Command = Callable[..., "Outcome"]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which has to be JSON and nothing else."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Outcome:
    """The command as a shell would call it, in this process."""
    argv, sys.argv = sys.argv, ["secateur", *map(str, words)]
    capsys.readouterr()
    try:
        cli.main()
        code: Any = 0
    except SystemExit as error:
        code = error.code or 0
    finally:
        sys.argv = argv
    said = capsys.readouterr()
    return Outcome(code, str(said.out), str(said.err))


@pytest.fixture
def secateur(capsys: pytest.CaptureFixture[str]) -> Command:
    return lambda *words: run(capsys, *words)


SMALL = ("--data", "digits", "--limit", "200", "--limit-test", "100", "--epochs", "1")
DIGITS = ("prune", "digits-resnet", *SMALL, "--train", "1", "--lr", "0.05")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run, and the card that it printed."""
    out = tmp_path_factory.mktemp("cli") / "run"
    words = [*DIGITS, "--budget", "macs=60%", "--compare", "scratch-e", "--out", str(out), "--json"]
    program = "from secateur.cli import main; main()"
    # A process of its own: nothing may be on standard output but the card.
    done = subprocess.run([sys.executable, "-W", "error", "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


# -- verbs that run --------------------------------------------------------------------------------------------------


def test_prune(pruned: tuple[Path, Any]):
    out, card = pruned
    assert card == json.loads((out / "card.json").read_text())
    assert {"model.safetensors", "plan.json", "recipe.toml", "log.jsonl", "report.html"} <= {
        p.name for p in out.iterdir()
    }
    assert card["exactness"]["exact"]
    assert card["pruned"]["macs"] <= 0.6 * card["dense"]["macs"]
    assert card["recovery"]["name"] == "finetune"
    assert [c["name"] for c in card["comparisons"]] == ["scratch-e"]
    assert "digits-resnet" in card["reproduce"]
    assert "macs=60%" in card["reproduce"]


def test_prune_tells_a_person(secateur: Command, tmp_path: Path):
    done = secateur(*DIGITS, "--budget", "macs=60%", "--recover", "none", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    for words in ("dense", "right after the cut", "exact: cut and masked model differ by at most", "report: "):
        assert words in done.out


@pytest.mark.parametrize("method", REGISTRY)
def test_prune_with_weights_from_a_file(secateur: Command, tmp_path: Path, method: str):
    save_file(build("digits-resnet").state_dict(), tmp_path / "w.safetensors")
    weights = issubclass(REGISTRY[method], WeightMethod)
    done = secateur(
        "prune",
        "digits-resnet",
        *SMALL,
        "--weights",
        tmp_path / "w.safetensors",
        "--recover",
        "none",
        "--method",
        method,
        "--base-epochs",
        1,
        "--budget",
        "weights=10%" if weights else "params=100k",
        "--json",
    )
    assert done.json["method"] == method
    # A search lands in a band around its budget.
    assert done.json["pruned"]["params"] <= (105_000 if method == "tas" else 100_000)


def test_inspect(secateur: Command):
    done = secateur("inspect", "digits-resnet")
    assert done.code == 0
    assert "9 groups can be cut, 1 are locked" in done.out
    assert "locked: reaches the model's output" in done.out
    assert "Where the multiply-accumulates are" in done.out
    found = secateur("inspect", "digits-resnet", "--json").json
    assert sum(found["module_macs"].values()) == found["macs"]
    assert {g["name"] for g in found["groups"]} >= {"conv1", "layer1.0.conv1", "linear"}
    larger = secateur("inspect", "digits-resnet", "--input", "1x1x16x16", "--json").json
    assert larger["macs"] > 3 * found["macs"]
    assert larger["params"] == found["params"] == 696_042


def test_inspect_says_where_the_work_is_by_width(secateur: Command):
    done = secateur("inspect", "digits-resnet")
    assert "In the layers of which width they are" in done.out
    assert "--explain NAME" in done.out
    groups = {g["name"]: g["macs"] for g in secateur("inspect", "digits-resnet", "--json").json["groups"]}
    assert f"{max(n for name, n in groups.items() if name != 'linear'):,}" in done.out


@pytest.mark.parametrize("name", ["layer2.0.conv1", "layer2.0.conv1.weight", "layer2.0.bn1.bias", "layer2"])
def test_explain(secateur: Command, name: str):
    done = secateur("inspect", "digits-resnet", "--explain", name)
    assert done.code == 0
    assert done.out.startswith(f"{name}: ")
    assert "of the MACs" in done.out
    assert "group " in done.out
    found = secateur("inspect", "digits-resnet", "--explain", name, "--json").json
    assert found["model"] == "digits-resnet"
    assert found["name"] == name
    assert all(tie["chain"] for group in found["groups"] for tie in group["ties"])


def test_explain_of_a_name_that_does_not_exist(secateur: Command):
    done = secateur("inspect", "digits-resnet", "--explain", "layer2.0.cnov1")
    refused(done, "unknown module, parameter or group 'layer2.0.cnov1'", "did you mean 'layer2.0.conv1'")


@pytest.mark.parametrize(
    ("verb", "known"), [("methods", "l1"), ("models", "cifar-resnet56"), ("data", "digits"), ("models", "timm:NAME")]
)
def test_tables(secateur: Command, verb: str, known: str):
    assert known in secateur(verb, "--json").json
    done = secateur(verb)
    assert done.code == 0
    assert known in done.out


def test_doctor(secateur: Command):
    assert set(secateur("doctor", "--json").json) == {"hardware", "versions", "exactness"}
    assert "exact: cut and masked model differ" in secateur("doctor").out.replace("\n", " ")


def test_bench(secateur: Command, pruned: tuple[Path, Any]):
    rows = secateur("bench", pruned[0], "--backends", "eager", "--runs", "5", "--batch", "2", "--json").json
    assert [(r["backend"], r["model"], r["reason"]) for r in rows] == [
        ("eager", "dense", None),
        ("eager", "pruned", None),
    ]
    assert all(r["latency_ms"]["runs"] == 5 for r in rows)
    done = secateur("bench", pruned[0], "--backends", "eager", "--runs", "3")
    assert done.code == 0
    assert "eager" in done.out


def test_bench_of_another_input_than_the_models_usual_one(secateur: Command, tmp_path: Path):
    """Grey digits through a network that is made for colour: the run remembers what it was measured on."""
    done = secateur(
        "prune", "cifar-resnet20", *SMALL[:2], "--limit", "16", "--limit-test", "16", "--recover", "none",
        "--weights", _weights(tmp_path), "--budget", "macs=50%", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = secateur("bench", tmp_path / "run", "--backends", "eager", "--runs", "3", "--json").json
    assert all(r["reason"] is None for r in rows)


def _weights(folder: Path) -> Path:
    path = folder / "grey.safetensors"
    save_file(build("cifar-resnet20", in_channels=1).state_dict(), path)
    return path


def test_report(secateur: Command, pruned: tuple[Path, Any], tmp_path: Path):
    page = tmp_path / "two.html"
    assert secateur("report", pruned[0], pruned[0], "--out", page, "--json").json == {"report": str(page)}
    assert page.read_text().count("digits-resnet") > 1
    assert "report: " in secateur("report", pruned[0]).out


def test_help(secateur: Command):
    done = secateur("--help")
    assert done.code == 0
    for verb in ("demo", "prune", "inspect", "bench", "report", "methods", "models", "data", "doctor"):
        assert verb in done.out
        assert secateur(verb, "--help").code == 0


def test_stopping_by_hand(secateur: Command, monkeypatch: pytest.MonkeyPatch):
    def stop(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("secateur.workbench.build", stop)
    done = secateur("inspect", "digits-resnet")
    assert (done.code, done.out) == (130, "")
    assert "Traceback" not in done.err


# -- mistakes ----------------------------------------------------------------------------------------------------------


def refused(done: Outcome, *words: str) -> None:
    """Exit code 2, nothing on standard output, and one screen on standard error that says so."""
    assert done.code == 2, (done.out, done.err)
    assert done.out == ""
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 24
    for word in words:
        assert word in done.err, done.err


NAMES = {
    "model": (["prune", "digits-rsnet", "--train", "1", "--budget", "macs=50%"], ["'digits-rsnet'", "'digits-resnet'"]),
    "library model": (["inspect", "torchvision:resnet5"], ["'resnet5'", "did you mean", "resnet50"]),
    "data": ([*DIGITS, "--budget", "macs=50%", "--data", "digit"], ["'digit'", "did you mean 'digits'"]),
    "method": ([*DIGITS, "--budget", "macs=50%", "--method", "l11"], ["'l11'", "did you mean 'l1'"]),
    "flag": ([*DIGITS, "--buget", "macs=50%"], ["--buget", "--budget"]),
    "verb": (["prnue", "digits-resnet"], ["'prnue'", "'prune'"]),
    "preset": ([*DIGITS, "--preset", "resnet56-C"], ["'resnet56-C'", "did you mean 'resnet56-B'"]),
    "another model's preset": ([*DIGITS, "--preset", "resnet56-B"], ["'resnet56-B' is for cifar-resnet56"]),
    "recovery": ([*DIGITS, "--budget", "macs=50%", "--recover", "fintune"], ["did you mean 'finetune'"]),
    "comparison": ([*DIGITS, "--budget", "macs=50%", "--compare", "scratch-e,scratchb"], ["did you mean 'scratch-b'"]),
    "ranking": ([*DIGITS, "--budget", "macs=50%", "--ranking", "globl"], ["did you mean 'global'"]),
    "protect": ([*DIGITS, "--budget", "macs=50%", "--protect", "layer1,layer9"], ["'layer9'", "layer3.0.conv1"]),
    "backend": (["bench", "RUN", "--backends", "eagr"], ["'eagr'", "did you mean 'eager'"]),
}
NUMBERS = {
    "below the floor": ([*DIGITS, "--budget", "macs=1%"], ["cannot be reached", "what holds it", "at least macs="]),
    "unreadable": ([*DIGITS, "--budget", "half"], ["'half'", "write macs=50%"]),
    "too much": ([*DIGITS, "--budget", "macs=200%"], ["more than the dense model"]),
    "none at all": ([*DIGITS], ["either a budget (macs=50%) or a preset"]),
    "budget and preset": ([*DIGITS, "--budget", "macs=50%", "--preset", "vgg16-A"], ["not both"]),
    "not a number": ([*DIGITS, "--budget", "macs=50%", "--round-to", "x"], ["--round-to"]),
    "several": ([*DIGITS, "--budget", "macs=50%", "--round-to", "0", "--floor", "3"], ["round_to must", "got 3.0"]),
    "no epochs": (["prune", "digits-resnet", "--train", "-1", "--budget", "macs=50%"], ["epochs=-1"]),
    "no images": ([*DIGITS, "--budget", "macs=50%", "--limit", "0"], ["limit=0"]),
    "no batch": (["bench", "RUN", "--backends", "eager", "--batch", "0"], ["--batch 0"]),
    "no runs": (["bench", "RUN", "--backends", "eager", "--runs", "0"], ["runs=0"]),
    "input that does not fit": (["inspect", "digits-resnet", "--input", "1x3x8x8"], ["(1, 3, 8, 8)", "3 channels"]),
    "images of another size": (
        ["prune", "lenet5", "--train", "1", "--budget", "macs=50%", "--input", "1x1x28x28"],
        ["1x1x28x28", "'digits' are: 1x1x8x8", "leave --input out"],
    ),
    "unreadable input": (["inspect", "digits-resnet", "--input", "8by8"], ["'8by8'", "1x3x224x224"]),
    "no weights": (["prune", "digits-resnet", "--budget", "macs=50%"], ["no weights yet", "--train EPOCHS"]),
    "no published weights": ([*DIGITS, "--budget", "macs=50%", "--pretrained"], ["no published weights"]),
}


@pytest.mark.parametrize("case", [*NAMES, *NUMBERS])
@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
def test_names_and_numbers(
    secateur: Command,
    pruned: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    as_json: bool,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("secateur.workbench.fit", lambda *args, **kwargs: pytest.fail("it began to train"))
    words, said = {**NAMES, **NUMBERS}[case]
    words = [str(pruned[0]) if word == "RUN" else word for word in words]
    out = ["--out", "run"] if words[0] == "prune" else []
    refused(secateur(*words, *out, *(["--json"] if as_json else [])), *said)
    assert list(tmp_path.iterdir()) == []


def cifar(folder: Path, label: int = 3, bytes_less: int = 0) -> Path:
    """A small CIFAR-10 in the binary layout."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        table = rng.integers(0, 256, (8, 3073), np.uint8)
        table[:, 0] = label
        body = table.tobytes()
        (folder / f"{name}.bin").write_bytes(body[: len(body) - bytes_less])
    return folder


CIFAR = ("prune", "cifar-resnet20", "--data", "cifar10", "--train", "1", "--budget", "macs=50%")


def test_data_that_are_missing(secateur: Command, tmp_path: Path):
    done = secateur(*CIFAR, "--data-dir", tmp_path / "nowhere", "--out", tmp_path / "run")
    refused(done, "'cifar10' was not found", str(tmp_path / "nowhere"), "--data-dir", "nothing is downloaded")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [({"bytes_less": 5}, ["is cut short", "data_batch_1.bin"]), ({"label": 10}, ["labels are not in 0 … 9", "10"])],
)
def test_data_that_are_damaged(secateur: Command, tmp_path: Path, spoilt: dict[str, int], said: list[str]):
    done = secateur(*CIFAR, "--data-dir", cifar(tmp_path / "data", **spoilt), "--out", tmp_path / "run")
    refused(done, *said)
    assert not (tmp_path / "run").exists()


def test_whole_data_of_that_kind_are_fine(secateur: Command, tmp_path: Path):
    done = secateur(*CIFAR, "--data-dir", cifar(tmp_path / "data"), "--recover", "none", "--json")
    assert done.json["data"] == "cifar10"


def test_weights_of_another_model(secateur: Command, tmp_path: Path):
    state = build("digits-resnet").state_dict()
    del state["conv1.weight"], state["bn1.bias"]
    state |= {"linear.weight": torch.zeros(7, 128), "fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}
    save_file(state, tmp_path / "w.safetensors")
    words = ("prune", "digits-resnet", *SMALL, "--budget", "macs=50%", "--weights", tmp_path / "w.safetensors")
    done = secateur(*words, "--out", tmp_path / "run")
    refused(done, "missing (2)", "conv1.weight", "bn1.bias", "unexpected (2)", "fc.weight", "fc.bias", "(7, 128)")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("body", "said"), [(None, "does not exist"), (-50, "cut short"), (b"not weights", "another format")]
)
def test_weights_that_cannot_be_read(secateur: Command, tmp_path: Path, body: Any, said: str):
    path = tmp_path / "w.safetensors"
    if body is not None:
        save_file(build("digits-resnet").state_dict(), path)
        path.write_bytes(path.read_bytes()[:body] if isinstance(body, int) else body)
    words = ("prune", "digits-resnet", *SMALL, "--budget", "macs=50%", "--weights", path)
    refused(secateur(*words, "--out", tmp_path / "run"), "w.safetensors", said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recover", ["none", "scratch-e"])
def test_a_loss_that_is_no_number(secateur: Command, tmp_path: Path, recover: str):
    train = [] if recover == "scratch-e" else ["--train", "1"]
    words = ["prune", "digits-resnet", *SMALL, *train, "--lr", "1e30", "--budget", "macs=50%", "--recover", recover]
    done = secateur(*words, "--out", tmp_path / "run")
    refused(done, "learning rate 1e+30", "lower learning rate")
    left = {path.name for path in (tmp_path / "run").iterdir()} if (tmp_path / "run").exists() else set()
    assert left <= {"log.jsonl", "checkpoints"}


@pytest.mark.parametrize("below", [(), ("deeper", "still")])
def test_a_folder_that_cannot_be_written(secateur: Command, tmp_path: Path, below: tuple[str, ...]):
    (tmp_path / "file").write_text("mine")
    done = secateur(*DIGITS, "--budget", "macs=50%", "--out", (tmp_path / "file").joinpath(*below))
    refused(done, "cannot write to", "file is not a folder", "--out")
    assert (tmp_path / "file").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_report_of_folders_without_a_card(secateur: Command, pruned: tuple[Path, Any], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    refused(
        secateur("report", pruned[0], tmp_path / "empty", tmp_path / "nowhere", "--out", tmp_path / "page.html"),
        str(tmp_path / "empty" / "card.json"),
        str(tmp_path / "nowhere" / "card.json"),
        "secateur prune",
    )
    assert not (tmp_path / "page.html").exists()


def test_bench_of_a_folder_without_a_run(secateur: Command, tmp_path: Path):
    refused(secateur("bench", tmp_path, "--backends", "eager"), str(tmp_path / "plan.json"), "secateur prune")


def test_bench_of_a_spoilt_run(secateur: Command, pruned: tuple[Path, Any], tmp_path: Path):
    for file in pruned[0].iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-1])
    refused(secateur("bench", tmp_path, "--backends", "eager"), "cut short")


def test_the_learning_rate_of_finetune_and_the_input_are_obeyed(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    words = ["prune", "digits-resnet", "--train", "1", "--limit", "128", "--limit-test", "100", "--budget", "macs=60%"]
    more = [
        "--epochs",
        "1",
        "--recover-lr",
        "0.02",
        "--input",
        "2x1x8x8",
        "--recalibrate",
        "2",
        "--out",
        str(tmp_path / "run"),
        "--json",
    ]
    done = run(capsys, *words, *more)
    assert done.code == 0, done
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["recovery"]["lr"] == 0.02
    assert card["input"] == "2x1x8x8"
    assert any("re-estimated on 2 training batches" in note for note in card["notes"])
