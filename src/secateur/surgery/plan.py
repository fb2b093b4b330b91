"""The plan: which units stay, per group, and why.

A plan is the only thing that passes between judging and cutting. It is frozen, it is plain JSON on disk, and it is
complete: it says for every tensor which indices stay, for every module which remembered sizes change, and for every
operation that reads across units which of them count, so that neither ``cut`` nor ``mask`` has to trace again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from secateur._errors import FileError, PlanError
from secateur.graph import PruningGraph
from secateur.graph.clone import Mould
from secateur.graph.fingerprint import fingerprint
from secateur.graph.labels import compressed, line, span_of, varying
from secateur.graph.ledger import Site
from secateur.surgery.ranges import count, from_runs, to_runs
from secateur.surgery.skip import silenced

SCHEMA = 1


@dataclass(frozen=True)
class GroupPlan:
    """What stays of one group; ``keep`` holds unit numbers in ascending order, as :func:`to_runs` text."""

    name: str
    kind: str
    width: int
    keep: str
    members: tuple[str, ...] = ()

    @property
    def units(self) -> tuple[int, ...]:
        return from_runs(self.keep)

    @property
    def kept(self) -> int:
        return count(self.keep)


@dataclass(frozen=True)
class Size:
    """``module.attribute`` (or one entry of it) becomes ``value``."""

    module: str
    attribute: str
    index: int | None
    value: int


@dataclass(frozen=True)
class Skipped:
    """A residual block that is left out; the ``silenced`` parameters make what it adds."""

    block: str
    silenced: tuple[str, ...]


@dataclass(frozen=True)
class ConfigField:
    """A whole number in the model's configuration: ``path`` is dotted for one of a sub-configuration."""

    path: str
    index: int | None
    value: int

    def __str__(self) -> str:
        return f"{self.path}{'' if self.index is None else f'[{self.index}]'}={self.value}"


@dataclass(frozen=True)
class Read:
    """An operation of the masked model that must not see removed units.

    ``alive`` are the flat indices, as :func:`to_runs` text, of what counts in a mask of shape ``shape``, which
    broadcasts to the operation's argument.
    """

    module: str
    op: str
    ordinal: int
    argument: int
    shape: tuple[int, ...]
    alive: str


@dataclass(frozen=True)
class InTraining:
    """A pass in which parts run that run only in training: which modules are in training mode then, and its reads."""

    callers: tuple[str, ...]
    reads: tuple[Read, ...]

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> InTraining:
        """From what JSON holds of it."""
        return cls(tuple(data["callers"]), _reads_from(data["reads"]))


@dataclass(frozen=True)
class Plan:
    """Which units stay, and everything that follows from it.

    Attributes:
        fingerprint: of the model that the plan was made for.
        groups: every group that can be cut, also those that stay whole.
        slices: per tensor, per shrinking axis, the indices that stay (:func:`to_runs` text).
        sizes: remembered sizes that change.
        reads: see :class:`Read`.
        why: method, budget, costs: whatever explains the choice.
        config: fields of a Hugging Face configuration that follow, so that plain transformers builds the cut shapes;
            none where no configuration can say them.
        selectors: layers in front of which the model has channel selectors.
        in_training: how the parts that run only in training are compared; ``None`` where there are none.
        base: the plan by which the network was widened first (:func:`widen`); everything else here is about the wider
            network.
    """

    fingerprint: str
    groups: tuple[GroupPlan, ...]
    slices: Mapping[str, Mapping[int, str]]
    sizes: tuple[Size, ...] = ()
    reads: tuple[Read, ...] = ()
    why: Mapping[str, Any] = field(default_factory=dict)
    skips: tuple[Skipped, ...] = ()
    config: tuple[ConfigField, ...] = ()
    selectors: tuple[str, ...] = ()
    in_training: InTraining | None = None
    base: Plan | None = None
    schema: int = SCHEMA

    @property
    def widths(self) -> dict[str, int]:
        """Kept width of every group."""
        return {g.name: g.kept for g in self.groups}

    @property
    def keep(self) -> dict[str, tuple[int, ...]]:
        """Kept units of every group."""
        return {g.name: g.units for g in self.groups}

    def explain(self, **why: Any) -> Plan:
        """The same plan with more said about why."""
        return replace(self, why={**self.why, **why})

    def to_json(self) -> str:
        """The plan as JSON text."""
        data = asdict(replace(self, base=None))
        data["slices"] = {t: {str(a): runs for a, runs in axes.items()} for t, axes in self.slices.items()}
        if self.in_training is None:
            del data["in_training"]
        if self.base is None:
            del data["base"]
        else:
            data["base"] = json.loads(self.base.to_json())
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what :meth:`to_json` wrote.

        Raises:
            FileError: the text is not a plan, or one of a newer version.
        """
        try:
            data = json.loads(text)
            schema = data["schema"]
            if schema > SCHEMA:
                raise FileError(f"the plan has schema {schema}, this version reads up to {SCHEMA}: update secateur")
            return cls(
                fingerprint=data["fingerprint"],
                groups=tuple(GroupPlan(**{**g, "members": tuple(g["members"])}) for g in data["groups"]),
                slices={t: {int(a): runs for a, runs in axes.items()} for t, axes in data["slices"].items()},
                sizes=tuple(Size(**s) for s in data["sizes"]),
                reads=_reads_from(data["reads"]),
                why=data["why"],
                skips=tuple(Skipped(s["block"], tuple(s["silenced"])) for s in data.get("skips", ())),
                config=tuple(ConfigField(**f) for f in data.get("config", ())),
                base=cls.from_json(json.dumps(data["base"])) if "base" in data else None,
                selectors=tuple(data.get("selectors", ())),
                in_training=InTraining.from_data(told) if (told := data.get("in_training")) else None,
                schema=schema,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"not a plan: {type(error).__name__}: {error}") from error


def _reads_from(data: Sequence[Mapping[str, Any]]) -> tuple[Read, ...]:
    return tuple(Read(**{**read, "shape": tuple(read["shape"])}) for read in data)


def check_fingerprint(mould: nn.Module | Mould, plan: Plan) -> None:
    """Refuse a plan that was made for another model, or one that was applied already.

    Raises:
        PlanError: with the first few tensors that do not fit.
    """
    mark = fingerprint(mould)
    if mark == plan.fingerprint:
        return
    mould = mould if isinstance(mould, Mould) else Mould(mould)
    already = getattr(mould.model, "secateur_plan", None)
    if isinstance(already, Plan):
        raise PlanError("this model was cut already\napply a plan to the dense model that it was made for")
    missing = [name for name in plan.slices if name not in mould.tensors]
    text = f"\nthe plan names tensors that the model lacks: {', '.join(missing[:5])}" if missing else ""
    raise PlanError(
        f"the plan was made for another model (fingerprint {plan.fingerprint}, this one has {mark})"
        f"{text}\nbuild the model with the same arguments as when it was traced, or trace it again"
    )


def make_plan(graph: PruningGraph, keep: Mapping[str, Sequence[int] | np.ndarray], **why: Any) -> Plan:
    """Work out everything that follows from keeping the given units.

    Args:
        keep: units to keep per group name; groups not named stay whole.
        why: explanation to store.

    Raises:
        PlanError: a group that does not exist or cannot be cut, a unit out of range, or nothing left of a group.
    """
    prunable = graph.prunable
    free = {g.name: g for g in prunable}
    problems, chosen = [], {}
    for name, units in keep.items():
        if name not in free:
            known = any(g.name == name for g in graph.groups)
            problems.append(f"{name}: locked, {graph[name].reason}" if known else f"{name}: no such group")
        elif not len(units):
            problems.append(f"{name}: nothing would be left of it; keep at least one unit")
        elif len(units) < free[name].least:
            problems.append(f"{name}: the model chooses {free[name].least} of them, so keep at least that many")
        else:
            chosen[name] = ascending = np.sort(np.asarray(units, dtype=np.int64))
            if ascending[0] < 0 or ascending[-1] >= free[name].width or not (np.diff(ascending) > 0).all():
                problems.append(f"{name}: units must be different numbers from 0 to {free[name].width - 1}")
    skips = tuple(Skipped(block.name, silenced(graph, block)) for block in graph.skipped)
    problems += [f"{s.block}: no parameter of it makes what it adds" for s in skips if not s.silenced]
    if problems:
        raise PlanError("this cannot be cut:\n" + "\n".join(problems))
    living = graph.living({name: units for name, units in chosen.items() if len(units) < free[name].width})
    classes = graph.classes.of
    # Most axes bear one of a few patterns.
    written: dict[bytes, str | None] = {}

    def runs(here: np.ndarray) -> str | None:
        key = here.tobytes()
        if key not in written:
            written[key] = to_runs(here.nonzero()[0]) if b"\0" in key else None
        return written[key]

    slices: dict[str, dict[int, str]] = {}
    lives, on_row = living[classes], {}
    for axis, row in zip(graph.ledger.axes, graph.classes.on_parameters[1]):
        if row not in on_row:
            on_row[row] = runs(lives[axis.start : axis.start + axis.size])
        kept = on_row[row]
        if kept is not None and axis.tensor in graph.tensors and not graph.is_skipped(axis.tensor):
            slices.setdefault(axis.tensor, {})[axis.axis] = kept
    changed = {}
    for literal in graph.literals:
        if graph.is_skipped(literal.module):
            continue
        extent = graph.extent(literal.axis, living)
        if extent != literal.axis.size:
            key = (literal.module, literal.attribute, literal.index)
            changed[key] = Size(*key, extent * literal.factor)
    callers = tuple(path for path in graph.training_callers if not graph.is_skipped(path))
    in_training = InTraining(callers, _reads(graph.training_sites, lives)) if callers else None
    groups = []
    for g in prunable:
        keeps = None
        if g.name in chosen:
            here = np.zeros(g.width, dtype=bool)
            here[chosen[g.name]] = True
            keeps = runs(here)
        members = tuple([str(m) for m in g.members])
        groups.append(GroupPlan(g.name, g.kind, g.width, keeps or f"0-{g.width - 1}", members))
    sizes = tuple(changed.values())
    return Plan(
        graph.fingerprint,
        tuple(groups),
        slices,
        sizes,
        _reads(graph.sites, lives),
        dict(why),
        skips,
        selectors=graph.selectors,
        in_training=in_training,
    )


def _reads(sites: Sequence[Site], lives: np.ndarray) -> tuple[Read, ...]:
    return tuple(read for site in sites if (read := _read(site, lives)) is not None)


def _read(site: Site, lives: np.ndarray) -> Read | None:
    """What counts at a site, or ``None`` where nothing that is removed meets anything that stays; see ``make_plan``."""
    mask: np.ndarray | None = None
    for system in site.systems:
        own, span = varying(system), span_of(line(system))
        here = lives[compressed(system, own).numpy() if span is None else slice(span.first, span.last + 1)]
        if not here.all():
            here = here.reshape([n if a in own else 1 for a, n in enumerate(system.shape)])
            mask = here if mask is None else mask & here
    if mask is None:
        return None
    dims = tuple(d for d in site.dims if d < mask.ndim)
    some, every = mask.any(axis=dims), mask.all(axis=dims)
    if bool((some == every).all()):
        return None
    flat = np.flatnonzero(mask)
    return Read(site.module, site.op, site.ordinal, site.argument, mask.shape, to_runs(flat))
