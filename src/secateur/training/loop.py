"""The one training loop, on accelerate: checkpoints, exact resume, and hooks for the methods."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur._errors import TrainingError, UsageError
from secateur.training import checkpoint
from secateur.training import hooks as hook_calls
from secateur.training.device import accelerator_for
from secateur.training.gradients import Objective, gradients
from secateur.training.history import EpochRecord, History
from secateur.training.meter import Meter
from secateur.training.progress import Progress
from secateur.training.schedule import TrainConfig, build_optimiser, build_scheduler

if TYPE_CHECKING:
    from accelerate import Accelerator

_WINDOW = 32


def fit(
    model: nn.Module,
    train_loader: Iterable[Any],
    config: TrainConfig,
    *,
    eval_fn: Callable[[nn.Module], Mapping[str, float] | float] | None = None,
    hooks: Sequence[object] = (),
    objective: Objective | None = None,
    checkpoint_dir: str | Path | None = None,
    log: Callable[[EpochRecord], None] | None = None,
    progress: bool = True,
    device: torch.device | str | None = None,
) -> History:
    """Train ``model`` in place and leave it on the device that it was trained on.

    With a ``checkpoint_dir`` each epoch ends with a checkpoint (one file, the last good one, replaced in one step),
    and a call that finds one goes on from it: in one process on the CPU the interrupted and continued run equals the
    uninterrupted one bit for bit. CUDA kernels promise that only under ``torch.use_deterministic_algorithms``, and of
    several processes all go on with the random state of the first.

    Args:
        train_loader: an iterable of ``(x, y)`` batches, run through once an epoch. ``set_device(device)`` is called
            once and ``set_epoch(epoch)`` before every epoch, where they exist. Its order must come from that epoch,
            from ``loader.generator`` or from the global generators; these are part of the checkpoint.
        eval_fn: called with the model in evaluation mode after each epoch, or as often as ``config.evaluate_every``
            says; a number is taken as accuracy.
        hooks: objects with some of the methods of :class:`~secateur.training.Hook`.
        objective: ``(model, x, y) -> (loss, logits)``, for tasks other than classification; the logits, for the
            training accuracy, may be ``None``. The default is cross-entropy with the configured label smoothing.
        checkpoint_dir: made if missing; ``None`` writes nothing.
        log: called with every new epoch's record.
        progress: a bar with the time left, when standard error is a terminal.
        device: ``"cpu"`` or ``"cuda"``; by default CUDA where there is one.

    Raises:
        UsageError: nothing to train, or a device that is not here.
        TrainingError: a loss or a weight that is not a finite number; the checkpoint before it is kept.
        FileError: a checkpoint that cannot be written or read, or that belongs to another run.
        KeyboardInterrupt: passed on after saying on standard error how to go on.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise UsageError("there is nothing to train: no parameter of the model has requires_grad=True")
    accelerator = accelerator_for(config, device)
    if config.epochs == 0:
        model.to(accelerator.device)
        return History()
    from accelerate.utils import set_seed

    set_seed(config.seed)
    memory_format = torch.channels_last if config.channels_last else torch.preserve_format
    model.to(accelerator.device, memory_format=memory_format)  # pyright: ignore[reportCallIssue]
    if hasattr(train_loader, "set_device"):
        train_loader.set_device(accelerator.device)  # pyright: ignore[reportAttributeAccessIssue]
    run = _Run(accelerator, model, trained, config, tuple(hooks), objective or _cross_entropy(config))
    saved = checkpoint.Run(model, run.plain_optimiser, config, run.hooks, _generator(train_loader), accelerator.scaler)
    history = (checkpoint.read(checkpoint_dir, saved) if checkpoint_dir is not None else None) or History()
    if accelerator.num_processes > 1 and isinstance(train_loader, torch.utils.data.DataLoader):
        train_loader = accelerator.prepare_data_loader(train_loader)
    scheduler = build_scheduler(config, run.plain_optimiser) if not history else run.replay(len(history))
    try:
        with Progress(progress and accelerator.is_main_process, config.epochs, len(history), train_loader) as bar:
            for epoch in range(len(history), config.epochs):
                record = run.epoch(epoch, train_loader, bar, _last_good(checkpoint_dir, len(history)))
                scheduler.step()
                hook_calls.call(run.hooks, "on_epoch_end", model, epoch)
                due = (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs
                record = run.evaluated(record, eval_fn if due else None)
                grown = History((*history.records, record))
                if checkpoint_dir is not None and accelerator.is_main_process:
                    checkpoint.write(checkpoint_dir, saved, grown)
                accelerator.wait_for_everyone()
                # Only now: an interrupt while writing must not speak of a checkpoint that is not there.
                history = grown
                if log is not None:
                    log(record)
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            print(_how_to_resume(checkpoint_dir, len(history), config.epochs), file=sys.stderr)
        raise
    finally:
        if config.channels_last:
            # Files of weights want plain strides.
            model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return history


@dataclass
class _Run:
    accelerator: Accelerator
    model: nn.Module
    trained: list[nn.Parameter]
    config: TrainConfig
    hooks: tuple[object, ...]
    objective: Objective

    def __post_init__(self) -> None:
        self.plain_optimiser = build_optimiser(self.config, self.trained)
        # Accelerate's optimiser is there for the loss scaler; its step looks for installed packages each time, which
        # on a small network takes longer than the step.
        scaled = self.accelerator.scaler is not None
        self.optimiser: Any = (
            self.accelerator.prepare_optimizer(self.plain_optimiser) if scaled else self.plain_optimiser
        )
        # In one process preparing would only patch model.forward; the autocast below does the same without a trace.
        alone = self.accelerator.num_processes == 1
        self.callee: nn.Module = self.model if alone else self.accelerator.prepare_model(self.model)
        self.gradients = gradients(
            self.config.compiled,
            self.accelerator,
            self.callee,
            self.model,
            self.trained,
            self.objective,
            self.hooks,
        )

    def replay(self, epochs: int) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule after ``epochs`` steps, around an optimiser that already holds its state."""
        rates = [group["lr"] for group in self.plain_optimiser.param_groups]
        for group in self.plain_optimiser.param_groups:
            group.pop("initial_lr", None)
            group["lr"] = self.config.lr
        scheduler = build_scheduler(self.config, self.plain_optimiser)
        # The scheduler warns unless a step came first; without gradients a step changes nothing.
        self.plain_optimiser.zero_grad(set_to_none=True)
        self.plain_optimiser.step()
        for _ in range(epochs):
            scheduler.step()
        for group, rate in zip(self.plain_optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
        return scheduler

    def epoch(self, epoch: int, loader: Iterable[Any], bar: Progress, last_good: str) -> EpochRecord:
        """Train for one epoch."""
        rate = self.plain_optimiser.param_groups[0]["lr"]
        where = f"epoch {epoch + 1} of {self.config.epochs}"
        meter = Meter(1 if self.accelerator.device.type == "cpu" else _WINDOW)
        start = time.perf_counter()
        self.callee.train()
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
        hook_calls.call(self.hooks, "learning_rate", rate)
        hook_calls.call(self.hooks, "on_epoch_start", self.model, epoch)
        self.gradients.on_epoch_start()
        for x, y in loader:
            self._step(x, y, meter, lambda: self._check(meter, where, rate, last_good))
            bar.advance(epoch, meter.losses)
        self._check(meter, where, rate, last_good)
        # A last step can spoil the weights without a loss to show for it.
        if not all(torch.stack([p.isfinite().all() for p in self.trained]).tolist()):
            raise TrainingError(f"the weights are not finite after {where} (learning rate {rate:g})\n{last_good}")
        sums: Any = self.accelerator.reduce(meter.sums(self.accelerator.device), reduction="sum")
        loss, items, hits, judged = sums.tolist()
        if not items:
            raise UsageError("there is nothing to train on: the loader gave no batches")
        accuracy = hits / judged if judged else None
        return EpochRecord(epoch, rate, loss / items, accuracy, time.perf_counter() - start)

    def evaluated(self, record: EpochRecord, eval_fn: Callable[[nn.Module], Any] | None) -> EpochRecord:
        """The record with what ``eval_fn`` finds."""
        if eval_fn is None:
            return record
        self.model.eval()
        found = eval_fn(self.model)
        named = found if isinstance(found, Mapping) else {"accuracy": found}
        metrics = {name: float(value) for name, value in named.items()}
        return EpochRecord(record.epoch, record.lr, record.train_loss, record.train_accuracy, record.seconds, metrics)

    def _step(self, x: Any, y: Any, meter: Meter, check: Callable[[], None]) -> None:
        x, y = _moved(x, self.accelerator.device), _moved(y, self.accelerator.device)
        if self.config.channels_last and isinstance(x, Tensor) and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        loss, correct = self.gradients(x, y)
        items = y.shape[0] if isinstance(y, Tensor) and y.ndim else 1
        meter.add(loss, correct, y.numel() if correct is not None else 0, items)
        # Before the update, so that on the CPU a loss that is not a number moves no weight.
        if meter.due:
            check()
        if self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients(self.optimiser)
        hook_calls.call(self.hooks, "after_backward", self.model)
        if self.config.clip_grad_norm is not None:
            # Not accelerate's: it would unscale a second time.
            nn.utils.clip_grad_norm_(self.trained, self.config.clip_grad_norm)
        self.optimiser.step()
        hook_calls.call(self.hooks, "after_step", self.model)

    def _check(self, meter: Meter, where: str, rate: float, last_good: str) -> None:
        bad = meter.fetch()
        if bad is not None:
            raise TrainingError(
                f"the loss is {meter.losses[bad]} at {where}, batch {bad + 1}, learning rate {rate:g}\n"
                f"try a lower learning rate, a warm-up or clip_grad_norm\n{last_good}"
            )


def _cross_entropy(config: TrainConfig) -> Objective:
    def objective(model: nn.Module, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        out = model(x)
        # Models of transformers give their logits by name.
        logits = getattr(out, "logits", out)
        return F.cross_entropy(logits, y, label_smoothing=config.label_smoothing), logits

    return objective


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    # For nested inputs only: it searches for installed packages on every call, longer than a small step takes.
    from accelerate.utils import send_to_device

    return send_to_device(value, device, non_blocking=True)


def _generator(loader: Iterable[Any]) -> torch.Generator | None:
    found = getattr(loader, "generator", None)
    return found if isinstance(found, torch.Generator) else None


def _last_good(folder: str | Path | None, done: int) -> str:
    if folder is None:
        return "there is no checkpoint: no checkpoint folder was given"
    if done == 0:
        return "there is no checkpoint yet: no epoch was finished"
    return f"the last good checkpoint, after epoch {done}, is {Path(folder, checkpoint.FILE_NAME)}"


def _how_to_resume(folder: str | Path | None, done: int, epochs: int) -> str:
    if folder is None or done == 0:
        return f"Interrupted. {_sentence(_last_good(folder, done))}; the same command begins again."
    return (
        f"Interrupted after {done} of {epochs} epochs. {_sentence(_last_good(folder, done))}.\n"
        "Run the same command again to go on from there."
    )


def _sentence(text: str) -> str:
    # str.capitalize would put the path in lower case.
    return text[0].upper() + text[1:]
