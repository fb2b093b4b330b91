"""What a card says about the machine."""

from __future__ import annotations

import json
import platform

import torch

from secateur.measure import hardware, versions


def test_the_machine_is_plain_data():
    found = hardware()
    assert set(found) == {"cpu", "cores", "threads", "memory_gib", "gpu", "os"}
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["threads"] == torch.get_num_threads()
    assert platform.node() not in found["os"].split()


def test_versions():
    found = versions()
    assert set(found) == {"python", "torch", "torchvision", "timm", "numpy", "secateur"}
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
