"""Where data sets lie on disk, and what is said when they do not."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from secateur._errors import DataError

ENVIRONMENT = "SECATEUR_DATA_DIR"


def data_folder(data_dir: str | Path | None) -> Path:
    """``data_dir``, else what SECATEUR_DATA_DIR says, else ``./data``."""
    return Path(data_dir if data_dir is not None else os.environ.get(ENVIRONMENT) or "data")


def find(name: str, layouts: Sequence[tuple[Path, Sequence[Sequence[str]]]]) -> tuple[int, list[Path]]:
    """The first layout whose files are all there: its position and the files, in order.

    Args:
        name: of the data set, for the message.
        layouts: (folder, files); of each file the names that it may have.

    Raises:
        DataError: no layout is complete; names what is missing from the one of which most is there, and every folder
            that was looked into.
    """
    best: tuple[int, Path, list[str]] | None = None
    for position, (folder, files) in enumerate(layouts):
        found = [next((folder / n for n in names if (folder / n).is_file()), None) for names in files]
        if all(found):
            return position, [path for path in found if path is not None]
        missing = [" or ".join(names) for names, path in zip(files, found) if path is None]
        present = len(files) - len(missing)
        if present and (best is None or present > best[0]):
            best = (present, folder, missing)
    lines = [f"the data set {name!r} was not found"]
    if best is not None:
        lines = [f"the data set {name!r} in '{best[1]}' is not whole; missing: {', '.join(best[2])}"]
    else:
        lines.append("looked for:")
        for folder, files in layouts:
            state = "" if folder.is_dir() else " (no such folder)"
            lines.append(f"  {folder}{os.sep}{state}: {', '.join(names[0] for names in files)}")
        archives = sorted({p.name for folder, _ in layouts if folder.is_dir() for p in folder.glob("*.tar*")})
        if archives:
            lines.append(f"there are archives that have to be unpacked first: {', '.join(archives)}")
    lines.append(f"say where it is with --data-dir DIR (data_dir=...) or {ENVIRONMENT}; nothing is downloaded")
    raise DataError("\n".join(lines))


def read(path: Path, source: dict[str, str]) -> bytes:
    """The bytes of a file, unpacked if it ends in ``.gz``; its sha256 is entered into ``source``.

    Raises:
        DataError: it cannot be read or the compressed file is cut short.
    """
    try:
        raw = path.read_bytes()
        source[path.name] = "sha256:" + hashlib.sha256(raw).hexdigest()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}\nit is cut short or damaged; fetch it again") from None
