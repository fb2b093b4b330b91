"""Networks of other libraries: diffusion, detection, segmentation, medicine, graphs, sound, tables.

``library_models.json`` says of each by which class or function it is made, from what, and what it is given; most are
small ones of their kind, and nothing is downloaded. The packages are in no extra, because some pin versions of PyTorch;
one that is not installed is left out (``pip install --no-deps diffusers`` and so on).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur._errors import InputError, UnknownName

MODELS = Path(__file__).with_suffix(".json")


@cache
def described() -> dict[str, dict[str, dict[str, Any]]]:
    """Of every package, by the names that networks have here, what makes them."""
    return json.loads(MODELS.read_text(encoding="utf-8"))


def installed() -> list[str]:
    """``package.network`` for all packages that are installed."""
    found = [package for package in described() if importlib.util.find_spec(package) is not None]
    return [f"{package}.{name}" for package in found for name in described()[package]]


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that are installed, by the names that they are imported by."""
    distributions = importlib.metadata.packages_distributions()
    found = sorted({name.partition(".")[0] for name in installed()})
    return {p: importlib.metadata.version(distributions[p][0]) if p in distributions else None for p in found}


def build_library(name: str) -> tuple[nn.Module, Any]:
    """A network with random weights, and example inputs.

    Args:
        name: ``package.network``.

    Raises:
        UnknownName: there is no such network.
        InputError: its package is not installed, or does not make it any more.
    """
    package, _, own = name.partition(".")
    if own not in described().get(package, {}):
        raise UnknownName("network", name, [f"{p}.{n}" for p, models in described().items() for n in models])
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{name} needs {package}\npip install --no-deps {package.replace('_', '-')}")
    what = described()[package][own]
    torch.manual_seed(0)
    try:
        model = _made(what).eval()
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise InputError(f"{package} does not make {own}: {type(error).__name__}: {error}") from error
    wake(model)
    given = _given(what["given"], torch.Generator().manual_seed(0))
    return model, tuple(given) if isinstance(given, list) else given


@torch.no_grad()
def wake(model: nn.Module) -> None:
    """Make parameters random that begin as zeros, in place: they would hide what is behind them."""
    for p in model.parameters():
        if p.is_floating_point() and p.dim() and not p.any():
            p.normal_(0, 0.02)


def _made(what: dict[str, Any]) -> Any:
    """What a description makes: ``{"make": "module:name", "with": keywords}``, which may hold further ones."""
    module, _, path = what["make"].partition(":")
    maker: Any = importlib.import_module(module)
    for part in path.split("."):
        maker = getattr(maker, part)
    return maker(**{key: _value(value) for key, value in what["with"].items()})


def _value(value: Any) -> Any:
    """Numbers, texts, and tuples of them; where a package insists on a list, ``{"list": values}``."""
    if isinstance(value, dict) and "make" in value:
        return _made(value)
    if isinstance(value, dict):
        return [*_value(value["list"])] if "list" in value else {key: _value(item) for key, item in value.items()}
    return tuple(_value(item) for item in value) if isinstance(value, list) else value


def _given(what: Any, generator: torch.Generator) -> Any:
    """Inputs as described: tensors by their shape, with numbers below a bound, by one number, or by all of them."""
    if isinstance(what, list):
        return [_given(item, generator) for item in what]
    if not isinstance(what, dict):
        return what
    if not what.keys() & {"shape", "values"}:
        return {key: _given(item, generator) for key, item in what.items()}
    return _tensor(what, generator)


def _tensor(what: dict[str, Any], generator: torch.Generator) -> Tensor:
    dtype = getattr(torch, what.get("dtype", "float32"))
    if "values" in what:
        return torch.tensor(what["values"], dtype=dtype)
    if "fill" in what:
        return torch.full(what["shape"], what["fill"], dtype=dtype)
    if "below" in what:
        return torch.randint(what["below"], what["shape"], generator=generator)
    return torch.randn(what["shape"], generator=generator)
