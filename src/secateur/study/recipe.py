"""A study file: TOML with the words of ``secateur prune``, in which lists expand to a grid.

``model``, ``data``, ``method``, ``budget`` or ``preset``, ``recover`` and ``seed`` are the usual lists; any other key
may be one as well. ``[[grid]]`` tables hold only what differs from the rest of the file, and expand one after another.
Every mistake of the file is named at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo

from secateur._errors import FileError, SecateurError, UnknownName, UsageError
from secateur._user_code import is_user_code
from secateur.budget import PRESETS, RANKINGS, Budget, is_widths, read_widths
from secateur.data import names as data_names
from secateur.job import TEACHERS, Job, job
from secateur.methods import REGISTRY, find
from secateur.models import carries_weights, default_input_shape
from secateur.training import RECOVERIES, TrainConfig
from secateur.workbench import parse_shape

T = TypeVar("T")


@dataclass(frozen=True)
class RunRecipe:
    """One run of a study, all of it sound in itself.

    Attributes:
        model, data: as the user wrote them.
        job: method, goal, recovery and training.
        train: epochs of the dense training; 0 for none.
        data_dir, weights, pretrained, limit, limit_test, input: see ``secateur prune --help``.
    """

    model: str
    data: str
    job: Job
    train: int = 0
    data_dir: str | None = None
    weights: str | None = None
    pretrained: bool = False
    limit: int | None = None
    limit_test: int | None = None
    input: str | None = None

    def words(self) -> dict[str, Any]:
        """As the file of this one run says it, with dots for tables."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "job"}
        given = {k: v for k, v in own.items() if v is not None and v is not False and v != 0}
        more = {"recalibrate": self.job.recalibrate_batches, "latency_runs": self.job.latency_runs}
        return {**given, **self.job.recipe(), **more}


@dataclass(frozen=True)
class Study:
    """A study file that was read.

    Attributes:
        title: for people.
        notes: likewise, such as what differs from a published protocol.
        runs: all of them, in the order of the file; none twice.
    """

    title: str
    notes: tuple[str, ...] = ()
    runs: tuple[RunRecipe, ...] = field(default=())


def read_study(path: str | Path) -> Study:
    """Read a study file.

    Raises:
        FileError: the file is missing or is not TOML.
        UsageError: keys or values that do not exist or fit, all of them at once.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise FileError(f"{path} is not TOML: {error}") from None
    return parse_study(raw, str(path), title=path.stem)


def parse_study(raw: Mapping[str, Any], source: str = "this study", title: str = "study") -> Study:
    """A study from the contents of its file.

    Raises:
        UsageError: as :func:`read_study`.
    """
    raw = dict(raw)
    heading, problems = _heading({k: raw.pop(k) for k in _Heading.model_fields if k in raw})
    grids = raw.pop("grid", [{}])
    if not isinstance(grids, list) or not grids or not all(isinstance(g, dict) for g in grids):
        problems.append("grid: write tables, each under a line [[grid]]")
        grids = [{}]
    expanded = [_expand(_merge(raw, own)) for own in grids]
    for number, (_, wrong) in enumerate(expanded, 1):
        # What stands outside the grids is wrong in all of them alike.
        everywhere = [p for p in wrong if all(p in other for _, other in expanded)]
        problems += [p if p in everywhere else f"{p} (in [[grid]] {number})" for p in wrong]
    found = {repr(run): run for runs, _ in expanded for run in runs}
    problems = list(dict.fromkeys(problems))
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"- {p}".replace("\n", "\n  ") for p in problems]
        known = f"keys: {', '.join(sorted([*_Grid.model_fields, 'grid', *_Heading.model_fields]))}"
        raise UsageError("\n".join([f"{source} cannot be run: {count}", *lines, known]))
    return Study(heading.get("title") or title, tuple(heading.get("notes", ())), tuple(found.values()))


# -- the shape of the file ------------------------------------------------------------------------------------------


def _checked(check: Any) -> AfterValidator:
    """A check that raises an error of Secateur, as pydantic wants to have it."""

    def validate(value: Any) -> Any:
        try:
            result = check(value)
        except SecateurError as error:
            raise ValueError(str(error)) from None
        return value if result is None else result

    return AfterValidator(validate)


def _one_of(kind: str, known: Any) -> AfterValidator:
    def check(value: str) -> None:
        if value not in known:
            raise UnknownName(kind, value, known)

    return _checked(check)


def _preset_exists(name: str) -> None:
    if is_widths(name):
        read_widths(name)
    elif name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)


def _data_exists(name: str) -> None:
    known = [entry.name for entry in data_names()]
    if name not in known and not is_user_code(name) and not name.startswith("folder:"):
        raise UnknownName("data set", name, known, hint="or: folder:PATH, file.py:function")


def _budget(value: Any) -> dict[str, Any]:
    """``"macs=50%"`` or ``{macs = 0.5}``; the recipe of a run writes a preset there as well."""
    try:
        if isinstance(value, str):
            return Budget.parse(value).as_dict()
        if isinstance(value, dict):
            return {"preset": value["preset"]} if set(value) == {"preset"} else Budget(**value).as_dict()
    except SecateurError as error:
        raise ValueError(str(error)) from None
    raise ValueError('write "macs=50%" or {macs = 0.5}')


def _listed(value: Any) -> Any:
    if value == []:
        raise ValueError("the list is empty; leave the key out")
    return tuple(value) if isinstance(value, list) else (value,)


def _listed_lists(value: Any) -> Any:
    """For values that are lists themselves: a list of lists is many of them."""
    many = isinstance(value, list) and any(isinstance(v, list) for v in value)
    return tuple(tuple(v) if isinstance(v, list) else v for v in (value if many else [value]))


Many = Annotated[tuple[T, ...], BeforeValidator(_listed)]
ManyLists = Annotated[tuple[tuple[T, ...], ...], BeforeValidator(_listed_lists)]
Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Heading(_Table):
    title: str = ""
    notes: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()


def _field_of(kind: Any) -> tuple[Any, Any]:
    """A field of ``TrainConfig`` as one of a table; ranges are checked there, together."""
    (kind,) = [k for k in get_args(kind) or (kind,) if k is not NoneType] if not _is_tuple(kind) else (kind,)
    return (ManyLists[get_args(kind)[0]] if _is_tuple(kind) else Many[kind], ())


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


_TRAINING: dict[str, Any] = {name: _field_of(kind) for name, kind in get_type_hints(TrainConfig).items()}
_Training = create_model("_Training", __base__=_Table, **_TRAINING)


class _Grid(_Table):
    model: Many[Annotated[str, _checked(lambda name: default_input_shape(name) and None)]]
    data: Many[Annotated[str, _checked(_data_exists)]] = ("digits",)
    method: Many[Annotated[str, _one_of("method", REGISTRY)]] = ("l1",)
    options: dict[str, Any] = {}
    budget: Many[Annotated[dict[str, Any], PlainValidator(_budget)]] = ()
    preset: Many[Annotated[str, _checked(_preset_exists)]] = ()
    recover: Many[Annotated[str, _one_of("recovery", RECOVERIES)]] = ("finetune",)
    seed: Many[CountOrNone] = ()
    epochs: Many[Count] = ()
    recover_lr: Many[Annotated[float, Field(gt=0)]] = ()
    scratch_b_cap: Many[Annotated[float, Field(ge=1)]] = ()
    compare: ManyLists[Annotated[str, _one_of("recovery", RECOVERIES)]] = ()
    teacher: Many[Annotated[str, _one_of("teacher", TEACHERS)]] = ()
    train: Many[CountOrNone] = ()
    base_epochs: Many[Count] = ()
    lr: Many[float] = ()
    batch_size: Many[Count] = ()
    training: _Training = Field(default_factory=_Training)  # pyright: ignore[reportInvalidTypeForm]
    weights: Many[Name] = ()
    pretrained: Many[bool] = ()
    data_dir: Many[Name] = ()
    input: Many[Annotated[str, _checked(lambda text: parse_shape(text) and None)]] = ()
    limit: Many[Count] = ()
    limit_test: Many[Count] = ()
    round_to: Many[Count] = ()
    ranking: Many[Annotated[str, _one_of("ranking", RANKINGS)]] = ()
    protect: ManyLists[str] = ()
    floor: Many[Annotated[float, Field(ge=0, le=1)]] = ()
    uniform: Many[bool] = ()
    recalibrate: Many[CountOrNone] = ()
    latency_runs: Many[CountOrNone] = ()


# -- from the file to runs ------------------------------------------------------------------------------------------

_LAST = ("recover", "seed")
_JOB = ("method", "compare", "teacher", "round_to", "ranking", "protect", "floor", "uniform", "recover")
_PLACE = ("data_dir", "weights", "pretrained", "limit", "limit_test", "input")
_SHORT = {"lr": "lr", "batch_size": "batch_size", "base_epochs": "epochs", "seed": "seed"}


def _expand(raw: dict[str, Any]) -> tuple[list[RunRecipe], list[str]]:
    """The runs of one grid, and what is wrong with it."""
    named = _listed(raw["method"]) if raw.get("method") else ("l1",)
    # Where a method is misspelt, the options may be those of any.
    methods = named if all(name in REGISTRY for name in named) else tuple(REGISTRY)
    options, problems = _options(raw.get("options", {}), methods)
    try:
        grid = _Grid.model_validate(raw)
    except ValidationError as error:
        return [], [*(_sentence(e) for e in error.errors()), *problems]
    if not grid.budget and not grid.preset:
        problems.append('say what may remain: budget = "macs=50%", or a preset')
    if grid.epochs and set(grid.recover) == {"none"}:
        problems.append("epochs: there is no recovery to train; say recover")
    runs: dict[str, RunRecipe] = {}
    for cell in _cells(grid, options):
        try:
            run = _run(cell, grid)
        except SecateurError as error:
            problems.append(str(error))
        else:
            runs.setdefault(repr(run), run)
    return list(runs.values()), list(dict.fromkeys(problems))


def _cells(grid: _Grid, options: list[tuple[str | None, str, tuple[Any, ...]]]) -> Iterator[dict[Any, Any]]:
    """Every combination; keys are names of the file, ``("training", name)`` and ``("options", method, name)``."""
    axes: dict[Any, tuple[Any, ...]] = {"model": grid.model, "data": grid.data, "method": grid.method}
    axes["goal"] = (*grid.budget, *({"preset": name} for name in grid.preset)) or ({},)
    for name in _Grid.model_fields:
        if name not in (*axes, *_LAST, "budget", "preset", "training", "options") and getattr(grid, name):
            axes[name] = getattr(grid, name)
    for name in _TRAINING:
        if getattr(grid.training, name):
            axes["training", name] = getattr(grid.training, name)
    for method, name, values in options:
        axes["options", method, name] = values
    for name in _LAST:
        if getattr(grid, name):
            axes[name] = getattr(grid, name)
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values))


def _options(given: Any, methods: Sequence[str]) -> tuple[list[tuple[str | None, str, tuple[Any, ...]]], list[str]]:
    """Options for all methods that have them, and those under the name of a method."""
    fields = {m: [f.name for f in dataclasses.fields(REGISTRY[m])] for m in methods}
    if not isinstance(given, dict):
        return [], ["options: write a table, for instance options.penalty = 1e-5"]
    found: list[tuple[str | None, str, tuple[Any, ...]]] = []
    problems = []
    for name, value in given.items():
        if isinstance(value, dict):
            if name not in methods:
                problems.append(f"options.{name}: {_near(name, methods, 'method of this grid')}")
                continue
            for inner, inner_value in value.items():
                if inner in fields[name]:
                    found.append((name, inner, _listed(inner_value)))
                else:
                    problems.append(f"unknown key 'options.{name}.{inner}'{_hint(inner, fields[name])}")
        elif any(name in known for known in fields.values()):
            found.append((None, name, _listed(value)))
        else:
            everything = sorted({n for known in fields.values() for n in known})
            problems.append(f"unknown key 'options.{name}'{_hint(name, everything)}")
    # What is said for one method wins over what is said for all.
    return sorted(found, key=lambda item: item[0] is not None), problems


def _run(cell: Mapping[Any, Any], grid: _Grid) -> RunRecipe:
    """One combination as a run.

    Raises:
        SecateurError: what does not fit together.
    """
    train, training = cell.get("train", 0), {k[1]: v for k, v in cell.items() if isinstance(k, tuple) and len(k) == 2}
    problems = []
    for short, name in _SHORT.items():
        if short in cell:
            if name in training and training[name] != cell[short]:
                problems.append(f"{short} = {cell[short]!r} and training.{name} = {training[name]!r}: say it once")
            training[name] = cell[short]
    if train:
        if training.get("epochs", train) != train:
            problems.append(f"train = {train} and {training['epochs']} epochs of the dense training: say it once")
        training["epochs"] = train
    model, recover = cell["model"], cell["recover"]
    place = {k: cell[k] for k in _PLACE if k in cell}
    has_weights = train or place.get("weights") or place.get("pretrained") or carries_weights(model)
    method = find(cell["method"], REGISTRY)
    if not has_weights and recover not in ("scratch-e", "scratch-b") and not method.starts_untrained:
        problems.append(f"{model!r} has no weights yet: say weights, pretrained = true, or train = EPOCHS")
    if place.get("weights") and not Path(place["weights"]).is_file():
        problems.append(f"weights: {place['weights']!r} does not exist")
    if problems:
        raise UsageError("\n".join(problems))
    goal = cell["goal"]
    known = {f.name for f in dataclasses.fields(method)}
    options = {
        k[2]: v
        for k, v in cell.items()
        if isinstance(k, tuple) and len(k) == 3 and k[1] in (None, method.name) and k[2] in known
    }
    # As `prune --epochs --compare` has it: training from scratch takes what the dense network took.
    mine = recover != "none" and (recover == "finetune" or "finetune" not in grid.recover)
    config = TrainConfig(**{"channels_last": True, **training})
    more = {k: cell[k] for k in _JOB if k in cell}
    asked = job(
        **more,
        options=options,
        budget=None if "preset" in goal or not goal else Budget(**goal),
        preset=goal.get("preset"),
        config=config,
        seed=config.seed,
        epochs=cell.get("epochs") if mine else None,
        recover_lr=cell.get("recover_lr") if recover == "finetune" else None,
        scratch_b_cap=cell.get("scratch_b_cap") if "scratch-b" in (recover, *cell.get("compare", ())) else None,
        recalibrate_batches=cell.get("recalibrate", 0),
        latency_runs=cell.get("latency_runs", 50),
    )
    if asked.taught and not has_weights:
        raise UsageError(f'{model!r} has no weights yet, so it cannot teach: say train = EPOCHS, or teacher = "none"')
    return RunRecipe(model, cell["data"], asked, train, **place)


# -- words ------------------------------------------------------------------------------------------------------------


def _heading(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    try:
        return _Heading.model_validate(raw).model_dump(), []
    except ValidationError as error:
        return {}, [_sentence(e) for e in error.errors()]


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**base, **own}
    for name in ("training", "options"):
        if isinstance(base.get(name), dict) and isinstance(own.get(name), dict):
            merged[name] = {**base[name], **own[name]}
    # A grid with a goal of its own means that one instead of the one above.
    for name, other in (("budget", "preset"), ("preset", "budget")):
        if name in own and other not in own:
            merged.pop(other, None)
    return merged


def _sentence(error: Any) -> str:
    place = [part for part in error["loc"] if isinstance(part, (str, int))]
    table: dict[str, FieldInfo] = dict(_Training.model_fields if place[0] == "training" else _Grid.model_fields)
    if error["type"] == "extra_forbidden":
        path = ".".join(map(str, place))
        return f"unknown key {path!r}{_hint(str(place[-1]), table)}"
    if error["type"] == "missing":
        return f"{place[0]}: missing; say which"
    name = ".".join(str(p) for p in place if isinstance(p, str))
    said = error["msg"].removeprefix("Value error, ")
    value = error.get("input")
    return f"{name}: {said}" if error["type"] == "value_error" else f"{name} = {value!r}: {said}"


def _hint(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f": did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def _near(name: str, known: Any, kind: str) -> str:
    return f"there is no {kind} of that name{_hint(name, known)}"
