"""The table that the engine benchmark prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.engine_summary import ALIKE


def number(value: float | None, form: str, unit: str = "") -> str:
    """A number as text; nothing for nothing."""
    return "" if value is None else f"{value:{form}}{unit}"


def line(row: Mapping[str, Any]) -> str:
    """What became of one model, said as soon as it is known."""
    return (
        f"{row['name']}: ours {number(row['ours_s'], '.2f', ' s')} {row['ours_status']}, "
        f"peer {number(row['peer_s'], '.2f', ' s')} {row['peer_status']}"
    )


def show(console: Console, result: Mapping[str, Any]) -> None:
    """The table and the sentences under it."""
    table = Table(title="the whole job, median seconds")
    for head in ("model", "ours", "peer", "times", "ours is", "error", "MACs", "locked", "the peer is", "MACs"):
        table.add_column(head, justify="left" if head in ("model", "ours is", "the peer is") else "right")
    for r in result["rows"]:
        table.add_row(
            r["name"],
            number(r["ours_s"], ".2f"),
            number(r["peer_s"], ".2f"),
            number(r["ratio"], ".1f"),
            r["ours_status"],
            number(r["ours_max_error"], ".0e"),
            number(r["ours_macs_ratio"], ".2f"),
            number((r["groups"] or {}).get("locked"), "d"),
            r["peer_status"],
            number(r["peer_macs_ratio"], ".2f"),
        )
    console.print(table)
    for r in result["rows"]:
        for side in ("ours", "peer"):
            if r[f"{side}_error"]:
                console.print(f"{r['name']}, {side}: {r[f'{side}_error']}", style="dim", markup=False)
    total = result["models"]
    console.print(
        f"of {total} models: traced {result['traced']}, exact {result['exact']} (half of the MACs or less: "
        f"{result['reached_half']}), wrong {result['wrong']}, unchanged {result['unchanged']}, "
        f"crashed {result['crashed']}, hung {result['hung']}; saved and restored into a fresh instance "
        f"{result['restored']}; the peer pruned {result['peer_pruned']}"
    )
    if result["geomean_speedup"] is not None:
        console.print(
            f"over the {result['compared']} that both can do, the peer takes {result['geomean_speedup']:.2f} times as "
            f"long (geometric mean; {number(result['geomean_speedup_unscored'], '.2f')} without the scores of either, "
            f"{number(result['geomean_speedup_cpu'], '.2f')} in processor time, "
            f"{number(result['geomean_speedup_alike'], '.2f')} over the {result['alike']} where neither leaves more "
            f"than {ALIKE:.0%} of the MACs); "
            f"ours is slower on: {', '.join(result['slower_on']) or 'none'}"
        )
