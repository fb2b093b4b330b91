"""From stored results of studies to the page that compares: ``docs/rethinking.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "rethinking"
PAGE = Path(__file__).with_name("rethinking.md")

AFTER_THE_CUT = ("right-after-the-cut-resnet20", "right-after-the-cut-resnet56")
PIPELINE = "resnet20-short"

HEAD = """# Rethinking, on two cores

Written by `make docs` from `benchmarks/results/rethinking/`, where every run stands with its seed. Accuracy is that on
all 10,000 test images of CIFAR-10 in per cent, mean ± sample standard deviation over n seeds, after the last epoch. A
difference is paired by the seed; its interval is that of a paired t-test at 95 %, which with three seeds is wide.
Intervals stand for themselves: of many, about one in twenty misses the true difference.
"""

CUT = """
## Right after the cut

Trained ResNets at half of their MACs. The four methods keep the same widths everywhere, so only the choice of the units
(and for two of them the weights behind it) differs. `thinet` and `reconstruction` look at 2,000 augmented training
images. The dense weights are the same for every seed: the seed draws the calibration images, the places that are
looked at, the order of the fine-tuning and what `random` removes. What is said here is therefore said of these
networks, not of other trainings of them.

Fine-tuning is one pass over the first 10,000 (ResNet-20) or 5,000 (ResNet-56) training images in batches of 64 at a
constant learning rate. 0.01 was run first; the paper's 0.001 was added when 0.01 was seen to take from what
`reconstruction` had left on ResNet-20. Both are shown.
"""

WHOLE = """
## The whole pipeline: fine-tune, Scratch-E or Scratch-B

ResNet-20, from a dense training of its own for every seed. The seed draws everything: initial weights, order,
augmentation. Training is 8 epochs of the first 3,000 training images (8 for Scratch-E, 16 for Scratch-B, 2 for
fine-tuning, the paper's proportions), so these networks are far from what they can reach: this compares ways to spend
few steps and does not repeat the paper's table. Slimming and SFP train on for 8 epochs under their own rule after the
dense training, which nobody charges them for.
"""


def stored(name: str) -> dict[str, Any] | None:
    """A result, or None where there is none yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def page(cuts: Sequence[Mapping[str, Any]], whole: Mapping[str, Any] | None) -> str:
    """The page."""
    parts = [HEAD, CUT, *(_study(result, "methods") for result in cuts)]
    if whole is not None:
        parts += [WHOLE, _study(whole, "recoveries")]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _study(result: Mapping[str, Any], questions: str) -> str:
    """A table, the verdicts on one kind of question, and where it comes from."""
    names = dict.fromkeys(f"{c['model']} on {c['data']}" for c in result["cells"])
    text = f"\n### {', '.join(names)}\n\n" + "\n".join(_table(result["cells"])) + "\n"
    about = None
    for pair in result[questions]:
        if pair["about"] != about:
            about = pair["about"]
            text += f"\n{about}:\n\n"
        text += f"- {pair['verdict']}\n"
    for line in result["published"]:
        text += (
            f"\nPublished beside {line['method']}, {line['budget']}: {'; '.join(', '.join(f) for f in line['figures'])}"
        )
        text += f". Different there: {'; '.join(line['differences'])}.\n"
    return text + "\n" + origin(result)


def origin(result: Mapping[str, Any]) -> str:
    """Where a result comes from, and what to know of it."""
    hardware, versions = result["hardware"], result["versions"]
    said = hardware if isinstance(hardware, str) else ", ".join(f"{k} {v}" for k, v in hardware.items() if v)
    text = f"`{result['reproduce']}`, commit {result['commit'][:7]}; {said}; "
    text += ", ".join(f"{k} {v}" for k, v in versions.items() if k in ("python", "torch")) + ".\n"
    return text + "".join(f"{note[0].upper()}{note[1:]}.\n" for note in result["notes"])


def _table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for every method and budget, a column for every recovery."""
    rows = dict.fromkeys(_row(cell) for cell in cells)
    ways = sorted(dict.fromkeys(c["recovery"] for c in cells if c["recovery"] != "as cut"), key=_place)
    lines = [f"| method, what remains | MACs | dense | right after the cut | {' | '.join(ways)} |"]
    lines.append("| --- " + "| ---: " * (3 + len(ways)) + "|")
    for row in rows:
        own = {c["recovery"]: c for c in cells if _row(c) == row}
        first = next(iter(own.values()))
        left = sum(first["macs left"]) / len(first["macs left"])
        found = [first["dense"], first["cut"], *(own[way]["value"] if way in own else None for way in ways)]
        lines.append(f"| {row} | {100 * left:.0f} % | {' | '.join(map(_mean, found))} |")
    counts = sorted({c["value"]["n"] for c in cells})
    return [*lines, "", f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "") + "."]


def _row(cell: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (f"`{cell['method']}`", cell["budget"], cell["detail"])))


def _place(way: str) -> tuple[int, str]:
    order = ("fine-tune", "scratch-E", "scratch-B")
    return next((n for n, name in enumerate(order) if way.startswith(name)), len(order)), way


def _mean(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    # The same network for every seed has no spread.
    return f"{found['mean']:.2f}" + ("" if not found["std"] else f" ± {found['std']:.2f}")


def write() -> None:
    """The page from what is stored."""
    cuts = [found for name in AFTER_THE_CUT if (found := stored(name)) is not None]
    PAGE.write_text(page(cuts, stored(PIPELINE)), encoding="utf-8")
