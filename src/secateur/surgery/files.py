"""``save`` and ``load``: a pruned model is ``model.safetensors`` + ``plan.json``, nothing else and never pickle.

Each file names the hash of the other, so a truncated file, an edited one or two files of different runs are refused
before anything is loaded. Both are written whole under temporary names, and only then take their names together.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from secateur._atomic import write_atomic
from secateur._errors import FileError, UsageError, WeightsError
from secateur.surgery.cut import cut
from secateur.surgery.plan import Plan
from secateur.surgery.sparse import hold, load_masks, masks_of, save_masks

WEIGHTS, PLAN = "model.safetensors", "plan.json"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with every tied tensor once."""
    found: dict[str, Tensor] = {}
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        found[name] = tensor.detach().contiguous()
    return found


def save(model: nn.Module, folder: str | Path, *, source: Mapping[str, Any] | None = None) -> Path:
    """Write a cut model.

    Args:
        model: the result of ``cut``, trained or not.
        folder: where ``model.safetensors`` and ``plan.json`` go; created if missing.
        source: how to build the dense model by name (``{"name": "cifar-resnet56", "num_classes": 10}``), so that
            ``load`` needs no ``model=``.

    Raises:
        UsageError: the model was not cut by Secateur.
        FileError: the files cannot be written; files that were there stay whole.
    """
    plan = getattr(model, "secateur_plan", None)
    if not isinstance(plan, Plan):
        raise UsageError("save() takes the result of sc.cut: this model carries no plan")
    folder = Path(folder)
    body = json.dumps({"plan": json.loads(plan.to_json()), "source": dict(source) if source else None}, sort_keys=True)
    weights = safetensors.torch.save(state(model), metadata={"plan_sha256": _hash(body.encode())})
    document = {"weights_sha256": _hash(weights), "weights_bytes": len(weights), **json.loads(body)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_pair(folder, weights, json.dumps(document, indent=1))
    except OSError as error:
        raise FileError(
            f"cannot write to {folder}: {error.strerror or error}\nwhat was there before is unchanged"
        ) from error
    save_masks(masks_of(model), folder, document["weights_sha256"])
    return folder


def _write_pair(folder: Path, weights: bytes, plan: str) -> None:
    """Both files or neither: one that takes its name alone would belong to no run."""
    mark = uuid.uuid4().hex
    new_weights, new_plan, old = (folder / f".{mark}.{name}" for name in (WEIGHTS, PLAN, f"old.{WEIGHTS}"))
    leftovers = [new_weights, new_plan, old]
    try:
        write_atomic(new_weights, weights)
        write_atomic(new_plan, plan)
        before = (folder / WEIGHTS).exists()
        if before:
            _second_name(folder / WEIGHTS, old)
        try:
            os.replace(new_weights, folder / WEIGHTS)
            os.replace(new_plan, folder / PLAN)
        except BaseException:
            if not before:
                (folder / WEIGHTS).unlink(missing_ok=True)
            elif not new_weights.exists():
                # Should even the way back fail, this is the only copy of what was there.
                leftovers.remove(old)
                os.replace(old, folder / WEIGHTS)
            raise
    finally:
        for path in leftovers:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _second_name(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:
        # Some file systems have no hard links.
        shutil.copyfile(path, other)


def load(folder: str | Path, *, model: nn.Module | None = None) -> nn.Module:
    """Read what :func:`save` wrote.

    Args:
        folder: holds ``model.safetensors`` and ``plan.json``.
        model: the dense model, freshly built; not needed for models that Secateur builds by name.

    Returns:
        The cut model with its weights.

    Raises:
        FileError: a file is missing, truncated, tampered with or of another run.
        PlanError: ``model`` is not the one that was pruned.
        UsageError: ``model`` is needed.
    """
    document, weights = read(folder)
    plan = Plan.from_json(json.dumps(document["plan"]))
    if model is None:
        model = build_source(document.get("source"), folder)
    small = cut(model, plan)
    tensors = OrderedDict(safetensors.torch.load(weights))
    # Some modules read the version of their state from here, and are as old as can be without it.
    tensors._metadata = small.state_dict()._metadata  # type: ignore[attr-defined]
    # Some models read their state in a way of their own, and do not say what was missing.
    said = small.load_state_dict(tensors, strict=False) or nn.Module.load_state_dict(small, tensors, strict=False)
    missing, unexpected = said
    tied = set(small.state_dict()) - set(state(small))
    missing = [name for name in missing if name not in tied]
    if missing or unexpected:
        raise WeightsError(f"{folder}: missing {missing[:5]}, unexpected {unexpected[:5]}")
    hold(small, load_masks(folder, _hash(weights)))
    return small.eval()


def build_source(source: Mapping[str, Any] | None, folder: str | Path) -> nn.Module:
    """The dense model that a saved run names.

    Raises:
        UsageError: it names none.
    """
    from secateur.models import build

    if not source:
        raise UsageError(
            f"{folder} does not name a model that can be built: pass model=, the dense model, freshly built"
        )
    return build(source["name"], num_classes=source.get("num_classes"), in_channels=source.get("in_channels"))


def read(folder: str | Path) -> tuple[dict[str, Any], bytes]:
    """The checked contents of both files: the plan's document and the bytes of the weights.

    Raises:
        FileError: see :func:`load`.
    """
    folder = Path(folder)
    contents = []
    for name in (PLAN, WEIGHTS):
        try:
            contents.append((folder / name).read_bytes())
        except OSError as error:
            raise FileError(
                f"{folder / name} cannot be read: {error.strerror or error}\n"
                "sc.save writes it, and so does: secateur prune MODEL --out DIR"
            ) from error
    try:
        document = json.loads(contents[0])
        expected, size = document.pop("weights_sha256"), document.pop("weights_bytes")
        body = json.dumps({"plan": document["plan"], "source": document["source"]}, sort_keys=True)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{folder / PLAN} is cut short or not a plan: {error}") from error
    weights = contents[1]
    if len(weights) != size:
        raise FileError(
            f"{folder / WEIGHTS} has {len(weights):,} bytes, {size:,} were written: it is cut short or replaced"
        )
    if _hash(weights) != expected:
        raise FileError(
            f"{folder / WEIGHTS} was changed after it was written (its hash does not match); nothing was loaded"
        )
    if _metadata(weights).get("plan_sha256") != _hash(body.encode()):
        raise FileError(
            f"{folder / PLAN} was changed after it was written (its hash does not match); nothing was loaded"
        )
    return document, weights


def _metadata(weights: bytes) -> dict[str, str]:
    try:
        (length,) = struct.unpack("<Q", weights[:8])
        return dict(json.loads(weights[8 : 8 + length])["__metadata__"])
    except (struct.error, ValueError, KeyError, TypeError):
        return {}
