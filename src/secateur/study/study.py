"""One call for a whole study: read, plan, run, tell."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from secateur._errors import UnknownName, UsageError
from secateur.record import check_folder
from secateur.study.display import Display
from secateur.study.job import Pool
from secateur.study.local_pool import LocalPool
from secateur.study.plan import plan_study
from secateur.study.recipe import Study, read_study
from secateur.study.rehearsal import refuse_in_advance
from secateur.study.runner import EXECUTOR, Runner, Status
from secateur.study.stages import StudyPlan
from secateur.study.store import Store

PLACES = ("local", "ray", "ray:ADDRESS")


@dataclass(frozen=True)
class Finished:
    """A study after its last stage.

    Attributes:
        study: what was asked.
        status: how every stage ended.
        folder: where it all is; the runs are in its subfolder ``runs``.
    """

    study: Study
    status: Status
    folder: Path


def run_study(
    recipe: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    on: str = "local",
    retry_failed: bool = False,
    console: Console | None = None,
    executor: str = EXECUTOR,
) -> Finished:
    """Run what a study file asks for, or what is left of it.

    The same call goes on where an earlier one stopped, however it stopped. Several at the same time on one folder
    share the work.

    Args:
        recipe: the file; see :func:`secateur.study.read_study`.
        out: the study's folder. On a cluster every machine has to see it under the same path.
        workers: processes on this machine; by default one for every core, or for every GPU where there is one.
        on: ``"local"``, ``"ray"`` (the cluster of RAY_ADDRESS, or this machine) or ``"ray:ADDRESS"``.
        retry_failed: take up what failed in an earlier call.
        console: where to tell how it goes; by default nowhere.
        executor: does the work of a stage.

    Raises:
        UsageError, FileError, DataError: before anything is run; what goes wrong in a run is recorded instead.
        KeyboardInterrupt: passed on; the same call goes on from there.
    """
    study = read_study(recipe)
    folder = Path(out)
    check_folder(folder)
    plan = plan_study(study)
    with Store(folder) as store:
        pool = make_pool(on, workers, plan)
        with Display(console or Console(quiet=True)) as watch:
            runner = Runner(store, plan, pool, executor=executor, watch=watch, retry_failed=retry_failed)
            if executor == EXECUTOR:
                refuse_in_advance(store, plan)
            status = runner.run()
    return Finished(study, status, folder)


def make_pool(on: str, workers: int | None, plan: StudyPlan) -> Pool:
    """Where the jobs run.

    Raises:
        UsageError: a place that does not exist, or a number of workers that makes no sense.
        MissingExtra: Ray is not installed.
    """
    place, _, address = on.partition(":")
    if place not in ("local", "ray") or (place == "local" and address):
        raise UnknownName("place to run on", on, PLACES)
    if workers is not None and workers < 1:
        raise UsageError(f"workers={workers}: it has to be at least 1")
    if place == "ray":
        if workers is not None:
            raise UsageError("a cluster says itself how many runs fit on it: leave --workers out with --on ray")
        from secateur.study.ray_pool import RayPool

        return RayPool(address or None)
    import torch

    devices = tuple(str(k) for k in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
    cores = _cores()
    if workers is None:
        # More processes than stages that can run side by side would only take threads away from them.
        workers = max(1, min(len(devices) or cores, len(plan.runs)))
    return LocalPool(workers, _threads(cores // workers), _visible(devices))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads(share: int) -> int:
    """Of one process: its share of the cores, or fewer where OMP_NUM_THREADS says so, as it does to PyTorch itself."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(share, int(said)) if said.isdigit() else share)


def _visible(devices: tuple[str, ...]) -> tuple[str, ...]:
    """The names that CUDA_VISIBLE_DEVICES already gives them."""
    named = tuple(n for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n)
    return named if devices and len(named) == len(devices) else devices
