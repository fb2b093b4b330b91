"""Can a configuration say it? Which fields of a Hugging Face configuration give the shapes of a cut model.

Nothing here knows any family of models. Every field that could be a width is changed on a trial model on the meta
device, and the shapes that move with it are written down: that is linear, so the fields that give the shapes of a cut
are the solution of a small system. Shapes are not everything (``hidden_size / num_heads`` hides in the forward), so a
solution counts only if the model that transformers builds from it computes what the cut model computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from torch import nn

from secateur.surgery.config import Shapes, empty_fields, rebuilt, shapes, whole_numbers
from secateur.surgery.linear import solve
from secateur.surgery.plan import ConfigField, Plan
from secateur.surgery.proof import Proof
from secateur.surgery.ranges import count

Axis = tuple[str, int]


@dataclass(frozen=True)
class Knob:
    """Fields that are turned together.

    Attributes:
        fields: what they are in the dense model; the first one gives the knob its value.
        rates: how much each gains when the knob gains 1.
        effect: how many indices an axis gains then.
    """

    fields: tuple[ConfigField, ...]
    rates: tuple[int, ...]
    effect: dict[Axis, Fraction]

    @property
    def value(self) -> int:
        return self.fields[0].value


@dataclass(frozen=True)
class Knobs:
    """What the configuration of one model can do.

    Attributes:
        turning: knobs that change shapes.
        silent: fields that change no shape but may change what is computed.
        pins: fields that hold no number, at the one that the class computes in their stead.
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
    pins = _pins(model, dense, related) if related else ()
    # Buffers may depend on a quotient of fields (rotary frequencies on the width of a head): they are for the proof.
    dense = shapes(model, buffers=False)
    config: Any = model.config
    fields = [f for f in whole_numbers(config) if any(n % f.value == 0 for n in related)] + list(pins)
    turning, silent, refused = [], [], []
    for field in fields:
        knob = _knob(model, dense, (field,), (1,), pins)
        if knob and knob.effect:
            turning.append(knob)
        else:
            (silent if knob else refused).append(field)
    # OPT has a projection where hidden_size is not word_embed_proj_dim: alone, neither can be turned.
    for value in sorted({f.value for f in refused}):
        together = tuple(f for f in refused if f.value == value)
        if len(together) > 1 and (knob := _knob(model, dense, together, (1,) * len(together), pins)) and knob.effect:
            turning.append(knob)
    turning = [_in_step(model, dense, knob, turning, pins) for knob in turning]
    return Knobs(tuple(turning), tuple(silent), pins)


def _in_step(model: nn.Module, dense: Shapes, knob: Knob, others: list[Knob], pins: tuple[ConfigField, ...]) -> Knob:
    """A field that others are divided by, together with these, so that the quotient stays.

    Where no field says how wide a head is, fewer heads are wider ones, unless ``hidden_size`` goes with them.
    """
    smaller = {axis for axis, gained in knob.effect.items() if gained < 0}
    divided = [k for k in others if k.value % knob.value == 0 and k.value > knob.value and smaller & k.effect.keys()]
    if not divided:
        return knob
    fields = (*knob.fields, *(f for k in divided for f in k.fields))
    rates = (*knob.rates, *(rate * (k.value // knob.value) for k in divided for rate in k.rates))
    found = _knob(model, dense, fields, rates, pins)
    return found if found and found.effect else knob


def _pins(model: nn.Module, dense: Shapes, related: set[int]) -> tuple[ConfigField, ...]:
    """Fields that hold no number, at the one that the class computes in their stead (``n_inner`` of GPT-2)."""
    found = (_pin(model, dense, path, 2 * max(related)) for path in empty_fields(model.config))
    return tuple(pin for pin in found if pin)


def _pin(model: nn.Module, dense: Shapes, path: str, trial: int) -> ConfigField | None:
    """One of them; ``None`` where the class does not read the field as a width."""
    try:
        moved = shapes(rebuilt(model, (ConfigField(path, None, trial),)), buffers=False)
        sizes = {
            Fraction(before * trial, new)
            for name in moved.keys() & dense.keys()
            for before, new in zip(dense[name], moved[name])
            if before != new
        }
        if len(sizes) != 1 or (size := sizes.pop()).denominator != 1:
            return None
        pin = ConfigField(path, None, int(size))
        return pin if shapes(rebuilt(model, (pin,))) == dense else None
    except Exception:
        return None


def _knob(
    model: nn.Module,
    dense: Shapes,
    fields: tuple[ConfigField, ...],
    rates: tuple[int, ...],
    pins: tuple[ConfigField, ...],
) -> Knob | None:
    """What moves when these fields change together; ``None`` where no change builds a model of the same tensors."""
    value = fields[0].value
    for by in dict.fromkeys((value, value // 2 - value, -1, 1)):
        turned = [replace(f, value=f.value + rate * by) for f, rate in zip(fields, rates)]
        if by == 0 or any(f.value < 1 for f in turned):
            continue
        try:
            found = shapes(rebuilt(model, [*pins, *turned]), buffers=False)
        except Exception:
            continue
        if found.keys() != dense.keys() or any(len(found[n]) != len(dense[n]) for n in dense):
            continue
        effect = {
            (name, axis): Fraction(new - old, by)
            for name, before in dense.items()
            for axis, (old, new) in enumerate(zip(before, found[name]))
            if new != old
        }
        return Knob(fields, rates, effect)
    return None


def express(
    known: Knobs, dense: nn.Module, plan: Plan, cut: Callable[[], nn.Module], example: Any = None
) -> Expression:
    """The fields that make plain transformers build the model that ``plan`` cuts.

    Args:
        known: what the configuration of ``dense`` can do.
        dense: the model that the plan was made for; only its configuration and its shapes are looked at.
        cut: gives a cut model of which the parameters may be overwritten; not called where shapes decide.
        example: inputs on which models are compared, as for ``trace``; made up if there are none.
    """
    name = type(dense.config).__name__
    if known.trouble:
        return Expression(reason=known.trouble)
    proof: Proof | None = None
    reason = ""
    for fields in _solutions(known, shapes(dense, buffers=False), plan):
        proof = proof or Proof(dense, cut(), example)
        for extra in _silent_choices(plan, known):
            found = Expression((*fields, *extra))
            failed = proof.failure(found.fields)
            if not failed:
                return found
            reason = reason or f"{name} with {', '.join(map(str, found.fields))}: {failed}"
    return Expression(reason=reason or f"no fields of {name} give these shapes")


def _solutions(known: Knobs, dense: Shapes, plan: Plan) -> Iterator[list[ConfigField]]:
    """Fields that give the shapes, all pins among them: other ones may give them as well.

    Half of the heads, or all of them half as wide, leave layers of one shape.
    """
    target: dict[Axis, int] = {}
    for tensor in plan.slices.keys() & dense.keys():
        for axis, runs in plan.slices[tensor].items():
            target[tensor, axis] = count(runs) - dense[tensor][axis]
    touched = {axis for knob in known.turning for axis in knob.effect} | set(target)
    cut = {group.width for group in plan.groups if group.kept != group.width}
    counts_first = sorted(known.turning, key=lambda k: k.value not in cut)
    seen: list[list[ConfigField]] = []
    # Of those that do the same the first is turned: more often than not, what counts something and not its size.
    for order in (counts_first, known.turning, sorted(known.turning, key=lambda k: k.value)):
        rows = [[*(k.effect.get(axis, 0) for k in order), target.get(axis, 0)] for axis in touched]
        turns = solve(rows, len(order))
        fields = _added_up(order, turns or ())
        if turns is None or any(f.value < 1 for f in fields) or fields in seen:
            continue
        seen.append(fields)
        yield [*(p for p in known.pins if p.path not in {f.path for f in fields}), *fields]


def _added_up(knobs: Sequence[Knob], turns: Sequence[int]) -> list[ConfigField]:
    """What becomes of the fields that are turned at all, by one knob or by several."""
    gained: dict[ConfigField, int] = {}
    for knob, by in zip(knobs, turns):
        for field, rate in zip(knob.fields, knob.rates):
            gained[field] = gained.get(field, 0) + rate * by
    return [replace(f, value=f.value + by) for f, by in gained.items() if by]


def _silent_choices(plan: Plan, known: Knobs) -> Iterator[tuple[ConfigField, ...]]:
    """Fields without a shape of their own that may have to follow heads: none, each, those named so, all."""
    heads = [g for g in plan.groups if g.kept != g.width and g.kind == "head"]
    choices = []
    for field in known.silent:
        # A field of this very number counts them more likely than one of a multiple.
        for group in sorted(heads, key=lambda g: g.width != field.value):
            if field.value % group.width == 0:
                choices.append(replace(field, value=field.value // group.width * group.kept))
                break
    named = tuple(choice for choice in choices if "head" in choice.path)
    yield from dict.fromkeys([(), *((choice,) for choice in choices), named, tuple(choices)])
