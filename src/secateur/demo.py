"""The whole story in minutes, on data that a dependency ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from secateur.budget import Budget
from secateur.card import Card
from secateur.graph import trace
from secateur.models import build
from secateur.pipeline import prune
from secateur.surgery import make_plan, verify
from secateur.training import TrainConfig
from secateur.workbench import set_up, train_dense

MODEL, DATA = "digits-resnet", "digits"
DENSE_EPOCHS, FINETUNE_EPOCHS, FINETUNE_LR = 12, 8, 0.01


def tell(out: Path, seed: int = 0, quiet: bool = False) -> Card:
    """Train a small ResNet, prune it to half its MACs, prove it, recover it, and set scratch training beside it."""
    console = Console(quiet=quiet)
    config = TrainConfig(
        epochs=DENSE_EPOCHS,
        lr=0.05,
        batch_size=64,
        weight_decay=5e-4,
        schedule="cosine",
        channels_last=True,
        seed=seed,
    )
    bench = set_up(MODEL, DATA, batch_size=config.batch_size, seed=seed)
    console.print(f"1. training {MODEL} on {DATA} ({len(bench.data.train):,} images, {DENSE_EPOCHS} epochs)")
    train_dense(bench, config, out, progress=not quiet)
    console.print("2. pruning it to half its MACs with l1, proving the cut, fine-tuning")
    console.print("3. training the same small network from scratch, with equal epochs (E) and equal compute (B)")
    result = prune(
        bench.model,
        bench.example,
        method="l1",
        budget=Budget(macs=0.5),
        train_data=bench.train,
        eval_data=bench.test,
        recover="finetune",
        epochs=FINETUNE_EPOCHS,
        recover_lr=FINETUNE_LR,
        compare=("scratch-e", "scratch-b"),
        seed=seed,
        out=out,
        config=config,
        latency_runs=200,
        names={"model": MODEL, "data": DATA},
        source=bench.source,
        reproduce=f"secateur demo --seed {seed}",
        progress=not quiet,
    )
    summary(console, result.card, out)
    return result.card


def summary(console: Console, card: Card, out: Path | None) -> None:
    """The card as a table."""
    table = Table(title=f"{card.model} on {card.data}, {card.method}", title_justify="left", box=None, pad_edge=False)
    for name in ("", "MACs", "parameters", "ms (median ± IQR)", "accuracy", "epochs"):
        table.add_column(name, justify="left" if not name else "right")

    def row(name: str, part: Any, quality: dict[str, float], epochs: str) -> None:
        ms = part.latency_ms
        time = f"{ms.median:.2f} ± {ms.iqr:.2f}" if ms else "-"
        accuracy = f"{100 * quality['accuracy']:.2f} %" if "accuracy" in quality else "-"
        table.add_row(name, f"{part.macs:,}", f"{part.params:,}", time, accuracy, epochs)

    row("dense", card.dense, card.dense.quality, "")
    cut = next((p for p in card.history if p.event == "cut"), None)
    after = {"accuracy": cut.accuracy} if cut is not None and cut.accuracy is not None else {}
    row("right after the cut", card.pruned, after, "0")
    if card.recovery is not None and card.recovery.name != "none":
        row(card.recovery.name, card.pruned, card.pruned.quality, f"{card.recovery.epochs:g}")
    for other in card.comparisons:
        row(other.name, other, other.quality, f"{other.epochs:g}")
    console.print(table)
    verdict = "exact" if card.exactness.exact else "NOT exact"
    console.print(f"{verdict}: cut and masked model differ by at most {card.exactness.max_error:.1e} in float64")
    for note in card.notes:
        console.print(f"note: {note}", markup=False)
    if out is not None:
        console.print(f"report: {out / 'report.html'}", markup=False)


def self_check() -> str:
    """Cut a small network at random and compare it with its masked self."""
    torch.manual_seed(0)
    model, example = build(MODEL), torch.randn(1, 1, 8, 8)
    graph = trace(model, example)
    plan = make_plan(graph, {g.name: range(g.width // 2) for g in graph.prunable})
    return str(verify(model, plan, example))
