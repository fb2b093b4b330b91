"""From the stored result of ``python -m benchmarks.engine`` to the page that says what can be pruned."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
RESULT, PUBLISHED = RESULTS / "zoo-cpu.json", RESULTS / "hf-published-cpu.json"
PAGE = Path(__file__).with_name("what-can-be-pruned.md")

#: What a name begins with, longest first, and the title of its table.
FAMILIES = (
    ("torchvision:segmentation.", "torchvision, segmentation"),
    ("torchvision:detection.", "torchvision, detection"),
    ("torchvision:video.", "torchvision, video"),
    ("torchvision:optical_flow.", "torchvision, optical flow"),
    ("torchvision:", "torchvision, classification"),
    ("timm:", "timm, one model of every family"),
    ("hf:", "Hugging Face transformers, small configurations"),
)
#: The order of the tables on the page.
ORDER = ("torchvision:", *(prefix for prefix, _ in FAMILIES if prefix != "torchvision:"))

#: The engine's reasons for a lock, and what the tables call them.
REASONS = (
    (r"reaches the model's output", "outputs"),
    (r"rows are looked up by index", "embedding rows"),
    (r"looked up by index", "looked up by index"),
    (r"meets a fixed axis", "fixed axes"),
    (r"the other axis of a grid", "inside heads"),
    (r"lies beside a fixed index|indexed by number|a single index", "indexed by number"),
    (r"not used when", "not used"),
    (r"a spatial axis", "spatial axes"),
    (r"reaches .*\((\w+)\), an operation without a rule", "no rule for {}"),
    (r"the scale of the attention", "scales of attention"),
    (r"the code of (\w+)", "code of {}"),
)
MOST_REASONS = 4


def few_words(locked: Mapping[str, int] | None) -> str:
    """What is locked, in a few words with the number of units of each, the most first."""
    found: dict[str, int] = {}
    for reason, width in (locked or {}).items():
        words = " ".join(reason.split(" in ")[0].split()[:5])
        for pattern, text in REASONS:
            match = re.match(pattern, reason)
            if match:
                words = text.format(*match.groups())
                break
        found[words] = found.get(words, 0) + width
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{words} {width}" for words, width in ranked[:MOST_REASONS]]
    left = sum(width for _, width in ranked[MOST_REASONS:])
    return ", ".join([*texts, f"others {left}"] if left else texts)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _units(row: Mapping[str, Any]) -> str:
    parts = []
    for kind, n in (row["units"] or {}).items():
        if n["of"]:
            parts.append(f"{n['cut']} of {n['of']} {kind}s")
    return ", ".join(parts)


def _exact(row: Mapping[str, Any]) -> str:
    if row["ours_status"] == "exact":
        return f"{row['ours_max_error']:.0e}"
    return f"**{row['ours_status']}**"


def _peer(row: Mapping[str, Any]) -> str:
    if row["peer_status"] == "pruned":
        return f"{_percent(row['peer_macs_ratio'])}, {_seconds(row['peer_s'])} s"
    return row["peer_status"]


def table(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """Rows as a table of Markdown, their names without ``prefix``."""
    lines = [
        "| model | MACs left | exact | seconds | cut | locked | Torch-Pruning |",
        "| --- | --: | --: | --: | --- | --- | --- |",
    ]
    for row in rows:
        cells = (
            f"`{row['name'].removeprefix(prefix)}`",
            _percent(row["ours_macs_ratio"]),
            _exact(row),
            _seconds(row["ours_s"]),
            _units(row),
            few_words(row["locked"]),
            _peer(row),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table_without_peer(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """The same where no peer ran, so that its column would say nothing."""
    return [line[: line.rindex("|", 0, -1) + 1] for line in table(rows, prefix)]


def _escaped(text: str) -> str:
    """Text in a list of Markdown, with no path of the machine that it was said on."""
    return re.sub(r"\S*/(?=[^/\s]+\.py)", "", text).replace("`", "'").replace("|", "\\|")


def _failures(rows: Sequence[Mapping[str, Any]], side: str) -> list[str]:
    return [
        f"- `{r['name']}`: {r[f'{side}_status']}; `{_escaped(r[f'{side}_error'])}`" for r in rows if r[f"{side}_error"]
    ]


def measured(result: Mapping[str, Any]) -> list[str]:
    """When and on what, and the line that does it again."""
    hardware, protocol = result["hardware"], result["protocol"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    memory = f", {hardware['memory_gib']} GiB" if hardware.get("memory_gib") else ""
    commit = f" at commit `{protocol['commit']}`" if protocol["commit"] else ""
    load = hardware["load_average"]
    loads = " to ".join(f"{load[when][0]:.1f}" for when in ("before", "after") if when in load)
    return [
        f"Measured {protocol['date']}{commit} on {hardware['cpu']} ({hardware['cores']} cores"
        f"{memory}; threads: {protocol['threads']}; load average {loads}), median of {protocol['repeats']}. "
        f"Versions: {versions}.",
        # A result that was put together from several runs says how.
        *([f"Put together: {protocol['how']}."] if "how" in protocol else []),
        "",
        "```",
        protocol["reproduce"],
        "```",
    ]


def outcome(result: Mapping[str, Any]) -> list[str]:
    """How many networks ended how, and how many came back from files."""
    return [
        f"- Traced: {result['traced']}. Wrong: {result['wrong']}. Unchanged: {result['unchanged']}. Crashed: "
        f"{result['crashed']}. Over the time bound: {result['hung']}.",
        f"- Saved by `sc.save` and restored by `sc.load` into a fresh instance, every tensor and output the same: "
        f"{result['restored']}.",
    ]


def _top(result: Mapping[str, Any]) -> list[str]:
    total, protocol = result["models"], result["protocol"]
    lines = [
        f"- **{result['exact']} of {total}** models are cut exactly: the smaller network equals the masked one to 1e-9 "
        "in float64, on the inputs that it was traced on.",
        f"- {result['reached_half']} of these come down to half of the MACs; the others as far as what is locked "
        "allows.",
        *outcome(result),
    ]
    if protocol["peer"]:
        lines.append(
            f"- Torch-Pruning makes {result['peer_pruned']} of {total} smaller so that they run and give outputs of "
            "the dense shapes; whether these equal a masked network is not checked."
        )
    if result["geomean_speedup"] is not None:
        lines.append(f"- {_speed(result)}")
    return [*lines, "", *measured(result)]


def _speed(result: Mapping[str, Any]) -> str:
    """How long both sides take, in a sentence."""
    slower = result["slower_on"]
    text = (
        f"Over the {result['compared']} that both can do, it takes {result['geomean_speedup']:.2f} times as long as "
        "Secateur (geometric mean of the whole job"
    )
    if result["geomean_speedup_alike"] is not None:
        alike = result["geomean_speedup_alike"]
        text += f"; over the {result['alike']} where neither leaves more than 60 % of the MACs: {alike:.2f} times"
    rows = {row["name"]: row for row in result["rows"]}
    each = [f"`{n}` ({rows[n]['ratio']:.2f} times as fast; {100 * rows[n]['peer_macs_ratio']:.0f} %)" for n in slower]
    said = f" (MACs that Torch-Pruning leaves of it): {', '.join(each)}" if slower else ""
    return f"{text}); Secateur is slower on {len(slower) or 'none'}{said}."


def _in_published_sizes(result: Mapping[str, Any]) -> list[str]:
    prefix, protocol = "hf-published:", result["protocol"]
    rows = result["rows"]
    exact = sum(r["ours_status"] == "exact" for r in rows)
    return [
        "",
        f"## Hugging Face transformers, published sizes ({exact} of {len(rows)} exact)",
        "",
        "The small configurations above have two layers of width 64; these are twelve of them in the size that their "
        "class has by default. They are not counted above. DETR gets an image of 480 pixels: on smaller ones the "
        f"ratio is less, see `benchmarks/README.md`. Torch-Pruning makes {result['peer_pruned']} smaller. "
        f"{_speed(result)} Measured {protocol['date']} at commit "
        f"`{protocol['commit']}`: `{protocol['reproduce']}`.",
        "",
        *table(rows, prefix),
    ]


def page(result: Mapping[str, Any], published: Mapping[str, Any]) -> str:
    """The page as Markdown.

    Args:
        result: what ``python -m benchmarks.engine --out FILE`` stored.
        published: the same with ``--published``.
    """
    lines = [
        "# What can be pruned",
        "",
        "Written by `make docs` from `zoo-cpu.json` and `hf-published-cpu.json` in `benchmarks/results/`. Random "
        "weights; `benchmarks/README.md` has the protocol.",
        "",
        *_top(result),
        "",
        "*MACs left*: counted on the smaller network. *exact*: largest relative difference from the masked network. "
        "*seconds*: trace, scores, plan and cut. *locked*: units that stay, and why: *outputs* and *fixed axes* (among "
        "them the input) belong to the task; *code of X* means that X's forward does not follow a narrower tensor. "
        "*Torch-Pruning*: MACs left and seconds where it makes the network smaller.",
    ]
    prefix_of = {r["name"]: next(p for p, _ in FAMILIES if r["name"].startswith(p)) for r in result["rows"]}
    titles = dict(FAMILIES)
    for prefix in ORDER:
        rows = [r for r in result["rows"] if prefix_of[r["name"]] == prefix]
        if rows:
            exact = sum(r["ours_status"] == "exact" for r in rows)
            lines += ["", f"## {titles[prefix]} ({exact} of {len(rows)} exact)", "", *table(rows, prefix)]
    lines += _in_published_sizes(published)
    for title, side in (("What Secateur cannot do yet", "ours"), ("What Torch-Pruning says", "peer")):
        failures = _failures(result["rows"], side)
        if failures:
            lines += ["", f"## {title}", "", *failures]
    return "\n".join(lines) + "\n"


def stored() -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest stored results: of the zoo, and of transformers in published sizes."""
    zoo, published = (json.loads(path.read_text(encoding="utf-8")) for path in (RESULT, PUBLISHED))
    return zoo, published
