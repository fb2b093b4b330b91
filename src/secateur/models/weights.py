"""Weights from a safetensors file into a model: all of them or none."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from secateur._errors import FileError, WeightsError

PREFIX = "module."
# Counts the batches seen; no result depends on it when BN has a momentum, and older files do not hold it.
OPTIONAL = "num_batches_tracked"


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copy the tensors of a safetensors file into ``model``, in place.

    A prefix ``module.`` that all keys share is removed; ``num_batches_tracked`` may be missing; of tied tensors one
    is enough. Nothing is changed unless everything fits.

    Raises:
        FileError: the file is missing, cut short or not safetensors.
        WeightsError: keys are missing or unexpected or shapes differ; the message lists all of them.
    """
    path = Path(path)
    tensors = _read(path)
    if tensors and all(key.startswith(PREFIX) for key in tensors):
        tensors = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
    wanted = model.state_dict()
    tied: dict[tuple[int, int], set[str]] = {}
    for key, value in wanted.items():
        tied.setdefault((value.untyped_storage().data_ptr() or id(value), value.storage_offset()), set()).add(key)
    given = {key for keys in tied.values() if keys & tensors.keys() for key in keys}
    missing = [key for key in wanted if key not in given and not key.endswith(OPTIONAL)]
    unexpected = [key for key in tensors if key not in wanted]
    shapes = [
        f"{key}: the model has {tuple(wanted[key].shape)}, the file {tuple(value.shape)}"
        for key, value in tensors.items()
        if key in wanted and wanted[key].shape != value.shape
    ]
    problems = [
        f"{title} ({len(lines)}):\n  " + "\n  ".join(lines)
        for title, lines in (("missing", missing), ("unexpected", unexpected), ("another shape", shapes))
        if lines
    ]
    if problems:
        raise WeightsError(
            f"the weights in {str(path)!r} do not fit {type(model).__name__}\n"
            + "\n".join(problems)
            + "\nnothing was loaded; build the model these weights belong to (its name, its number of classes)"
        )
    model.load_state_dict(tensors, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileError(f"the weights file {str(path)!r} {what}\ngive the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(
            f"{str(path)!r} cannot be read as safetensors ({path.stat().st_size:,} bytes): {error}\n"
            "it is cut short or another format; fetch it again, or convert it with safetensors.torch.save_file"
        ) from None
