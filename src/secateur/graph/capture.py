"""One forward pass, with labels following every activation.

The model runs once as a *skeleton*: a copy of its modules whose parameters live on the meta device, so next to nothing
is computed and nothing of the user's model is touched. Models that look at what their parameters computed cannot run
that way; those run on the real tensors, which the skeleton then shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.graph.admit import admitted, does_not_run, oddity
from secateur.graph.blocks import Block
from secateur.graph.clone import Copy, Mould
from secateur.graph.doubts import Doubts, Pair, Place
from secateur.graph.following import Operation, Run, follow
from secateur.graph.labels import Labels, along
from secateur.graph.ledger import AxisRef, Ledger, ParameterAxis, Site
from secateur.graph.marks import lock_marked
from secateur.graph.meta import MetaMemory
from secateur.graph.recurrent import tie_states
from secateur.graph.skeleton import skeleton_of, without_numbers
from secateur.graph.sourced import name_attributes
from secateur.graph.sources import Scale
from secateur.graph.training_parts import callers_of, in_training
from secateur.graph.trees import map_tensors, plain_tensor


@dataclass(frozen=True)
class Capture:
    """A finished pass.

    Attributes:
        ledger: what was written down.
        operations: what ran, in order.
        sites: operations that read across units.
        entering: label systems that entered each module.
        mould: the model, taken apart to be copied.
        skeleton: the copy on which the pass ran.
        inputs: what it ran on.
        on_meta: without numbers.
        memory: results on the meta device.
        doubts: what the code did with sizes of which it is not known that it follows a cut.
        unused: names of the tensors that no operation was given.
        blocks: modules that can be left out as a whole.
        pairs, scales: what the code did with sizes, see ``Sources``.
        bound: axes of attributes that the code gave as sizes.
        callers: modules that were in training mode, see ``training_parts.py``.
        in_training: a second pass, in which parts ran that run only in training.
    """

    ledger: Ledger
    operations: list[Operation]
    sites: list[Site]
    entering: dict[str, list[Tensor]]
    mould: Mould
    skeleton: nn.Module
    inputs: tuple[tuple, dict]
    on_meta: bool
    memory: MetaMemory
    doubts: Doubts
    unused: set[str]
    blocks: list[Block]
    pairs: dict[int, list[Pair]]
    scales: dict[int, Scale]
    bound: dict[Place, AxisRef]
    callers: tuple[str, ...] = ()
    in_training: Capture | None = None

    @property
    def never_used(self) -> set[str]:
        """Names of the tensors that no operation is given in training either."""
        return self.unused if self.in_training is None else self.unused & self.in_training.unused

    @property
    def idle(self) -> set[str]:
        """Modules that hold parameters that are never used."""
        return {name.rpartition(".")[0] for name in self.never_used & self.mould.parameters.keys()}

    @property
    def waiting(self) -> set[str]:
        """Those, and modules that hold buffers of several numbers that are never used."""
        unused = ((name, self.mould.buffers[name]) for name in self.never_used & self.mould.buffers.keys())
        return self.idle | {n.rpartition(".")[0] for n, t in unused if t.is_floating_point() and t.numel() > 1}


def as_call(example_inputs: Any) -> tuple[tuple, dict]:
    """Example inputs as positional and keyword arguments: a tensor, a tuple of arguments, or a dict of keywords."""
    if isinstance(example_inputs, dict):
        return (), example_inputs
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def label_parameters(run: Run, skeleton: Copy) -> None:
    """Fresh labels for every axis of every parameter, floating-point buffer and constant that is longer than one.

    The taps of a convolution's kernel bear none, because nobody cuts a 3x3 kernel to 2x3.
    """
    ledger, held = run.ledger, skeleton.tensors
    kernels = {id(m._parameters.get("weight")) for _, m in skeleton.modules if isinstance(m, nn.modules.conv._ConvNd)}
    odd = {name: reason for name, tensor in held.items() if (reason := oddity(tensor))}
    labelled: list[tuple[str, Tensor, list[tuple[int, int]]]] = []
    weight = Labels(is_weight=True)
    for name, tensor in held.items():
        run.set(tensor, weight)
        if tensor.is_floating_point() or name in odd:
            shape = tensor.shape
            if id(tensor) in kernels:
                ledger.taps[name] = math.prod(shape[2:])
                shape = shape[:2]
            labelled.append((name, tensor, [(axis, size) for axis, size in enumerate(shape) if size > 1]))
    # One run of labels for all of them: hundreds of small tensors would take longer.
    start = ledger.count
    lines = iter(ledger.take_lines([size for _, _, axes in labelled for _, size in axes]))
    for name, tensor, axes in labelled:
        shape, systems = tensor.shape, []
        for axis, size in axes:
            ledger.axes.append(ParameterAxis(name, axis, start, size))
            systems.append(along(axis, shape, next(lines)))
            start += size
        if name in odd:
            ledger.lock_systems(systems, f"meets {name}, which {odd[name]}")
        run.set(tensor, Labels(tuple(systems), is_weight=True))


def capture(model: nn.Module, example_inputs: Any) -> Capture:
    """Run the model once and follow its labels.

    Raises:
        UsageError: it is no module.
        InputError: the model does not take the example inputs, or is of a kind that cannot be traced.
    """
    mould, call = admitted(model), as_call(example_inputs)
    try:
        return _capture(mould, call, on_meta=True)
    except Exception as error:
        # Whatever the meta device could not do (reading a value, an operation without a meta kernel) real tensors can.
        on_meta = error
    try:
        return _capture(mould, call, on_meta=False)
    except Exception as error:
        raise does_not_run(model, call, on_meta, error) from error


def _capture(mould: Mould, call: tuple[tuple, dict], on_meta: bool) -> Capture:
    if on_meta:
        skeleton = skeleton_of(mould, without_numbers)
        inputs = map_tensors(call, lambda t: without_numbers("", plain_tensor(t)))
    else:
        skeleton = skeleton_of(mould, lambda _, t: t)
        device = next((p.device for p in skeleton.model.parameters()), torch.device("cpu"))
        inputs = map_tensors(call, lambda t: plain_tensor(t).to(device))
    run = Run(Ledger(), skeleton, MetaMemory(on_meta))
    label_parameters(run, skeleton)
    tie_states(run.ledger, skeleton)
    name_attributes(skeleton.modules, run.doubts)
    found = _followed(run, mould, skeleton, inputs)
    if on_meta:
        found = _with_training(found, skeleton)
    else:
        # On real values the code of the model may take another branch.
        found.doubts.always = True
    unused = found.never_used
    # A tensor that a hook, say, keeps in an attribute.
    found.ledger.forget(unused & mould.constants.keys())
    for name, tensor in skeleton.tensors.items():
        if name in unused:
            reason = "not used when the model runs on the example inputs"
            found.ledger.lock_systems(run.labels(tensor).systems, reason)
    return found


def _followed(
    run: Run, mould: Mould, skeleton: Copy, inputs: tuple[tuple, dict], callers: tuple[str, ...] = ()
) -> Capture:
    """One pass, with the ``callers`` in training mode."""
    with in_training(skeleton.model, callers):
        follow(run, skeleton, inputs)
    lock_marked(run, skeleton)
    blocks, sources = run.trails.blocks(), run.sources
    sources.finish()
    run.close()
    return Capture(
        ledger=run.ledger,
        operations=run.operations,
        sites=run.ledger.sites,
        entering=run.entering,
        mould=mould,
        skeleton=skeleton.model,
        inputs=inputs,
        on_meta=run.perform.on_meta,
        memory=run.perform,
        doubts=run.doubts,
        unused={name for name, t in skeleton.tensors.items() if id(t) not in run.used},
        blocks=blocks,
        pairs=sources.pairs,
        scales=sources.scales,
        bound=sources.bound,
        callers=callers,
    )


def _with_training(found: Capture, skeleton: Copy) -> Capture:
    """The same with a second pass, if tensors that were not used are used in training."""
    best = found
    waiting = found.waiting
    tries = callers_of(waiting, found.entering.keys(), skeleton) if waiting else []
    if not tries:
        return found
    numbers = [(vars(m), {k: v for k, v in vars(m).items() if type(v) in (bool, int)}) for _, m in skeleton.modules]
    for callers in tries:
        for attributes, before in numbers:
            # Modules may count their passes, also those that led to nothing.
            attributes.update(before)
        ledger = found.ledger.branch()
        run = Run(ledger, skeleton, MetaMemory(True))
        run.sources.bound |= found.bound
        name_attributes(skeleton.modules, run.doubts)
        try:
            training = _followed(run, found.mould, skeleton, found.inputs, callers)
        except Exception:
            # It asks for targets, say. That the model runs in evaluation mode is known, and that is what counts.
            continue
        # What is masked and counted is what runs in evaluation mode.
        own = len(found.ledger.sites), len(found.ledger.terms)
        training = replace(training, sites=ledger.sites[own[0] :])
        del ledger.sites[own[0] :], ledger.terms[own[1] :]
        more = replace(found, ledger=ledger, sites=ledger.sites, in_training=training)
        if more.waiting < best.waiting:
            best = more
        if not best.waiting:
            break
    return best
