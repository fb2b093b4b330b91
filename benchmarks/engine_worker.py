"""One model of the engine benchmark, both sides in turn; runs in a process that the server forked.

It speaks in lines of JSON, one before and one after everything that can hang or crash, so that the server knows what
was going on when the lines stop.
"""

from __future__ import annotations

import copy
import gc
import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from benchmarks.engine_contestants import Ours, peer, peer_importance, ready_for_peer, tiny
from benchmarks.zoo import build, counts_vary, output_layers, output_shapes
from secateur import Plan, PruningGraph, cut, load, save, verify
from secateur.measure import count_macs, count_parameters
from secateur.measure.inputs import as_call, tensors_in


def timed(job: Callable[[], Any]) -> dict[str, float]:
    """The seconds and the processor seconds of a job. Garbage is collected before and not meanwhile."""
    gc.collect()
    gc.disable()
    try:
        start, cpu = time.perf_counter(), time.process_time()
        job()
        return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    finally:
        gc.enable()


def brief(error: BaseException) -> str:
    """An error in one short line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


def what_was_cut(graph: PruningGraph, plan: Plan) -> dict[str, Any]:
    """What a plan does to a graph: groups and units by kind, and what is locked, by reason."""
    units = {kind: {"cut": 0, "of": 0} for kind in ("channel", "head")}
    touched = 0
    for group in plan.groups:
        units.setdefault(group.kind, {"cut": 0, "of": 0})
        units[group.kind]["cut"] += group.width - group.kept
        units[group.kind]["of"] += group.width
        touched += group.kept < group.width
    locked: dict[str, int] = {}
    for group in graph.groups:
        if group.locked:
            locked[group.reason] = locked.get(group.reason, 0) + group.width
    why = plan.why
    return {
        "groups": {
            "cut": touched,
            "whole": len(graph.groups) - touched - sum(g.locked for g in graph.groups),
            "locked": sum(g.locked for g in graph.groups),
        },
        "units": units,
        "locked": dict(sorted(locked.items(), key=lambda item: -item[1])),
        "macs_foretold": why["macs"] / why["dense_macs"] if why["dense_macs"] else None,
        "params_foretold": why["params"],
        "warnings": list(graph.warnings),
    }


class Worker:
    """Runs the sides that are asked for on one model and says what happens.

    Args:
        name: of the model.
        channel: where the lines of JSON go.
    """

    def __init__(self, name: str, channel: TextIO):
        self._name, self._channel = name, channel

    def say(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=self._channel, flush=True)

    def run(self, repeats: int, sides: tuple[str, ...]) -> None:
        """Build, warm up, then A B A B, then the proof of ours outside of the timing."""
        self.say("build-start")
        self.model, self.inputs = build(self._name)
        self.varying = counts_vary(self._name)
        self.shapes = output_shapes(self.model, self.inputs, self.varying)
        self.macs, self.params = count_macs(self.model, self.inputs), count_parameters(self.model)
        for side in sides:
            self.say(f"{side}-start", turn=-1)
            WARM_UPS[side]()
        self.say("ready", load=list(os.getloadavg()), macs=self.macs, params=self.params)
        plan, going = None, list(sides)
        for turn in range(repeats):
            if "ours" in going:
                plan = self.ours_once(turn)
                if plan is None:
                    going.remove("ours")
            if "peer" in going and not self.peer_once(turn):
                going.remove("peer")
        if plan is not None:
            self.prove(plan)
            self.restore(plan)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform != "darwin" else 2**20)
        self.say("end", load=list(os.getloadavg()), memory_mib=peak)

    def _check(self, side: str, turn: int, small: nn.Module, params: int | None, **fields: Any) -> bool:
        """Does the pruned network run, with the right outputs, and is it smaller? Asked after the first turn."""
        if turn:
            self.say(f"{side}-done", turn=turn, status="pruned", **fields)
            return True
        self.say(f"{side}-check", turn=turn)
        try:
            shapes = output_shapes(small, self.inputs, self.varying)
            macs, counted = count_macs(small, self.inputs), count_parameters(small)
        except Exception as error:
            self.say(f"{side}-done", turn=turn, status="forward failed", error=brief(error), **fields)
            return False
        fields |= {"macs_ratio": macs / self.macs if self.macs else None, "params_ratio": counted / self.params}
        if shapes != self.shapes:
            pairs = zip(shapes, self.shapes)
            differ = next((p for p in pairs if p[0] != p[1]), (f"{len(shapes)} tensors", f"{len(self.shapes)} tensors"))
            text = f"gives an output {differ[0]} where the dense network gives {differ[1]}"
            self.say(f"{side}-done", turn=turn, status="wrong shape", error=text, **fields)
            return False
        if params is not None and counted != params:
            text = f"foretold {params} parameters, has {counted}"
            self.say(f"{side}-done", turn=turn, status="wrong cost", error=text, **fields)
            return False
        smaller = counted < self.params and (bool(self.varying) or macs < self.macs)
        self.say(f"{side}-done", turn=turn, status="pruned" if smaller else "unchanged", **fields)
        return True

    def ours_once(self, turn: int) -> Plan | None:
        """One attempt of ours; its plan, or nothing if it failed."""
        model, job = copy.deepcopy(self.model), Ours()
        self.say("ours-start", turn=turn)
        try:
            times = timed(lambda: job.run(model, self.inputs, traced=lambda: self.say("ours-traced")))
        except Exception as error:
            self.say("ours-done", turn=turn, status="crashed", error=brief(error))
            return None
        assert job.graph is not None
        assert job.plan is not None
        assert job.small is not None
        cut = what_was_cut(job.graph, job.plan)
        fields = {"stages": job.seconds, "scoring": job.seconds["scores"], **({} if turn else cut)}
        good = self._check("ours", turn, job.small, cut["params_foretold"], **times, **fields)
        return job.plan if good else None

    def peer_once(self, turn: int) -> bool:
        """One attempt of the peer; whether it is worth another."""
        model = ready_for_peer(copy.deepcopy(self.model))
        ignored, importance = output_layers(model, self.shapes), peer_importance()
        self.say("peer-start", turn=turn)
        try:
            times = timed(lambda: peer(model, self.inputs, ignored, importance))
        except Exception as error:
            self.say("peer-done", turn=turn, status="crashed", error=brief(error))
            return False
        return self._check("peer", turn, model, None, **times, scoring=importance.seconds)

    def prove(self, plan: Plan) -> None:
        """Compare the cut network with the masked one in float64."""
        gc.collect()
        self.say("proof-start")
        try:
            proof = verify(self.model, plan, self.inputs)
        except Exception as error:
            self.say("proof-done", exact=False, max_error=None, error=brief(error))
            return
        # An infinite error (outputs that cannot be compared) has no place in JSON.
        error = None if math.isfinite(proof.max_error) else f"max_error is {proof.max_error}"
        if not proof.outputs:
            error = "the outputs are empty, so nothing was compared"
        figure = None if error else proof.max_error
        self.say("proof-done", exact=proof.exact, max_error=figure, outputs=proof.outputs, error=error)

    def restore(self, plan: Plan) -> None:
        """Save the cut network with weights that no fresh instance has, load it into one, and compare."""
        gc.collect()
        self.say("restore-start")
        try:
            small = cut(self.model, plan)
            held = {name: t for name, t in small.state_dict().items() if isinstance(t, Tensor)}
            with torch.no_grad():
                for t in {t.data_ptr(): t for t in held.values() if t.is_floating_point()}.values():
                    t.mul_(0.5)
            with tempfile.TemporaryDirectory() as folder:
                save(small, folder)
                again = load(folder, model=build(self._name)[0])
            found = {name: t for name, t in again.state_dict().items() if isinstance(t, Tensor)}
            same = found.keys() == held.keys() and all(_alike(t, found[name]) for name, t in held.items())
            args, kwargs = as_call(self.inputs)
            outputs = []
            for network in (small, again):
                # What the forward draws at random is the same for both.
                torch.manual_seed(0)
                with torch.no_grad():
                    outputs.append(list(tensors_in(network.eval()(*args, **kwargs))))
            same = same and len(outputs[0]) == len(outputs[1]) and all(map(_alike, *outputs))
        except Exception as error:
            self.say("restore-done", restored=False, error=brief(error))
            return
        self.say("restore-done", restored=same, error=None if same else "tensors differ")


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def warm_up_ours() -> None:
    """Once on a tiny network."""
    model, x = tiny()
    job = Ours()
    job.run(model, x)
    assert job.small is not None
    output_shapes(job.small, x)


def warm_up_peer() -> None:
    """Once on a tiny network."""
    model, x = tiny()
    peer(model, x, output_layers(model, [(1, 10)]), peer_importance())
    output_shapes(model, x)


WARM_UPS: dict[str, Callable[[], None]] = {"ours": warm_up_ours, "peer": warm_up_peer}


def work(name: str, repeats: int, threads: int, sides: tuple[str, ...], channel: TextIO) -> None:
    """Everything that happens to one model; for a process of its own."""
    torch.set_num_threads(threads)
    Worker(name, channel).run(repeats, sides)
