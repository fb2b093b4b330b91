"""The configuration of a Hugging Face model that says a plan, found from the graph that the plan was made of."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

from torch import nn

from secateur.graph import PruningGraph
from secateur.graph.trees import output_tensors
from secateur.surgery.config import is_hugging_face, shapes, whole_numbers
from secateur.surgery.cut import cut
from secateur.surgery.knobs import Expression, Knobs, find_knobs
from secateur.surgery.knobs import express as express_by
from secateur.surgery.plan import Plan
from secateur.surgery.pretrained import catch_up, stated
from secateur.surgery.roles import roles

_KNOWN: weakref.WeakKeyDictionary[PruningGraph, Knobs] = weakref.WeakKeyDictionary()


def knobs(graph: PruningGraph) -> Knobs:
    """What the configuration can do about the groups that can be cut; remembered for the graph."""
    if any(p.is_meta for p in graph.model.parameters()):
        return Knobs(trouble="the model lies on the meta device, so no model can be compared with it")
    if graph not in _KNOWN:
        catch_up(graph.model)
        dense = shapes(graph.model, buffers=False)
        members = [(g.width, m) for g in graph.prunable for m in g.members if m.tensor in dense]
        _KNOWN[graph] = find_knobs(graph.model, {n for w, m in members for n in (w, dense[m.tensor][m.axis])})
    return _KNOWN[graph]


def express(graph: PruningGraph, plan: Plan) -> Expression:
    """The fields that make plain transformers build the model that ``plan`` cuts."""
    uneven = _uneven(graph, plan)
    if uneven:
        return Expression(reason=uneven)
    bare = replace(plan, config=())
    example = None if any(t.is_meta for t in output_tensors(graph.example)) else graph.example
    return express_by(knobs(graph), graph.model, plan, lambda: cut(graph.model, bare), example)


def _uneven(graph: PruningGraph, plan: Plan) -> str:
    """Where layers disagree and no field has an entry for each; it spares finding the knobs."""
    model, kept = graph.model, plan.widths
    config: Any = model.config
    uneven = [(role, {kept[g.name] for g in role.groups}) for role in roles(graph, graph.prunable)]
    uneven = [(role, sorted(different)) for role, different in uneven if len(different) > 1]
    if not uneven:
        return ""
    entries = [(f.value, _governed(model, f.path)) for f in whole_numbers(config) if f.index is not None]
    dense = shapes(model) if entries else {}
    for role, different in uneven:
        members = [m for g in role.groups for m in g.members]
        related = {role.width, *(dense[m.tensor][m.axis] for m in members)} if entries else set()
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


def follow(graph: PruningGraph, plan: Plan, *, asked: bool = True) -> Plan:
    """The same plan with the configuration that says it, or with the reason why none does.

    Plans for other models than those of transformers are given back as they are.

    Args:
        asked: whether somebody asked for these very widths. Where a budget chose them, a configuration says them only
            by luck: what is plain to see is noted, and ``save_pretrained`` of the cut model finds out the rest.
    """
    if not is_hugging_face(graph.model) or not plan.slices:
        return plan
    if not asked:
        uneven = _uneven(graph, plan)
        return plan.explain(config=uneven) if uneven else plan
    return stated(plan, express(graph, plan))
