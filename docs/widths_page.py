"""From the stored results of a study to the page that compares ways to find widths: ``docs/widths.md``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rethinking_page

from secateur.report.statistics import FEWEST, interval, plus_minus, spread

PAGE = rethinking_page.PAGE.with_name("widths.md")
NAME = "widths-resnet20"

HEAD = """# Widths without weights, on two cores

Written by `make docs` from `benchmarks/results/rethinking/widths-resnet20.json`, where every run stands with its seed.

Where do the widths of a small network come from, and does it matter? ResNet-20 at half of its MACs, every network
trained alike from new weights: 8 epochs of the first 3,000 training images of CIFAR-10, batches of 32, so all are far
from what they can reach. Accuracy is that on all 10,000 test images in per cent after the last epoch, mean ± sample
standard deviation over n seeds. The seed draws everything: weights, order, augmentation, and the search. A difference
is paired by the seed; its interval is that of a paired t-test at 95 %, which with three seeds is wide.
"""

#: (method, what its detail says) of a cell -> how the page calls it.
ROWS = {
    ("pruning-from-scratch", ""): "inner widths by pruning from scratch",
    ("random", "protect ['conv1']"): "inner widths uniform",
    ("l1", ""): "inner widths that L1 leaves of a trained network",
    ("tas", "epochs 10, teacher none"): "TAS",
    ("tas", "epochs 1, teacher none"): "TAS that does not learn: an architecture by chance",
    ("random", "teacher none"): "all widths uniform",
    ("tas", "epochs 10, teacher dense"): "TAS, taught",
    ("tas", "epochs 1, teacher dense"): "by chance, taught",
    ("random", "teacher dense"): "all widths uniform, taught",
}
#: The questions: one row minus another.
PAIRS = (
    (0, 1, "the gates' widths against uniform ones"),
    (0, 2, "the gates' widths against those of L1"),
    (3, 5, "the search against uniform widths"),
    (3, 4, "the search against chance"),
    (6, 8, "the search against uniform widths, both taught"),
    (6, 7, "the search against chance, both taught"),
    (6, 3, "a teacher for what TAS found"),
    (8, 5, "a teacher for uniform widths"),
)


def page(result: Mapping[str, Any]) -> str:
    """The page."""
    names = list(ROWS.values())
    values: dict[str, dict[int, float]] = {name: {} for name in names}
    left: dict[str, list[float]] = {name: [] for name in names}
    for run in result["runs"]:
        name = _called(run)
        values[name][run["seed"]] = 100 * run["accuracy"]
        left[name].append(run["macs"] / run["dense macs"])
    lines = [HEAD, "| widths | MACs | accuracy | n |", "| --- | ---: | ---: | ---: |"]
    for name, found in values.items():
        if not found:
            continue
        macs = [100 * share for share in left[name]]
        span = f"{min(macs):.1f}" if max(macs) - min(macs) < 0.2 else f"{min(macs):.1f} to {max(macs):.1f}"
        lines.append(f"| {name} | {span} % | {plus_minus(spread(list(found.values())))} | {len(found)} |")
    taught = {run["seed"]: 100 * run["accuracy, dense"] for run in result["runs"] if run["method"] == "tas"}
    lines.append(f"| the whole network | 100 % | {plus_minus(spread(list(taught.values())))} | {len(taught)} |")
    lines += ["", "| question | difference in points | 95 % interval | |", "| --- | ---: | ---: | --- |"]
    lines += [_answer(values[names[one]], values[names[other]], text) for one, other, text in PAIRS]
    return "\n".join(lines).replace("\u00a0", " ") + "\n\n" + rethinking_page.origin(result)


def _called(run: Mapping[str, Any]) -> str:
    fitting = [name for (method, says), name in ROWS.items() if method == run["method"] and says in run["detail"]]
    if len(fitting) != 1:
        raise ValueError(f"{run['method']} ({run['detail']}) is {fitting or 'no row of the page'}")
    return fitting[0]


def _answer(one: Mapping[int, float], other: Mapping[int, float], text: str) -> str:
    differences = [one[seed] - other[seed] for seed in one if seed in other]
    found = interval(differences)
    if found is None or found.n < FEWEST:
        return f"| {text} | {', '.join(f'{d:+.2f}' for d in differences)} | | too few seeds |"
    said = "no evidence" if found.low <= 0 <= found.high else "better" if found.mean > 0 else "worse"
    return f"| {text} | {found.mean:+.2f} | {found.low:+.2f} to {found.high:+.2f} | {said} |"


def write() -> None:
    """The page from what is stored."""
    result = rethinking_page.stored(NAME)
    if result is not None:
        PAGE.write_text(page(result), encoding="utf-8")
