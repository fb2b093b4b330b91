"""The bar is for people who look at a terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest

from secateur.training import TrainConfig, fit

CONFIG = TrainConfig(epochs=2, lr=0.05)


def test_a_terminal_sees_the_epoch_and_the_loss(toy, blobs, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    fit(toy(), blobs, CONFIG, device="cpu")
    captured = capsys.readouterr()
    assert "epoch 2/2" in captured.err
    assert "loss" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(("terminal", "wanted"), [("0", True), ("1", False)])
def test_a_log_file_and_whoever_asks_for_silence_get_it(toy, blobs, capsys, monkeypatch, terminal, wanted):
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    fit(toy(), blobs, CONFIG, progress=wanted, device="cpu")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_the_import_is_light():
    code = (
        "import sys, secateur.training, secateur.measure\n"
        "print([m for m in ('accelerate', 'torchvision', 'timm', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
