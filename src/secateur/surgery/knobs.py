"""Can a configuration say it? Which fields of a Hugging Face configuration give the shapes of a cut model.

Nothing here knows any family of models. Every field that could be a width is changed on a trial model on the meta
device, and the shapes that move with it are written down: that is linear, so the fields that give the shapes of a cut
are the solution of a small system. Shapes are not everything (``hidden_size / num_heads`` hides in the forward), so a
solution counts only if the model that transformers builds from it computes what the cut model computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from secateur.graph.adapters import plain_settings
from secateur.graph.skeleton import one_thread
from secateur.graph.trees import output_tensors
from secateur.models import example_inputs
from secateur.surgery.config import Shapes, rebuilt, shapes, whole_numbers
from secateur.surgery.linear import solve
from secateur.surgery.plan import ConfigField, Plan
from secateur.surgery.ranges import count

Axis = tuple[str, int]
#: Largest relative difference, in float32, of two models that may use different kernels of attention.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Knob:
    """Fields of one value that are turned together, and how many indices an axis gains when they gain 1."""

    fields: tuple[ConfigField, ...]
    effect: dict[Axis, Fraction]

    def at(self, value: int) -> list[ConfigField]:
        return [replace(f, value=value) for f in self.fields]

    @property
    def value(self) -> int:
        return self.fields[0].value


@dataclass(frozen=True)
class Knobs:
    """What the configuration of one model can do.

    Attributes:
        turning: knobs that change shapes.
        silent: fields that change no shape but may change what is computed.
        pins: fields that the class reads if they are there, at the value that it computes without them.
        trouble: why the configuration can do nothing at all.
    """

    turning: tuple[Knob, ...] = ()
    silent: tuple[ConfigField, ...] = ()
    pins: tuple[ConfigField, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class Expression:
    """The fields that say a cut, or the reason why none do."""

    fields: tuple[ConfigField, ...] = ()
    reason: str = ""


def find_knobs(model: nn.Module, related: set[int]) -> Knobs:
    """Turn every field that may say one of the numbers in ``related``, and see what moves.

    Args:
        model: dense, of transformers; only its configuration and its shapes are looked at.
        related: widths of groups, and sizes of the axes on which they lie.
    """
    dense = shapes(model)
    try:
        plain = shapes(rebuilt(model, ()))
    except Exception as error:
        return Knobs(trouble=f"{type(model).__name__} cannot be built from its own configuration: {error}")
    if plain != dense:
        odd = next(n for n in (*dense, *plain) if dense.get(n) != plain.get(n))
        return Knobs(trouble=f"its configuration does not build this model: {odd} differs")
    pins = _pins(model, dense)
    # Buffers may depend on a quotient of fields (rotary frequencies on the width of a head): they are for the proof.
    dense = shapes(model, buffers=False)
    config: Any = model.config
    fields = [f for f in whole_numbers(config) if any(n % f.value == 0 for n in related)] + list(pins)
    turning, silent, refused = [], [], []
    for field in fields:
        effect = _turn(model, dense, (field,), pins)
        if effect:
            turning.append(Knob((field,), effect))
        else:
            (refused if effect is None else silent).append(field)
    # OPT has a projection where hidden_size is not word_embed_proj_dim: alone, neither can be turned.
    for value in sorted({f.value for f in refused}):
        together = tuple(f for f in refused if f.value == value)
        if len(together) > 1 and (effect := _turn(model, dense, together, pins)):
            turning.append(Knob(together, effect))
    return Knobs(tuple(turning), tuple(silent), pins)


def _pins(model: nn.Module, dense: Shapes) -> tuple[ConfigField, ...]:
    """``head_dim``, where the class reads it but computes it from other fields as long as it is not there."""
    if getattr(model.config, "head_dim", None) is not None:
        return ()
    trained = shapes(model, buffers=False)
    computed = {getattr(m, "head_dim", None) for m in model.modules()}
    for size in sorted(n for n in computed if type(n) is int):
        pin = ConfigField("head_dim", None, size)
        try:
            # Most classes do not read it at all, which takes one trial to see.
            if _turn(model, trained, (pin,), (pin,)) and shapes(rebuilt(model, (pin,))) == dense:
                return (pin,)
        except Exception:
            continue
    return ()


def _turn(
    model: nn.Module, dense: Shapes, fields: tuple[ConfigField, ...], pins: tuple[ConfigField, ...]
) -> dict[Axis, Fraction] | None:
    """What moves when these fields change together; ``None`` where no change builds a model of the same tensors."""
    value = fields[0].value
    for other in dict.fromkeys((2 * value, value // 2, value - 1, value + 1)):
        if other < 1 or other == value:
            continue
        try:
            found = shapes(rebuilt(model, [*pins, *(replace(f, value=other) for f in fields)]), buffers=False)
        except Exception:
            continue
        if found.keys() != dense.keys() or any(len(found[n]) != len(dense[n]) for n in dense):
            continue
        return {
            (name, axis): Fraction(new - old, other - value)
            for name, before in dense.items()
            for axis, (old, new) in enumerate(zip(before, found[name]))
            if new != old
        }
    return None


def express(known: Knobs, dense: nn.Module, plan: Plan, cut: Callable[[], nn.Module]) -> Expression:
    """The fields that make plain transformers build the model that ``plan`` cuts.

    Args:
        known: what the configuration of ``dense`` can do.
        dense: the model that the plan was made for; only its configuration and its shapes are looked at.
        cut: gives a cut model of which the parameters may be overwritten; not called where shapes decide.
    """
    name = type(dense.config).__name__
    if known.trouble:
        return Expression(reason=known.trouble)
    fields = _solution(known, shapes(dense, buffers=False), plan)
    if fields is None:
        return Expression(reason=f"no fields of {name} give these shapes")
    proof = _Proof(dense, cut())
    reason = ""
    for extra in _silent_choices(plan, known):
        found = Expression((*fields, *extra))
        failed = proof.failure(found.fields)
        if not failed:
            return found
        reason = reason or f"{name} with {', '.join(map(str, found.fields))}: {failed}"
    return Expression(reason=reason)


def _solution(known: Knobs, dense: Shapes, plan: Plan) -> list[ConfigField] | None:
    """The fields that give the shapes, all pins among them."""
    target: dict[Axis, int] = {}
    for tensor in plan.slices.keys() & dense.keys():
        for axis, runs in plan.slices[tensor].items():
            target[tensor, axis] = count(runs) - dense[tensor][axis]
    touched = {axis for knob in known.turning for axis in knob.effect} | set(target)
    rows = [[*(k.effect.get(axis, 0) for k in known.turning), target.get(axis, 0)] for axis in touched]
    turns = solve(rows, len(known.turning))
    if turns is None:
        return None
    fields = [f for k, t in zip(known.turning, turns) if t for f in k.at(k.value + t)]
    if any(f.value < 1 for f in fields):
        return None
    return [*(p for p in known.pins if p.path not in {f.path for f in fields}), *fields]


def _silent_choices(plan: Plan, known: Knobs) -> Iterator[tuple[ConfigField, ...]]:
    """Fields without a shape of their own that may have to follow: none, each, all."""
    choices = []
    for field in known.silent:
        for group in plan.groups:
            if group.kept != group.width and group.kind == "head" and field.value % group.width == 0:
                choices.append(replace(field, value=field.value // group.width * group.kept))
                break
    yield ()
    for choice in choices:
        yield (choice,)
    if len(choices) > 1:
        yield tuple(choices)


class _Proof:
    """Whether models that transformers builds compute what a cut model computes, whose parameters are overwritten."""

    def __init__(self, dense: nn.Module, small: nn.Module):
        self._dense = dense
        self._small = plain_settings(small.cpu().float().eval())
        self._shapes = shapes(self._small)
        _stir(self._small)

    @cached_property
    def _example(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Inputs, and what the cut model makes of them."""
        inputs = example_inputs(self._small)
        return inputs, list(output_tensors(self._small(**inputs)))

    def failure(self, fields: Sequence[ConfigField]) -> str:
        """Why the model rebuilt from these fields is not the cut model; empty if it is."""
        try:
            twin = rebuilt(self._dense, fields, "cpu")
        except Exception as error:
            return f"it does not build: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        want, found = self._shapes, shapes(twin)
        if found != want:
            odd = next(n for n in (*want, *found) if want.get(n) != found.get(n))
            return f"{odd} would have shape {found.get(odd)}, not {want.get(odd)}"
        twin = plain_settings(twin.float().eval())
        twin.load_state_dict(self._small.state_dict(), strict=False)
        try:
            with torch.no_grad(), one_thread():
                inputs, expected = self._example
                pairs = list(itertools.zip_longest(expected, output_tensors(twin(**inputs))))
        except Exception as error:
            return f"it could not be run: {type(error).__name__}: {str(error).splitlines()[0]}"
        for a, b in pairs:
            if a is None or b is None or a.shape != b.shape:
                return "it computes something else"
            scale = float(a.abs().max()) if a.numel() else 0.0
            if a.numel() and not float((a.double() - b.double()).abs().max()) <= TOLERANCE * max(scale, 1e-30):
                return "it computes something else"
        return ""


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
