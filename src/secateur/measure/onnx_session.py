"""A model as an ONNX Runtime session, to be timed."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur._errors import InputError
from secateur._optional import require
from secateur.measure.inputs import Inputs, as_call, device_of, tensors_in

# Loose enough for reordered float32 sums through a deep network, tight enough to notice a wrong graph.
_TOLERANCE = 1e-3


def onnx_runner(model: nn.Module, inputs: Inputs, threads: int | None) -> Callable[..., Any]:
    """Export a model to a temporary ONNX file, load it in ONNX Runtime on the CPU, and return a function to time.

    The inputs are converted once; the returned function ignores its arguments and runs the session on them. The
    first outputs are compared with PyTorch's, because the time of another function would mean nothing. Worker
    threads do not spin while they wait: two sessions are measured in turn, and a spinning one slows its neighbour.

    Args:
        model: a module in evaluation mode on the CPU.
        inputs: its example inputs.
        threads: intra-op threads; ``None`` takes PyTorch's number.

    Raises:
        MissingExtra: onnx, onnxscript or onnxruntime is not installed.
        InputError: model or inputs are not on the CPU, or the session's output is not PyTorch's.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "onnx")
    runtime = require("onnxruntime", "onnx")
    args, kwargs = as_call(inputs)
    if device_of(model).type != "cpu" or any(t.device.type != "cpu" for t in tensors_in((args, kwargs))):
        raise InputError("ONNX Runtime is measured on the CPU, but the model or its inputs are on another device")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        path = Path(folder, "model.onnx")
        with _quiet(), torch.no_grad():
            torch.onnx.export(model, args, path, kwargs=kwargs or None, dynamo=True, verbose=False)
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    arrays = [t.detach().numpy() for t in tensors_in((args, kwargs))]
    feed = dict(zip((entry.name for entry in session.get_inputs()), arrays, strict=True))
    _same_function(model, args, kwargs, session.run(None, feed))

    def run(*_args: Any, **_kwargs: Any) -> Any:
        return session.run(None, feed)

    return run


def _same_function(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], got: list[Any]) -> None:
    with torch.inference_mode():
        want = [t.numpy() for t in tensors_in(model(*args, **kwargs))]
    for ours, theirs in zip(want, got, strict=False):
        scale = max(float(np.abs(ours).max(initial=0.0)), 1e-6)
        error = float(np.abs(ours - theirs).max(initial=0.0)) / scale
        if not error <= _TOLERANCE:
            raise InputError(f"the ONNX graph is not the same function: relative difference {error:.1e}")


@contextlib.contextmanager
def _quiet():
    """The exporter prints, logs and warns about its own insides; none of it is the user's business here."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
