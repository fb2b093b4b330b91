"""The accelerator of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from secateur._errors import UsageError
from secateur.training.schedule import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


def accelerator_for(config: TrainConfig, device: torch.device | str | None) -> Accelerator:
    """Accelerate set up for this run: its own choice of device, or the CPU where CUDA is absent or not wanted.

    Raises:
        UsageError: a device that is not here, or half precision on the CPU.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    cuda = torch.cuda.is_available()
    wanted = torch.device(device) if device is not None else torch.device("cuda" if cuda else "cpu")
    if wanted.type not in ("cpu", "cuda") or (wanted.type == "cuda" and not cuda):
        raise UsageError(f"device {str(device)!r} is not here; available: cpu{', cuda' if cuda else ''}")
    if config.mixed_precision == "fp16" and wanted.type == "cpu":
        raise UsageError("mixed_precision='fp16' needs CUDA; on the CPU take 'bf16' or 'no'")
    if wanted.type == "cuda" and wanted.index is not None:
        torch.cuda.set_device(wanted)
    cpu = wanted.type == "cpu"
    # Accelerate keeps its first settings for the life of the process; a study has runs of several precisions.
    if AcceleratorState._shared_state:
        state = AcceleratorState()
        differs = state.mixed_precision != config.mixed_precision or (state.device.type == "cpu") != cpu
        if differs and state.num_processes == 1:
            AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=cpu, mixed_precision=config.mixed_precision)
    kinds = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.distributed_type not in kinds:
        raise UsageError(
            f"this loop runs in one process or data-parallel, not under {accelerator.distributed_type.value}\n"
            "choose no sharding in `accelerate config`"
        )
    return accelerator
