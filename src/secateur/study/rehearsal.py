"""Cuts that cannot succeed are found before the trainings that they would need."""

from __future__ import annotations

from secateur._errors import SecateurError
from secateur.study.execute import rehearse_cut
from secateur.study.stages import Stage, StudyPlan, canonical
from secateur.study.store import Store


def refuse_in_advance(store: Store, plan: StudyPlan) -> None:
    """Rehearse every kind of cut that waits for a dense training, and record those that fail as failed.

    Whether a budget can be reached does not depend on the weights. The same cut of several seeds is rehearsed once.
    What goes wrong in any other way than by an error of Secateur is left to the stage itself.
    """
    rows, found = store.rows(plan), {}
    for stage in plan.stages.values():
        waits = any(rows[needed].state in ("waiting", "running") for needed in stage.needs)
        if stage.kind != "cut" or rows[stage.address].state != "waiting" or not waits:
            continue
        key = canonical({**stage.settings, "seed": None, "base": {**stage.where["base"], "seed": None}})
        if key not in found:
            found[key] = _error(stage)
        if found[key] is not None:
            store.refuse(stage, found[key])


def _error(stage: Stage) -> str | None:
    try:
        rehearse_cut(stage.where)
    except SecateurError as error:
        return str(error)
    except Exception:
        return None
    return None
