"""One model of the engine benchmark in a process of its own: ``python -m benchmarks.engine_worker NAME ...``.

It speaks in lines of JSON on standard output, one before and one after everything that can hang or crash, so that the
parent knows what was going on when the lines stop.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch
from torch import nn

from benchmarks.engine_contestants import classifiers, ours, peer, peer_importance
from benchmarks.engine_models import build, build_tiny, output_shapes
from secateur.measure import count_macs
from secateur.surgery import Plan, verify


def timed(job: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result of a job, its seconds and its processor seconds. Garbage is collected before and not meanwhile."""
    gc.collect()
    gc.disable()
    try:
        start, cpu = time.perf_counter(), time.process_time()
        result = job()
        return result, {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    finally:
        gc.enable()


def brief(error: BaseException) -> str:
    """An error in one short line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__


class Worker:
    """Runs both sides in turn on one model and says what happens.

    Args:
        name: of the model.
        channel: where the lines of JSON go.
    """

    def __init__(self, name: str, channel: TextIO):
        self._channel = channel
        self.model, self.x = build(name)
        self.shapes = output_shapes(self.model, self.x)
        self.macs = count_macs(self.model, self.x)

    def say(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=self._channel, flush=True)

    def run(self, repeats: int, with_peer: bool) -> None:
        """Warm up, then A B A B, then the proof of ours outside of the timing."""
        self.say("ours-start", turn=-1)
        warm_up_ours()
        if with_peer:
            self.say("peer-start", turn=-1)
            warm_up_peer()
        self.say("ready", load=list(os.getloadavg()))
        plan = None
        do_ours, do_peer = True, with_peer
        for turn in range(repeats):
            if do_ours:
                plan = self.ours_once(turn)
                do_ours = plan is not None
            if do_peer:
                do_peer = self.peer_once(turn)
        if plan is not None:
            self.prove(plan)
        self.say("end", load=list(os.getloadavg()))

    def _after(self, side: str, turn: int, small: nn.Module, **fields: Any) -> bool:
        """Does the pruned network run, with the right output, and is it smaller?"""
        try:
            shapes = output_shapes(small, self.x)
            ratio = count_macs(small, self.x) / self.macs
        except Exception as error:
            self.say(f"{side}-done", turn=turn, status="forward failed", error=brief(error), **fields)
            return False
        if shapes != self.shapes:
            text = f"output {shapes}, the dense network gives {self.shapes}"
            self.say(f"{side}-done", turn=turn, status="wrong shape", error=text, **fields)
            return False
        status = "pruned" if ratio < 1 else "unchanged"
        self.say(f"{side}-done", turn=turn, status=status, macs_ratio=ratio, **fields)
        return True

    def ours_once(self, turn: int) -> Plan | None:
        model = copy.deepcopy(self.model)
        self.say("ours-start", turn=turn)
        try:
            (small, plan), times = timed(lambda: ours(model, self.x))
        except Exception as error:
            self.say("ours-done", turn=turn, status="crashed", error=brief(error))
            return None
        return plan if self._after("ours", turn, small, **times) else None

    def peer_once(self, turn: int) -> bool:
        model = copy.deepcopy(self.model)
        ignored = classifiers(model, self.shapes[0][1])
        importance = peer_importance()
        self.say("peer-start", turn=turn)
        try:
            small, times = timed(lambda: peer(model, self.x, ignored, importance))
        except Exception as error:
            self.say("peer-done", turn=turn, status="crashed", error=brief(error))
            return False
        return self._after("peer", turn, small, **times, scoring=importance.seconds, scoring_cpu=importance.cpu)

    def prove(self, plan: Plan) -> None:
        self.say("proof-start")
        try:
            proof = verify(self.model, plan, self.x)
        except Exception as error:
            self.say("proof-done", exact=False, max_error=None, error=brief(error))
            return
        # An infinite error (outputs that cannot be compared) has no place in JSON.
        error = None if math.isfinite(proof.max_error) else f"max_error is {proof.max_error}"
        self.say("proof-done", exact=proof.exact, max_error=None if error else proof.max_error, error=error)


def warm_up_ours() -> None:
    """Once on a tiny network."""
    model, x = build_tiny()
    output_shapes(ours(model, x)[0], x)


def warm_up_peer() -> None:
    """Once on a tiny network."""
    model, x = build_tiny()
    output_shapes(peer(model, x, classifiers(model, 10), peer_importance()), x)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--no-peer", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    # A library that prints must not garble the lines of JSON.
    channel, sys.stdout = sys.stdout, sys.stderr
    Worker(asked.name, channel).run(asked.repeats, with_peer=not asked.no_peer)


if __name__ == "__main__":
    main()
