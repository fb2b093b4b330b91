"""Can a configuration say it? Which fields of a Hugging Face configuration give the shapes of a cut model.

Nothing here knows any family of models. Every field that could be a width is changed on a trial model on the meta
device, and the shapes that move with it are written down: that is linear, so the fields that give the shapes of a cut
are the solution of a small system. Shapes are not everything (``hidden_size / num_heads`` hides in the forward), so a
solution counts only if the model that transformers builds from it computes what the cut model computes.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from secateur.graph import PruningGraph
from secateur.graph.adapters import plain_settings
from secateur.graph.clone import copy_with
from secateur.graph.skeleton import one_thread
from secateur.graph.trees import output_tensors
from secateur.models import example_inputs
from secateur.surgery.config import Shapes, is_hugging_face, rebuilt, shapes, whole_numbers
from secateur.surgery.cut import cut
from secateur.surgery.linear import solve
from secateur.surgery.plan import ConfigField, Plan
from secateur.surgery.ranges import count
from secateur.surgery.roles import roles

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


_KNOWN: weakref.WeakKeyDictionary[PruningGraph, Knobs] = weakref.WeakKeyDictionary()


def knobs(graph: PruningGraph) -> Knobs:
    """Turn every field once, and see what moves; remembered for the graph."""
    if graph not in _KNOWN:
        _KNOWN[graph] = _find_knobs(graph)
    return _KNOWN[graph]


def _find_knobs(graph: PruningGraph) -> Knobs:
    model, dense = graph.model, shapes(graph.model)
    config: Any = model.config
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
    related = {
        n for g in graph.prunable for m in g.members if m.tensor in dense for n in (g.width, dense[m.tensor][m.axis])
    }
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
            if shapes(rebuilt(model, (pin,))) == dense and _turn(model, trained, (pin,), (pin,)):
                return (pin,)
        except Exception:
            continue
    return ()


def _turn(
    model: nn.Module, dense: Shapes, fields: tuple[ConfigField, ...], pins: tuple[ConfigField, ...]
) -> dict[Axis, Fraction] | None:
    """What moves when these fields change together; ``None`` where no change builds a model of the same tensors."""
    value = fields[0].value
    for other in (2 * value, value // 2, value - 1, value + 1):
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


def express(graph: PruningGraph, plan: Plan) -> Expression:
    """The fields that make plain transformers build the model that ``plan`` cuts."""
    uneven = _uneven(graph, plan)
    if uneven:
        return Expression(reason=uneven)
    known = knobs(graph)
    name = type(graph.model.config).__name__
    if known.trouble:
        return Expression(reason=known.trouble)
    dense = shapes(graph.model, buffers=False)
    target: dict[Axis, int] = {}
    for tensor in plan.slices.keys() & dense.keys():
        for axis, runs in plan.slices[tensor].items():
            target[tensor, axis] = count(runs) - dense[tensor][axis]
    touched = {axis for knob in known.turning for axis in knob.effect} | set(target)
    rows = [[*(k.effect.get(axis, 0) for k in known.turning), target.get(axis, 0)] for axis in touched]
    turns = solve(rows, len(known.turning))
    if turns is None:
        return Expression(reason=f"no fields of {name} give these shapes")
    fields = [f for k, t in zip(known.turning, turns) if t for f in k.at(k.value + t)]
    if any(f.value < 1 for f in fields):
        return Expression(reason=f"no fields of {name} give these shapes")
    fields = [*(p for p in known.pins if p.path not in {f.path for f in fields}), *fields]
    reason = ""
    for extra in _silent_choices(graph, plan, known):
        found = Expression((*fields, *extra))
        failed = _disproof(graph, plan, found.fields)
        if not failed:
            return found
        reason = reason or f"{name} with {', '.join(map(str, found.fields))}: {failed}"
    return Expression(reason=reason)


def _uneven(graph: PruningGraph, plan: Plan) -> str:
    """Where layers disagree and no field has an entry for each; it spares finding the knobs."""
    model, kept = graph.model, plan.widths
    config: Any = model.config
    entries = [(f.value, _governed(model, f.path)) for f in whole_numbers(config) if f.index is not None]
    dense = shapes(model)
    for role in roles(graph, graph.prunable):
        different = sorted({kept[g.name] for g in role.groups})
        if len(different) < 2:
            continue
        members = [m for g in role.groups for m in g.members]
        related = {role.width, *(dense[m.tensor][m.axis] for m in members)}
        if not any(
            any(n % value == 0 for n in related) and any(m.tensor.startswith(governed) for m in members)
            for value, governed in entries
        ):
            return f"{role.name} is {' or '.join(map(str, different))} wide, and a configuration has one number for all"
    return ""


def _governed(model: nn.Module, path: str) -> tuple[str, ...]:
    """Where tensors lie whose shapes a field may say: a sub-configuration is for the models that hold it, if any do."""
    settings: Any = model.config
    for part in path.split(".")[:-1]:
        settings = getattr(settings, part)
    holders = [
        f"{name}."
        for name, module in model.named_modules()
        if name and is_hugging_face(module) and type(module.config) is type(settings)
    ]
    return tuple(holders) if "." in path and holders else ("",)


def _silent_choices(graph: PruningGraph, plan: Plan, known: Knobs) -> Iterator[tuple[ConfigField, ...]]:
    """Fields without a shape of their own that may have to follow: none, each, all."""
    kept, choices = plan.widths, []
    for field in known.silent:
        for role in roles(graph, graph.prunable):
            new = kept[role.groups[0].name]
            if new != role.width and field.value % role.width == 0 and role.groups[0].kind == "head":
                choices.append(replace(field, value=field.value // role.width * new))
                break
    yield ()
    for choice in choices:
        yield (choice,)
    if len(choices) > 1:
        yield tuple(choices)


def _disproof(graph: PruningGraph, plan: Plan, fields: Sequence[ConfigField]) -> str:
    """Why the model rebuilt from these fields is not the cut model; empty if it is."""
    model = graph.model
    bare = replace(plan, config=())
    want = shapes(cut(copy_with(model, lambda _, t: t.to("meta")), bare))
    try:
        if (found := shapes(rebuilt(model, fields))) != want:
            odd = next(n for n in (*want, *found) if want.get(n) != found.get(n))
            return f"{odd} would have shape {found.get(odd)}, not {want.get(odd)}"
        twin = rebuilt(model, fields, "cpu")
    except Exception as error:
        return f"it does not build: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    small = plain_settings(cut(model, bare).cpu().float().eval())
    _stir(small)
    twin = plain_settings(twin.float().eval())
    twin.load_state_dict(small.state_dict(), strict=False)
    try:
        inputs = example_inputs(small)
        with torch.no_grad(), one_thread():
            pairs = list(itertools.zip_longest(output_tensors(small(**inputs)), output_tensors(twin(**inputs))))
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


def follow(graph: PruningGraph, plan: Plan) -> Plan:
    """The same plan with the configuration that says it, or with the reason why none does.

    Plans for other models than those of transformers are given back as they are.
    """
    if not is_hugging_face(graph.model) or not plan.slices:
        return plan
    found = express(graph, plan)
    said = ", ".join(map(str, found.fields)) if found.fields else found.reason
    return replace(plan, config=found.fields).explain(config=said)
