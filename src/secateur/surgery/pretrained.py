"""What ``save_pretrained`` of a cut model does: write files that plain transformers reads back, or refuse.

A plan whose widths somebody asked for says which fields of the configuration follow, and ``cut`` writes them. Of other
plans nobody knows yet, and to find out takes trial models and runs of the cut one: that waits until files are written.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from torch import nn

from secateur._errors import UsageError
from secateur.graph.clone import copy_with, deep_copy
from secateur.surgery.config import built, is_hugging_face, shapes, write_config
from secateur.surgery.knobs import Expression, express, find_knobs
from secateur.surgery.plan import Plan, fingerprint


def stated(plan: Plan, found: Expression) -> Plan:
    """The same plan with what was found out."""
    said = ", ".join(map(str, found.fields)) if found.fields else found.reason
    return replace(plan, config=found.fields).explain(config=said)


class Refusal:
    """Stands in for ``save_pretrained`` where the files would be read back wrongly."""

    def __init__(self, reason: str):
        self.reason = reason

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise UsageError(
            f"save_pretrained would write files that plain transformers cannot read back: {self.reason}\n"
            "keep this model with sc.save(model, folder) and sc.load(folder, model=dense), "
            "or plan with uniform=True, which keeps to widths that a configuration can say"
        )


class Pending:
    """Stands in for ``save_pretrained`` until it is known which configuration says a cut.

    Args:
        root: the cut model.
        part: the module of it whose ``save_pretrained`` this is.
        plan: by which it was cut.
        config: of the dense model.
    """

    def __init__(self, root: nn.Module, part: nn.Module, plan: Plan, config: Any):
        self.root, self.part, self.plan, self.config = root, part, plan, config

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        catch_up(self.root)
        save: Any = self.part.save_pretrained
        return save(*args, **kwargs)

    def found(self) -> Expression:
        """The fields of the configuration that say the cut, or the reason why none do."""
        kind = type(self.root)
        try:
            dense = built(kind, self.config)
        except Exception as error:
            return Expression(reason=f"{kind.__name__} cannot be built from its own configuration: {error}")
        if fingerprint(dense) != self.plan.fingerprint:
            return Expression(reason="its configuration does not build the model that was cut")
        sizes = shapes(dense, buffers=False)
        related = {g.width for g in self.plan.groups if g.kept < g.width}
        related |= {sizes[name][axis] for name, axes in self.plan.slices.items() if name in sizes for axis in axes}
        known = find_knobs(dense, related)
        return express(known, dense, self.plan, lambda: copy_with(self.root, lambda _, t: t.clone()))


def catch_up(model: nn.Module) -> None:
    """Find out, if that was put off, which configuration says a model that was cut, and bring it in line."""
    pending = vars(model).get("save_pretrained")
    if not isinstance(pending, Pending):
        return
    root, plan = pending.root, stated(pending.plan, pending.found())
    for module in root.modules():
        if isinstance(vars(module).get("save_pretrained"), Pending):
            del module.__dict__["save_pretrained"]
    follow_config(root, plan, pending.config)
    root.secateur_plan = plan  # type: ignore[assignment]


def follow_config(small: nn.Module, plan: Plan, config: Any) -> None:
    """Bring the configuration of a cut model in line, or keep it from being written before or where that fails.

    Only models of transformers, and modules that hold one, are touched.

    Args:
        config: of the dense model, if it has one.
    """
    if plan.config and is_hugging_face(small):
        write_config(small.config, plan.config)
        return
    if not plan.slices or "transformers" not in sys.modules:
        return
    reason = plan.why.get("config")
    if reason is None and not is_hugging_face(small):
        reason = "its configuration does not say the widths that were cut"
    # The cut one may have sizes of its own in it already.
    config = deep_copy(config, {}) if reason is None else None
    for module in small.modules():
        if is_hugging_face(module):
            later = Refusal(reason) if reason is not None else Pending(small, module, plan, config)
            module.__dict__["save_pretrained"] = later
