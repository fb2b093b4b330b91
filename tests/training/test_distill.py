"""Knowledge distillation: the loss by hand, the teacher left alone, and teachers that cannot teach."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur._errors import UnknownName, UsageError
from secateur.training import TrainConfig, fit
from secateur.training.distill import Tutor, check_teacher, distillation, distillation_loss


def test_the_loss_worked_out_by_hand():
    student = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    teacher = torch.tensor([[0.0, 4.0], [8.0, 0.0]])
    labels = torch.tensor([0, 1])

    def softmax(a: float, b: float) -> tuple[float, float]:
        total = math.exp(a) + math.exp(b)
        return math.exp(a) / total, math.exp(b) / total

    hard = -(math.log(softmax(2, 0)[0]) + math.log(softmax(0, 4)[1])) / 2
    soft = 0.0
    for s, t in (((2, 0), (0, 4)), ((0, 4), (8, 0))):
        p, q = softmax(t[0] / 4, t[1] / 4), softmax(s[0] / 4, s[1] / 4)
        soft += sum(a * math.log(a / b) for a, b in zip(p, q)) / 2
    found = float(distillation_loss(student, teacher, labels))
    assert found == pytest.approx(0.1 * hard + 0.9 * 16 * soft, rel=1e-5)
    assert float(distillation_loss(student, teacher, labels, share=0.0)) == pytest.approx(hard, rel=1e-6)
    assert float(distillation_loss(student, student, labels, share=1.0)) == pytest.approx(0.0, abs=1e-6)


class Noisy(nn.Sequential):
    """Has a dropout and a batch norm, whose training modes would show."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


def test_the_teacher_teaches_in_evaluation_mode_and_stays_as_it_is():
    teacher, student = Noisy().train(), nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    before = copy.deepcopy(teacher.state_dict())
    objective = distillation(teacher)
    x, y = torch.randn(6, 1, 4, 4), torch.randint(3, (6,))
    loss, logits = objective(student, x, y)
    loss.backward()
    with torch.no_grad():
        told = copy.deepcopy(teacher).eval()(x)
    torch.testing.assert_close(loss.detach(), distillation_loss(logits.detach(), told, y))
    assert teacher.training
    assert all(torch.equal(t, before[k]) for k, t in teacher.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())


def test_a_student_learns_what_only_the_teacher_knows():
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        teacher[1].weight.mul_(8)
    x = torch.randn(64, 1, 4, 4)
    wrong = torch.zeros(64, dtype=torch.int64)
    student = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    config = TrainConfig(epochs=60, lr=0.1, schedule="constant")
    fit(student, [(x, wrong)], config, objective=distillation(teacher, share=1.0), progress=False, device="cpu")
    agree = float((student(x).argmax(1) == teacher(x).argmax(1)).float().mean())
    assert agree > 0.9


def test_numbers_out_of_range():
    with pytest.raises(UsageError) as caught:
        distillation(Noisy(), share=1.5, temperature=0.0)
    assert "share=1.5" in str(caught.value)
    assert "temperature=0.0" in str(caught.value)


def test_a_teacher_of_other_classes_is_refused_before_anything_happens(tmp_path: Any):
    student, x = Noisy().eval(), torch.randn(1, 1, 4, 4)
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 7))
    with pytest.raises(UsageError, match="does not match the classes") as caught:
        check_teacher(other, student, x)
    assert "(1, 7)" in str(caught.value)
    assert "3 classes" in str(caught.value)
    with pytest.raises(UsageError, match="does not run on the example input"):
        check_teacher(nn.Conv2d(5, 5, 1), student, x)
    asked: dict[str, Any] = {"budget": sc.Budget(params=0.5), "recover": "finetune", "out": tmp_path / "run"}
    with pytest.raises(UsageError, match="does not match the classes"):
        sc.prune(student, x, teacher=other, train_data=[(x, torch.zeros(1))], **asked)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UnknownName, match="dens"):
        sc.prune(student, x, teacher="dens", train_data=[(x, torch.zeros(1))], **asked)


def test_every_method_can_be_taught_and_the_card_says_by_whom():
    student, x = Noisy().eval(), torch.randn(1, 1, 4, 4)
    data = [(torch.randn(8, 1, 4, 4), torch.randint(3, (8,))) for _ in range(2)]
    asked: dict[str, Any] = {"budget": sc.Budget(params=0.6), "recover": "finetune", "epochs": 1, "train_data": data}
    quiet: dict[str, Any] = {"latency_runs": 0, "progress": False, "round_to": 1, "config": TrainConfig(epochs=1)}
    said = []
    for teacher in ("dense", "none", Noisy(), None):
        card = sc.prune(student, x, teacher=teacher, **asked, **quiet).card
        assert card.recovery is not None
        said.append(card.recovery.settings.get("teacher"))
    assert said == ["dense", None, "given", None]
    assert Tutor("dense", student).settings() == {
        "teacher": "dense",
        "teacher_share": 0.9,
        "teacher_temperature": 4.0,
    }
