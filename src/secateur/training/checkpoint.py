"""The state of a run after an epoch, in one safetensors file: tensors as tensors, everything else as JSON.

Tensors are named ``model/<name>``, ``optimiser/<parameter index>/<entry>``, ``rng/<source>`` and
``hook/<index>/<entry>``; the file's metadata holds a JSON text with the rest and a SHA-256 over all of it. Nothing
is ever pickled. The learning-rate schedule is not stored: it is a function of the epoch and is stepped again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from secateur._atomic import write_atomic
from secateur._errors import FileError
from secateur.training import hooks as hook_calls
from secateur.training import rng
from secateur.training.history import EpochRecord, History
from secateur.training.schedule import TrainConfig

FILE_NAME = "checkpoint.safetensors"
_SCHEMA = 1


@dataclass
class Run:
    """The parts of a run that a checkpoint holds."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    config: TrainConfig
    hooks: Sequence[object] = ()
    generator: torch.Generator | None = None
    scaler: Any = None


def write(folder: str | Path, run: Run, history: History) -> Path:
    """Replace the checkpoint in ``folder`` by the present state, in one step.

    Raises:
        FileError: it could not be written; the one before is untouched.
    """
    path = Path(folder, FILE_NAME)
    tensors = {f"model/{name}": t for name, t in run.model.state_dict().items() if isinstance(t, Tensor)}
    optimiser, groups = _optimiser_state(run.optimiser, tensors)
    random_tensors, random_values = rng.capture(run.generator)
    tensors |= {f"rng/{name}": t for name, t in random_tensors.items()}
    hook_values: dict[str, dict[str, Any]] = {}
    for index, state in hook_calls.state_of(run.hooks).items():
        hook_values[index] = {k: v for k, v in state.items() if not isinstance(v, Tensor)}
        tensors |= {f"hook/{index}/{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    # Cloned, because safetensors refuses tied weights, which share their memory.
    tensors = {k: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for k, t in tensors.items()}
    state = {
        "schema": _SCHEMA,
        "fingerprint": _fingerprint(run),
        "history": [dataclasses.asdict(record) for record in history],
        "optimiser": optimiser,
        "groups": groups,
        "rng": random_values,
        "hooks": hook_values,
        "scaler": run.scaler.state_dict() if run.scaler is not None else None,
    }
    try:
        text = json.dumps(state)
    except TypeError as error:
        raise FileError(f"the state of a hook does not fit into JSON and tensors: {error}") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(tensors, {"state": text, "sha256": _digest(text, tensors)}))
    except OSError as error:
        kept = f"the one of the epoch before is whole: {path}" if path.is_file() else "there is none from before"
        raise FileError(f"the checkpoint could not be written: {error.strerror or error}\n{kept}") from error
    return path


def read(folder: str | Path, run: Run) -> History | None:
    """Bring a run to where the checkpoint in ``folder`` left it; ``None`` when there is none.

    Everything is read and compared before anything is changed.

    Raises:
        FileError: the file is truncated or tampered with, or belongs to another configuration or model.
    """
    path = Path(folder, FILE_NAME)
    if not path.is_file():
        return None
    state, tensors = _load(path)
    _compare(path, state["fingerprint"], _fingerprint(run))
    run.model.load_state_dict({k.removeprefix("model/"): t for k, t in tensors.items() if k.startswith("model/")})
    _load_optimiser(run.optimiser, state, tensors)
    if run.scaler is not None and state["scaler"]:
        run.scaler.load_state_dict(state["scaler"])
    states: dict[str, dict[str, Any]] = {index: dict(values) for index, values in state["hooks"].items()}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "hook":
            index, _, entry = rest.partition("/")
            states[index][entry] = tensor
    hook_calls.load_state(run.hooks, states)
    # Last, so that nothing above can draw from the generators again.
    rng.restore(
        {k.removeprefix("rng/"): t for k, t in tensors.items() if k.startswith("rng/")}, state["rng"], run.generator
    )
    return History(tuple(EpochRecord(**record) for record in state["history"]))


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    way_out = f"delete {path} to begin again"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FileError(f"the checkpoint is truncated or is not a safetensors file: {error}\n{way_out}") from None
    text = metadata.get("state", "")
    if metadata.get("sha256") != _digest(text, tensors):
        raise FileError(f"the checkpoint was changed after it was written: its hash does not match\n{way_out}")
    state = json.loads(text)
    if state["schema"] != _SCHEMA:
        raise FileError(f"the checkpoint has schema {state['schema']}, this version reads {_SCHEMA}\n{way_out}")
    return state, tensors


def _optimiser_state(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> tuple[dict[str, Any], list[Any]]:
    """Numbers of the optimiser's state by parameter index, and its groups; tensors are added to ``tensors``."""
    state = optimiser.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        numbers[str(index)] = {k: v for k, v in entries.items() if not isinstance(v, Tensor)}
        tensors |= {f"optimiser/{index}/{k}": v for k, v in entries.items() if isinstance(v, Tensor)}
    return numbers, state["param_groups"]


def _load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Any]] = {int(i): dict(numbers) for i, numbers in state["optimiser"].items()}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimiser":
            index, _, entry = rest.partition("/")
            like = parameters[int(index)]
            # The strides of the weight, so that fused updates take the same path as in a run without a break.
            same = entry != "step" and tensor.shape == like.shape
            entries[int(index)][entry] = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor) if same else tensor
    # JSON turns the tuples of Adam's betas into lists.
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in state["groups"]]
    optimiser.load_state_dict({"state": entries, "param_groups": groups})


def _fingerprint(run: Run) -> dict[str, Any]:
    shapes = {name: list(t.shape) for name, t in run.model.state_dict().items() if isinstance(t, Tensor)}
    trained = [name for name, p in run.model.named_parameters() if p.requires_grad]
    fingerprint = {"config": dataclasses.asdict(run.config), "shapes": shapes, "trained": trained}
    return json.loads(json.dumps(fingerprint))


def _compare(path: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    # A setting that is newer than the checkpoint was at what is its default now.
    had = {f.name: f.default for f in dataclasses.fields(TrainConfig)} | stored["config"]
    problems = [
        f"{name}: the checkpoint has {had[name]!r}, this run {value!r}"
        for name, value in wanted["config"].items()
        if had[name] != value
    ]
    for what in ("shapes", "trained"):
        if stored[what] != wanted[what]:
            differing = sorted({str(x) for x in _items(stored[what])} ^ {str(x) for x in _items(wanted[what])})
            problems.append(f"{what} of the model's tensors differ: {', '.join(differing[:4]) or 'their order'}")
    if problems:
        lines = ["the checkpoint belongs to another run:", *(f"- {p}" for p in problems)]
        raise FileError("\n".join([*lines, f"take another folder, or delete {path} to begin again"]))


def _items(value: dict[str, Any] | list[str]) -> list[Any]:
    return list(value.items()) if isinstance(value, dict) else value


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
