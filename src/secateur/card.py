"""The evidence record of one run: before and after, exactness, timing, quality, seed, versions, how to reproduce.

In Python a card is a tree of frozen dataclasses; on disk it is ``card.json``. The two differ in one thing: names that
are open (a quality such as ``bits_per_character``, a setting of the recovery) stand on disk beside the fixed ones and
in Python in the field ``quality``, ``settings`` or ``extra`` of the same record.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt, TypeAdapter
from pydantic import ValidationError as PydanticError

from secateur._atomic import write_atomic
from secateur._errors import FileError

SCHEMA = 1
"""The version of the format that this release writes; it reads this and every older one."""

_FINITE = ConfigDict(allow_inf_nan=False)


def is_fraction(name: str) -> bool:
    """Whether the quality ``name`` is a fraction in [0, 1] that is shown in per cent (any kind of accuracy)."""
    return name == "accuracy" or name.endswith("_accuracy")


def _check_quality(quality: dict[str, float]) -> dict[str, float]:
    wrong = {name: value for name, value in quality.items() if is_fraction(name) and not 0 <= value <= 1}
    if wrong:
        said = ", ".join(f"{name} is {value:g}" for name, value in wrong.items())
        raise ValueError(f"{said}; write a fraction between 0 and 1")
    return quality


def _check_fraction(value: float | None) -> float | None:
    if value is not None:
        _check_quality({"accuracy": value})
    return value


def _check_hardware(value: Any) -> Any:
    if not isinstance(value, (str, dict)):
        raise ValueError("expected a text or a table of names and values")
    return value


Quality = Annotated[dict[str, float], AfterValidator(_check_quality)]


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass in milliseconds: median and interquartile range (q75 − q25) of ``runs`` runs.

    ``settings`` says how it was taken (``batch``, ``threads``, ``device`` …); open on disk.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _FINITE
    median: NonNegativeFloat
    iqr: NonNegativeFloat
    runs: PositiveInt
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """What one network costs and how good it is.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products for one example.
        params: number of parameters.
        bytes: size of the saved weights.
        latency_ms: time of a forward pass; None where it was not measured.
        quality: each quality under its own name, an accuracy as a fraction; open on disk.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _FINITE
    macs: NonNegativeInt
    params: NonNegativeInt
    bytes: NonNegativeInt
    latency_ms: Latency | None = None
    quality: Quality = field(default_factory=dict)


@dataclass(frozen=True)
class Exactness:
    """How far the cut network is from the masked one: largest relative error, and whether that passes as equal."""

    # A failed comparison may well be infinite; JSON has no such number, so it is refused on writing.
    __pydantic_config__: ClassVar[ConfigDict] = _FINITE
    max_error: NonNegativeFloat
    exact: bool
    dtype: str = "float64"


@dataclass(frozen=True)
class Recovery:
    """How the cut network was brought back: ``finetune``, ``distill``, ``scratch`` …; ``settings`` is open on disk."""

    __pydantic_config__: ClassVar[ConfigDict] = _FINITE
    name: str
    epochs: NonNegativeFloat
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One more network in the same table, such as the same small one trained from scratch (``scratch-e``)."""

    __pydantic_config__: ClassVar[ConfigDict] = _FINITE
    name: str
    epochs: NonNegativeFloat
    macs: NonNegativeInt
    params: NonNegativeInt
    bytes: NonNegativeInt | None = None
    latency_ms: Latency | None = None
    quality: Quality = field(default_factory=dict)


@dataclass(frozen=True)
class GroupWidth:
    """One width before and after.

    Attributes:
        name: the group's name.
        kind: its unit: ``channel``, ``head``, ``rank``, ``block`` …
        width: units in the dense network.
        kept: units that stay.
        locked: True where nothing could be cut; ``reason`` says why.
        members: the layers that *produce* this width, in network order; more than one means that they are coupled.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _FINITE
    name: str
    kind: str
    width: NonNegativeInt
    kept: NonNegativeInt
    locked: bool = False
    reason: str = ""
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class HistoryPoint:
    """One measurement on the way. ``epoch`` counts within its ``stage`` or through the run; both are understood.

    A point with the event ``cut`` holds the quality right after that cut. Further qualities are open on disk.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _FINITE
    stage: str
    epoch: NonNegativeFloat
    accuracy: Annotated[float | None, AfterValidator(_check_fraction)] = None
    loss: float | None = None
    event: str | None = None
    quality: Quality = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """The quality (or ``loss``) called ``name`` at this point, None where it was not measured."""
        return {"accuracy": self.accuracy, "loss": self.loss}.get(name, self.quality.get(name))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Card:
    """The evidence of one run.

    Attributes:
        model, data, method: their names as the user wrote them.
        budget: what was asked to remain, for instance ``{"macs": 0.5}``; empty for a method without one.
        seed: of everything random in the run.
        dense, pruned: before, and the network that was handed out (after recovery).
        exactness: the cut network against the masked one.
        hardware: the machine, as a text or a table.
        versions: package name to version.
        reproduce: the command line that does it again.
        recovery: None where nothing was done after the cut.
        comparisons, groups, history: see their records; they feed the table, the width chart and the recovery curve.
        notes: warnings to be shown, such as "MACs fell but time did not".
        created: ISO 8601 with time zone.
        extra: anything else; open on disk.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _FINITE
    model: str
    data: str
    method: str
    budget: dict[str, Any]
    seed: int
    dense: Measurement
    pruned: Measurement
    exactness: Exactness
    hardware: Annotated[Any, AfterValidator(_check_hardware)]
    versions: dict[str, str]
    reproduce: str
    recovery: Recovery | None = None
    comparisons: tuple[Comparison, ...] = ()
    groups: tuple[GroupWidth, ...] = ()
    history: tuple[HistoryPoint, ...] = ()
    notes: tuple[str, ...] = ()
    created: str = field(default_factory=_now)
    schema: int = SCHEMA
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The card as it stands on disk, open names beside the fixed ones."""
        return {"schema": self.schema, **_flatten(self)}


_OPEN: dict[type, str] = {
    Latency: "settings",
    Measurement: "quality",
    Recovery: "settings",
    Comparison: "quality",
    HistoryPoint: "quality",
    Card: "extra",
}
_NESTED: dict[type, dict[str, type]] = {
    Measurement: {"latency_ms": Latency},
    Comparison: {"latency_ms": Latency},
    Card: {
        "dense": Measurement,
        "pruned": Measurement,
        "recovery": Recovery,
        "comparisons": Comparison,
        "history": HistoryPoint,
    },
}
# These have a default for whoever builds a card, and must stand in a file.
_ON_DISK = ("schema", "created")


def parse_card(raw: Mapping[str, Any], source: str = "this card") -> Card:
    """Build a card from the form that it has on disk.

    Args:
        raw: what ``Card.to_dict`` or ``json.load`` gives.
        source: the name of the file, for the message.

    Raises:
        FileError: keys are missing, values have the wrong type or range, or the schema is newer; lists every problem.
    """
    problems = [f"{key}: missing" for key in _ON_DISK if key not in raw]
    schema = raw.get("schema")
    newer = isinstance(schema, int) and schema > SCHEMA
    if newer:
        problems.append(f"schema: {schema} is newer than {SCHEMA}, the newest that this release reads")
    card = None
    try:
        text = json.dumps(_gather(dict(raw), Card), default=_plain)
        card = TypeAdapter(Card).validate_json(text, strict=True)
    except PydanticError as error:
        problems += [_sentence(e["loc"], e["type"], e["msg"], e.get("input")) for e in error.errors()]
    except TypeError as error:
        problems.append(str(error))
    problems += _misfits(raw.get("groups"))
    if problems or card is None:
        way_out = "update it with: pip install -U secateur" if newer else "repeat the run, or restore the file"
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n".join(f"  {p}" for p in problems)
        raise FileError(f"{source} is not a card that can be used: {count}\n{listed}\n{way_out}")
    return card


def read_card(path: str | Path) -> Card:
    """Read and validate a ``card.json``.

    Raises:
        FileError: the file is missing, truncated, not JSON, or not a card; the message lists every problem.
    """
    path = Path(path)
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise FileError(
            f"{path} cannot be read: {error.strerror or error}\na run writes it: secateur prune MODEL --out DIR"
        ) from None
    except ValueError as error:
        raise FileError(
            f"{path} is truncated or not JSON: {error}\nrepeat the run, or restore the file from a copy"
        ) from None
    if not isinstance(raw, dict):
        raise FileError(f"{path} is not a card: it holds a {type(raw).__name__}, not a table of names and values")
    return parse_card(raw, source=str(path))


def write_card(card: Card, path: str | Path) -> Path:
    """Write a card as JSON, whole or not at all.

    Raises:
        FileError: the card would not be readable again (every problem is listed), or the disk refused it.
    """
    raw = json.loads(json.dumps(card.to_dict(), default=_plain))
    parse_card(raw, source=f"what was to be written to {path}")
    try:
        return write_atomic(path, json.dumps(raw, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise FileError(
            f"{path} cannot be written: {error.strerror or error}\nmake room or choose another folder with --out"
        ) from None


def _plain(value: Any) -> Any:
    """Scalars of numpy and torch as Python numbers, paths as text."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON cannot hold")


def _flatten(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        opened = _OPEN.get(type(value))
        fixed = {f.name: _flatten(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != opened}
        return {**fixed, **{k: v for k, v in getattr(value, opened or "", {}).items() if k not in fixed}}
    if isinstance(value, (list, tuple)):
        return [_flatten(v) for v in value]
    return value


def _gather(raw: Any, kind: type) -> Any:
    """The inverse of ``_flatten``: names that are no field go to the record's open field."""
    if isinstance(raw, (list, tuple)):
        return [_gather(v, kind) for v in raw]
    if not isinstance(raw, Mapping):
        return raw
    opened = _OPEN[kind]
    names = {f.name for f in dataclasses.fields(kind)} - {opened}
    nested = _NESTED.get(kind, {})
    fixed = {k: _gather(v, nested[k]) if k in nested else v for k, v in raw.items() if k in names}
    return {**fixed, opened: {k: v for k, v in raw.items() if k not in names}}


def _sentence(loc: Iterable[int | str], kind: str, message: str, given: Any) -> str:
    where = ""
    for step in loc:
        if isinstance(step, int):
            where += f"[{step}]"
        elif step not in _OPEN.values():
            where += f".{step}" if where else step
    if kind == "missing":
        return f"{where}: missing"
    message = message.removeprefix("Value error, ").replace("Input should be", "should be")
    shown = repr(given)
    return f"{where}: {message}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _misfits(groups: Any) -> list[str]:
    """Groups that keep more units than they have."""
    found = []
    for index, group in enumerate(groups if isinstance(groups, (list, tuple)) else ()):
        width, kept = (group.get("width"), group.get("kept")) if isinstance(group, Mapping) else (None, None)
        if isinstance(width, int) and isinstance(kept, int) and kept > width:
            found.append(f"groups[{index}]: keeps {kept} units of {width}")
    return found
