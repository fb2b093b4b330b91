"""The command line: verbs, each a few lines over what stands below."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from secateur._errors import SecateurError, UsageError

app = typer.Typer(
    help="Make PyTorch networks really smaller, measurably faster, and say honestly what that cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()

Input = Annotated[str | None, typer.Option("--input", help="Shape of one input: 1x3x224x224.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the results.")]
Weights = Annotated[Path | None, typer.Option(help="Weights of the dense model, a safetensors file.")]
Pretrained = Annotated[bool, typer.Option(help="Weights that torchvision or timm download.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the data set's files are.")]


def emit(value: Any) -> None:
    """Print JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=k == 0)
    for row in rows:
        table.add_row(*row)
    # Not the table's own title: that one is folded to the table's width.
    console.print(title, style="italic", markup=False, highlight=False)
    console.print(table, markup=False)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """The whole story in minutes: train, prune, prove, recover, and compare with training from scratch."""
    from secateur.demo import tell

    card = tell(out, seed, quiet=as_json)
    if as_json:
        emit(card.to_dict())


@app.command()
def prune(
    model: Annotated[str, typer.Argument(help="Name of the model, see `secateur models`.")],
    data: Annotated[str, typer.Option(help="Name of the data set, see `secateur data`.")] = "digits",
    method: Annotated[str, typer.Option(help="How units are judged, see `secateur methods`.")] = "l1",
    option: Annotated[list[str] | None, typer.Option(help="An option of the method: penalty=1e-5. Repeatable.")] = None,
    budget: Annotated[str | None, typer.Option(help="What remains: macs=50%, params=1.2M.")] = None,
    preset: Annotated[str | None, typer.Option(help="Widths for a budget: resnet56-B, or a widths.json.")] = None,
    recover: Annotated[str, typer.Option(help="finetune, scratch-e, scratch-b or none.")] = "finetune",
    epochs: Annotated[int | None, typer.Option(help="Epochs of the recovery.")] = None,
    recover_lr: Annotated[float | None, typer.Option(help="Learning rate of finetune; its paper says 0.001.")] = None,
    scratch_b_cap: Annotated[float | None, typer.Option(help="Scratch-B: at most so many times the epochs.")] = None,
    recalibrate: Annotated[int, typer.Option(help="Re-estimate batch norms on so many batches after the cut.")] = 0,
    compare: Annotated[str, typer.Option(help="More recoveries for the table: scratch-e,scratch-b.")] = "",
    teacher: Annotated[str | None, typer.Option(help="dense or none: who teaches; the method knows its own.")] = None,
    train: Annotated[int, typer.Option(help="Train the dense model first, for so many epochs.")] = 0,
    weights: Weights = None,
    pretrained: Pretrained = False,
    data_dir: DataDir = None,
    shape: Input = None,
    out: Out = None,
    seed: int = 0,
    round_to: Annotated[int, typer.Option(help="Widths snap to multiples of this; 1 turns it off.")] = 8,
    ranking: Annotated[str | None, typer.Option(help="global or layer; the method knows its own.")] = None,
    protect: Annotated[str, typer.Option(help="Groups or modules that stay whole: conv1,layer4.*")] = "",
    floor: Annotated[float, typer.Option(help="The least share of a group that stays.")] = 0.1,
    uniform: Annotated[bool, typer.Option("--uniform", help="The same widths in every layer of a stack.")] = False,
    base_epochs: Annotated[int, typer.Option(help="Epochs of the dense training that scratch refers to.")] = 160,
    lr: Annotated[float, typer.Option(help="Learning rate of the dense training.")] = 0.1,
    batch_size: int = 64,
    limit: Annotated[int | None, typer.Option(help="Use the first so many training images.")] = None,
    limit_test: Annotated[int | None, typer.Option(help="Use the first so many test images.")] = None,
    as_json: Json = False,
) -> None:
    """Make a trained network smaller, recover it, prove it, measure it, and write the report."""
    from dataclasses import replace

    from secateur.budget import Budget
    from secateur.job import job
    from secateur.models import carries_weights, default_input_shape
    from secateur.pipeline import prune as run
    from secateur.pipeline import rehearse
    from secateur.training import TrainConfig
    from secateur.workbench import parse_shape, set_up, train_dense

    config = TrainConfig(epochs=train or base_epochs, lr=lr, batch_size=batch_size, channels_last=True, seed=seed)
    wish: dict[str, Any] = {
        "method": method,
        "options": _options(option or []),
        "budget": Budget.parse(budget) if budget else None,
        "preset": preset,
        "recover": recover,
        "epochs": epochs,
        "recover_lr": recover_lr,
        "scratch_b_cap": scratch_b_cap,
        "compare": _names(compare),
        "teacher": teacher,
        "round_to": round_to,
        "ranking": ranking,
        "protect": _names(protect),
        "floor": floor,
        "uniform": uniform,
        "config": config,
        "recalibrate_batches": recalibrate,
        "seed": seed,
    }
    asked = job(**wish)
    default_input_shape(model)
    trained = bool(weights or pretrained or train) or carries_weights(model)
    if not trained and recover not in ("scratch-e", "scratch-b") and not asked.method.starts_untrained:
        raise UsageError(
            f"{model!r} has no weights yet: pass --weights FILE.safetensors, --pretrained, "
            "or --train EPOCHS to train it first"
        )
    if asked.taught and not trained:
        raise UsageError(
            f"{model!r} has no weights yet, so it cannot teach: pass --train EPOCHS or --weights FILE.safetensors, "
            "or --teacher none"
        )
    bench = set_up(
        model,
        data,
        data_dir=data_dir,
        weights=weights,
        pretrained=pretrained,
        limit=limit,
        limit_test=limit_test,
        shape=parse_shape(shape) if shape else None,
        batch_size=batch_size,
        seed=seed,
    )
    if train:
        # A mistake should not come to light only after hours of training.
        rehearse(bench.model, bench.example, asked, True, out)
        train_dense(bench, replace(config, epochs=train), out, progress=not as_json)
    result = run(
        bench.model,
        bench.example,
        **wish,
        train_data=bench.train,
        eval_data=bench.test,
        out=out,
        names={"model": model, "data": data},
        source=bench.source,
        reproduce=shlex.join(["secateur", *sys.argv[1:]]),
        progress=not as_json,
        trained=trained,
    )
    if as_json:
        emit(result.card.to_dict())
    else:
        from secateur.demo import summary

        summary(console, result.card, out)


def _options(texts: list[str]) -> dict[str, Any]:
    """``penalty=1e-5`` as a name and a value, which is a number, a truth value or a text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise UsageError(f"--option {text!r}: write a name and a value, as in --option penalty=1e-5")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value.strip()
    return found


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe: one run, or with lists a whole study.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the results; by default out/NAME-OF-THE-RECIPE.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on this machine; one a core or GPU.")] = None,
    on: Annotated[str, typer.Option(help="local, ray, or ray:ADDRESS of a cluster that sees the folder.")] = "local",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up again what failed before.")] = False,
    as_json: Json = False,
) -> None:
    """Run a study, or what is left of it: the same line goes on where it was stopped."""
    from secateur.study import run_study
    from secateur.study.summary import results, summary

    told = Console(stderr=True) if as_json else console
    folder = out or Path("out") / recipe.stem
    done = run_study(recipe, folder, workers=workers, on=on, retry_failed=retry_failed, console=told)
    if as_json:
        emit({"title": done.study.title, "folder": str(folder), "runs": results(done.status, folder)})
    else:
        summary(console, done)
    if done.status.count("failed"):
        if not retry_failed:
            told.print("with --retry-failed they are tried again", markup=False)
        raise typer.Exit(1)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Name of the model, see `secateur models`.")],
    shape: Input = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    explain: Annotated[str | None, typer.Option(help="Only why this module, parameter or group is as it is.")] = None,
    as_json: Json = False,
) -> None:
    """Groups, widths, what is locked and why, and where the multiply-accumulates are."""
    from secateur.graph import trace
    from secateur.workbench import build_model, example_for, parse_shape

    size = parse_shape(shape) if shape else None
    if model.startswith("hf:"):
        network = build_model(model, weights=weights, pretrained=pretrained)[0]
        example = example_for(model, size, network)
    else:
        # Saying what to give comes before a long building.
        example = example_for(model, size)
        network = build_model(model, weights=weights, pretrained=pretrained)[0]
    graph = trace(network, example)
    if explain is not None:
        found = graph.explain(explain)
        if as_json:
            emit({"model": model, **found.as_dict()})
        else:
            console.print(str(found), markup=False, highlight=False, soft_wrap=True)
        return
    cost, spent, carried = graph.cost(), graph.module_macs(), graph.group_macs()
    if as_json:
        groups = [
            {
                "name": g.name,
                "kind": g.kind,
                "width": g.width,
                "locked": g.locked,
                "reason": g.reason,
                "members": [str(m) for m in g.members],
                "macs": carried[g.name],
            }
            for g in graph.groups
        ]
        emit({"model": model, "macs": cost.macs, "params": cost.params, "groups": groups, "module_macs": spent})
        return
    console.print(str(graph), markup=False, highlight=False, soft_wrap=True)
    console.print()
    show("Where the multiply-accumulates are", ["module", "MACs", "share"], _most(spent, cost.macs))
    console.print()
    free = {g.name: carried[g.name] for g in graph.prunable}
    show("In the layers of which width they are", ["group", "MACs", "share"], _most(free, cost.macs))
    console.print("A layer counts for its inputs and for its outputs. Why is it tied or locked? --explain NAME")
    for warning in graph.warnings:
        console.print(f"note: {warning}", markup=False)


def _most(macs: dict[str, int], total: int) -> list[list[str]]:
    """Rows of the ten largest."""
    ranked = sorted(macs.items(), key=lambda item: -item[1])[:10]
    return [[name or "(model)", f"{n:,}", f"{n / max(total, 1):.1%}"] for name, n in ranked]


@app.command()
def bench(
    run: Annotated[Path, typer.Argument(help="Folder of a pruned model.")],
    backends: Annotated[str, typer.Option(help="Which runtimes.")] = "eager,compiled,onnxruntime",
    batch: Annotated[int, typer.Option(help="Examples in one pass.")] = 1,
    runs: int = 50,
    threads: Annotated[int | None, typer.Option(help="Threads of every runtime.")] = None,
    as_json: Json = False,
) -> None:
    """Dense against pruned, on every runtime at hand, in turn in one process."""
    from secateur.card import read_card
    from secateur.graph.trees import map_tensors
    from secateur.measure import bench as measure
    from secateur.surgery.files import build_source, load, read
    from secateur.workbench import example_for, parse_shape

    if batch < 1:
        raise UsageError(f"--batch {batch}: it has to be at least 1")
    document, _ = read(run)
    card = read_card(run / "card.json")
    dense = build_source(document["source"], run).eval()
    shape = card.extra.get("input")
    example = example_for(document["source"]["name"], parse_shape(shape) if shape else None, dense)
    example = map_tensors(example, lambda t: t.expand(batch, *t.shape[1:]).contiguous())
    rows = measure(
        {"dense": dense, "pruned": load(run)}, example, backends=tuple(_names(backends)), runs=runs, threads=threads
    )
    if as_json:
        emit(
            [
                {
                    "backend": r.backend,
                    "model": r.model,
                    "latency_ms": r.latency.as_dict() if r.latency else None,
                    "speedup": r.speedup.median if r.speedup else None,
                    "reason": r.reason,
                }
                for r in rows
            ]
        )
        return
    lines = []
    for r in rows:
        time = f"{r.latency.median:.2f} ± {r.latency.iqr:.2f}" if r.latency else "-"
        gain = f"{r.speedup.median:.2f}x" if r.speedup else ""
        lines.append([r.backend, r.model, time, gain, r.reason or ""])
    show(f"{card.model}, batch {batch}", ["runtime", "model", "ms (median ± IQR)", "speed-up", ""], lines)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
    as_json: Json = False,
) -> None:
    """One self-contained HTML file from the cards of one or more runs."""
    from secateur.report import write_report

    path = write_report(runs, out)
    emit({"report": str(path)}) if as_json else console.print(f"report: {path}", markup=False)


@app.command()
def methods(as_json: Json = False) -> None:
    """How units can be judged."""
    from secateur.methods import methods as table

    emit(table()) if as_json else show("Methods", ["name", ""], [[n, s] for n, s in table().items()])


@app.command()
def models(as_json: Json = False) -> None:
    """Models that can be built by name."""
    from secateur.models import names, sources

    entries = [(e.name, e.description) for e in (*names(), *sources())]
    emit(dict(entries)) if as_json else show("Models", ["name", ""], [list(e) for e in entries])


@app.command()
def data(as_json: Json = False) -> None:
    """Data sets that can be read by name."""
    from secateur.data import names, sources

    entries = [(e.name, e.description) for e in (*names(), *sources())]
    emit(dict(entries)) if as_json else show("Data", ["name", ""], [list(e) for e in entries])


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine has, and whether a small cut is exact here."""
    from secateur.demo import self_check
    from secateur.measure import hardware, versions

    facts = {"hardware": hardware(), "versions": versions(), "exactness": self_check()}
    if as_json:
        emit(facts)
        return
    rows = [[k, str(v)] for part in (facts["hardware"], facts["versions"]) for k, v in part.items()]
    show("This machine", ["what", ""], [*rows, ["a small cut", facts["exactness"]]])


def main() -> None:
    """Entry point: errors that Secateur raises on purpose become one screen and exit code 2."""
    try:
        app()
    except SecateurError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise SystemExit(130) from None
