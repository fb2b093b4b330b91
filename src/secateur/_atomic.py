"""Whole files or none: the one way in which Secateur writes to disk."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


def write_atomic(path: str | Path, content: bytes | str) -> Path:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part of either.

    The bytes go to a temporary file in the same folder, are forced to disk, and take the name in one step. Text is
    encoded as UTF-8 with its line ends as they are. A symbolic link is followed. The folder must exist.

    Returns:
        The path that was asked for.

    Raises:
        OSError: the disk is full, the folder is missing or cannot be written. The temporary file is removed and
            whatever stood at ``path`` is untouched.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.tmp")
    # Not tempfile: it creates files that only their owner may read, and the mode would survive the rename.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)
    return Path(path)


def _sync_folder(folder: Path) -> None:
    # The rename itself survives a power cut only once the folder is on disk; some systems cannot open a folder.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
