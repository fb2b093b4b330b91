"""What can be done with a network can be done with the cut one: copied, pickled, trained, exported, compiled.

``python -m benchmarks.lives_on`` prints a line a network of the zoo, and a last line of JSON. Each is cut to half of
its MACs, or of every width where that cannot be reached. What fails is tried on the dense network, too.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from benchmarks.engine_server import preload, watch
from benchmarks.one_by_one import one_by_one
from benchmarks.zoo import build, libraries, names, select, types
from secateur import Budget, Plan, PruningGraph, cut, plan, score, trace
from secateur._errors import BudgetError, SecateurError
from secateur.graph.capture import as_call
from secateur.graph.luck import with_same_luck
from secateur.graph.trees import map_tensors, output_tensors
from secateur.surgery import make_plan

#: Seconds for one use of one network.
BOUND_S = 90.0


def _outputs(network: Callable[..., Any], owner: nn.Module, inputs: Any) -> list[Tensor]:
    args, kwargs = copy.deepcopy(as_call(inputs))
    with torch.no_grad():
        return list(
            output_tensors(with_same_luck(owner, args, kwargs) if network is owner else network(*args, **kwargs))
        )


def _require_same(found: list[Tensor], model: nn.Module, inputs: Any) -> None:
    wanted = _outputs(model, model, inputs)
    if [t.shape for t in found] != [t.shape for t in wanted]:
        raise ValueError("other shapes")
    for a, b in zip(found, wanted):
        if not torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4, equal_nan=True):
            raise ValueError("other numbers")


def copied(model: nn.Module, inputs: Any) -> None:
    """``copy.deepcopy``."""
    other = copy.deepcopy(model)
    _require_same(_outputs(other, other, inputs), model, inputs)


def pickled(model: nn.Module, inputs: Any) -> None:
    """``torch.save`` of the whole module, and back."""
    data = io.BytesIO()
    torch.save(model, data)
    other = torch.load(io.BytesIO(data.getvalue()), weights_only=False)
    _require_same(_outputs(other, other, inputs), model, inputs)


def lower(model: nn.Module, inputs: Any) -> None:
    """A forward pass in bfloat16."""
    low = copy.deepcopy(model).to(torch.bfloat16)
    given = map_tensors(as_call(inputs), lambda t: t.to(torch.bfloat16) if t.is_floating_point() else t)
    with torch.no_grad():
        low(*given[0], **given[1])


def trained(model: nn.Module, inputs: Any) -> None:
    """A forward pass in training mode, and a backward pass, of two examples where inputs are one image."""
    model = copy.deepcopy(model).train()
    args, kwargs = copy.deepcopy(as_call(inputs))
    args = tuple(torch.cat([t, t]) if isinstance(t, Tensor) and t.dim() == 4 else t for t in args)
    outputs = [t for t in output_tensors(model(*args, **kwargs)) if t.requires_grad]
    torch.stack([t.abs().double().square().mean() for t in outputs]).sum().backward()


def exported(model: nn.Module, inputs: Any) -> None:
    """``torch.export``, and the program that it gives."""
    args, kwargs = copy.deepcopy(as_call(inputs))
    program = torch.export.export(model, args, kwargs, strict=False)
    _require_same(_outputs(program.module(), model, inputs), model, inputs)


def compiled(model: nn.Module, inputs: Any, backend: str = "eager") -> None:
    """``torch.compile`` as far as its graphs: what a backend makes of these is not tried."""
    torch._dynamo.reset()
    _require_same(_outputs(torch.compile(model, backend=backend), model, inputs), model, inputs)


def inductor(model: nn.Module, inputs: Any) -> None:
    """``torch.compile`` to the end, which takes up to minutes."""
    compiled(model, inputs, "inductor")


USES: dict[str, Callable[[nn.Module, Any], None]] = {
    use.__name__: use for use in (copied, pickled, lower, trained, exported, compiled, inductor)
}
#: Those that nobody has to ask for.
_USUAL = [name for name in USES if name != "inductor"]


def _half(graph: PruningGraph) -> Plan:
    try:
        return plan(graph, score(graph, "l2"), Budget(macs=0.5))
    except BudgetError:
        return make_plan(graph, {g.name: range(max(g.least, g.width // 2)) for g in graph.prunable})


def _fails(use: Callable[[nn.Module, Any], None], model: nn.Module, inputs: Any) -> str:
    """What goes wrong; empty if nothing does."""
    try:
        use(model, inputs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def _work(name: str, uses: list[str], channel: TextIO) -> None:
    """One network: a line of JSON before and after every use."""

    def say(event: str, **more: Any) -> None:
        print(json.dumps({"event": event, **more}), file=channel, flush=True)

    torch.manual_seed(0)
    model, inputs = build(name)
    model.eval()
    small = cut(model, _half(trace(model, inputs)))
    for use in uses:
        say("use-start", use=use)
        if why := _fails(USES[use], small, inputs):
            say("use-done", use=use, end="dense fails too" if _fails(USES[use], model, inputs) else "broken", why=why)
        else:
            say("use-done", use=use, end="works")


def _row(uses: list[str], name: str) -> dict[str, Any]:
    bound = 4 * BOUND_S if "inductor" in uses else BOUND_S
    events = watch(partial(_work, name, uses), {"use-start": bound})
    row: dict[str, Any] = {"name": name, "ends": {}, "why": {}}
    for event in events:
        if event["event"] == "use-done":
            row["ends"][event["use"]] = event["end"]
            if "why" in event:
                row["why"][event["use"]] = event["why"]
    last = events[-1] if events else {"event": "worker-died"}
    if last["event"] != "use-done":
        row["stopped"] = {**(events[-2] if len(events) > 1 else {}), **last}
    return row


def summary(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """How often every use worked, was broken by the cut, or fails on the dense network as well."""
    rows = list(rows)
    asked = [use for use in USES if any(use in row["ends"] for row in rows)]
    count = {use: {"works": 0, "dense fails too": 0, "broken": 0} for use in asked}
    for row in rows:
        for use, end in row["ends"].items():
            count[use][end] += 1
    return {
        "models": len(rows),
        "uses": count,
        "broken": [f"{row['name']}: {use}" for row in rows for use, end in row["ends"].items() if end == "broken"],
        "stopped": [row["name"] for row in rows if "stopped" in row],
    }


def _told(row: dict[str, Any]) -> str:
    ends = [f"{use} {end}" for use, end in row["ends"].items() if end != "works"]
    stopped = [f"stopped: {row['stopped']}"] if "stopped" in row else []
    return ", ".join(ends + stopped) or "all works"


def main(words: list[str] | None = None) -> int:
    """Run it; 0, or 2 where it could not start."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lives_on", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="networks that match; repeatable"
    )
    parser.add_argument("--types", action="store_true", help="the types of transformers instead of the zoo")
    parser.add_argument("--libraries", action="store_true", help="the networks of other libraries instead of the zoo")
    parser.add_argument("--use", action="append", choices=USES, help=f"try this; repeatable; if absent {_USUAL}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="store the JSON here, after every network")
    asked = parser.parse_args(words)
    try:
        some = select(types() if asked.types else libraries() if asked.libraries else names(), asked.only)
        preload(some, with_peer=False)
    except SecateurError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    which = " --types" if asked.types else " --libraries" if asked.libraries else ""
    uses = asked.use or _USUAL
    which += "".join(f" --use {use}" for use in asked.use or ())
    one_by_one(
        some,
        partial(_row, uses),
        _told,
        summary,
        ours="plan of l2 scores at macs=0.5, or half of every width where that cannot be reached",
        reproduce=f"python -m benchmarks.lives_on{which}",
        out=asked.out,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
