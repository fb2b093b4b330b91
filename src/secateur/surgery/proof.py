"""Shapes are not everything: does the model that transformers builds compute what the cut model computes?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from secateur.graph.adapters import plain_settings
from secateur.graph.capture import as_call
from secateur.graph.luck import with_same_luck
from secateur.graph.skeleton import one_thread
from secateur.graph.trees import map_tensors, output_tensors
from secateur.models import example_inputs
from secateur.surgery.config import rebuilt, shapes
from secateur.surgery.plan import ConfigField

#: Largest relative difference, in float32, of two models that may use different kernels of attention.
TOLERANCE = 1e-4


class Proof:
    """Models that transformers builds beside a cut model, whose parameters are overwritten.

    Args:
        dense: only its class and its configuration are looked at.
        small: the cut model.
        example: inputs as for ``trace``; made up if there are none.
    """

    def __init__(self, dense: nn.Module, small: nn.Module, example: Any = None):
        self._dense = dense
        self._small = plain_settings(small.cpu().float().eval())
        self._shapes = shapes(self._small)
        self._given = example
        _stir(self._small)

    @cached_property
    def _call(self) -> tuple[tuple, dict]:
        given = example_inputs(self._small) if self._given is None else self._given
        return map_tensors(as_call(given), lambda t: t.cpu().float() if t.is_floating_point() else t.cpu())

    @cached_property
    def _expected(self) -> list[Tensor]:
        return self._outputs(self._small)

    def _outputs(self, model: nn.Module) -> list[Tensor]:
        return list(output_tensors(with_same_luck(model, *self._call)))

    def failure(self, fields: Sequence[ConfigField]) -> str:
        """Why the model rebuilt from these fields is not the cut model; empty if it is."""
        try:
            twin = rebuilt(self._dense, fields, "cpu")
        except Exception as error:
            return f"it does not build: {_first_line(error) or type(error).__name__}"
        want, found = self._shapes, shapes(twin)
        if found != want:
            odd = next(n for n in (*want, *found) if want.get(n) != found.get(n))
            return f"{odd} would have shape {found.get(odd)}, not {want.get(odd)}"
        twin = plain_settings(twin.float().eval())
        twin.load_state_dict(self._small.state_dict(), strict=False)
        try:
            with torch.no_grad(), one_thread():
                pairs = list(itertools.zip_longest(self._expected, self._outputs(twin)))
        except Exception as error:
            return f"it could not be run: {type(error).__name__}: {_first_line(error)}"
        for a, b in pairs:
            if a is None or b is None or a.shape != b.shape:
                return "it computes something else"
            scale = float(a.abs().max()) if a.numel() else 0.0
            if a.numel() and not float((a.double() - b.double()).abs().max()) <= TOLERANCE * max(scale, 1e-30):
                return "it computes something else"
        return ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else ""


def _stir(model: nn.Module) -> None:
    """Random parameters in place: freshly built models have zeros and ones that hide a difference."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.is_floating_point()):
            if parameter.dim() > 1:
                reach = (3 / max(parameter[0].numel(), 1)) ** 0.5
                parameter.uniform_(-reach, reach, generator=generator)
            else:
                parameter += 0.3 * (2 * torch.rand(parameter.shape, generator=generator) - 1)
