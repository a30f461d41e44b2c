# SPDX-License-Identifier: Apache-2.0
"""Files that are part of another file's slide: no slides themselves.

Companions in folders of their own (MRXS, VSI) are not listed at all once their main file is
there; the others lie beside it, and it names them. Of files that name each other (OME-TIFF)
the first by name is the main one.
"""

import hashlib
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from converters.errors import ConversionError, MissingCompanion
from converters.registry import companions
from gateway.ingest.listing import companion_folders
from gateway.ingest.pipeline import companion_names

_MAIN_OF = {
    ".jpg": (".vms", ".vmu"),
    ".jpeg": (".vms", ".vmu"),
    ".opt": (".vms", ".vmu"),
    ".ngr": (".vmu",),
    ".ndpi": (".ndpis",),
    ".full": (".tif", ".tiff"),
    ".ome": (".tif", ".tiff"),
    ".tif": (".tif", ".tiff"),
    ".tiff": (".tif", ".tiff"),
    ".ets": (".vsi",),
    ".dat": (".mrxs",),
    ".ini": (".mrxs",),
}
"""Ending of a file -> endings of main files that may name it as theirs."""
_NEVER_ALONE = frozenset({".jpg", ".jpeg", ".opt", ".ngr", ".full", ".ome", ".ets"})
_OF_MIRAX = re.compile(r"slidedat\.ini|index\.dat|data\d{4}\.dat", re.IGNORECASE)  # as scanners name them
_MAX_MAIN_FILES = 200  # to ask in one folder


def belongs_to_another(path: Path) -> bool:
    """Whether a main file in the same folder names ``path`` as part of its slide.

    Raises OSError when the folder cannot be read.
    """
    endings = _MAIN_OF.get(path.suffix.lower(), ())
    if _is_alone(path):
        return False
    mains = [other for other in path.parent.iterdir() if other.suffix.lower() in endings and other != path]
    for main in sorted(mains)[:_MAX_MAIN_FILES]:
        if path.name in _named_by(main) and not (path < main and main.name in _named_by(path)):
            return True
    return False


def _is_alone(path: Path) -> bool:
    """TIFF files are, but for OME-TIFF."""
    name = path.name.lower()
    return name.endswith((".tif", ".tiff")) and not name.endswith((".ome.tif", ".ome.tiff"))


def _named_by(path: Path) -> Collection[str]:
    try:
        return companions(path)
    except ConversionError:
        return ()  # whatever it is, it names no files


def may_belong_to_another(path: Path) -> bool:
    """Whether a file of this kind is part of a slide and no slide itself, so that its main
    file is worth waiting for."""
    return path.suffix.lower() in _NEVER_ALONE or _OF_MIRAX.fullmatch(path.name) is not None


def arrived(path: Path) -> tuple[int, int]:
    """Bytes, and the newest time in ns, of the files that may be of one slide with ``path``:
    while this changes, they are arriving. Raises OSError."""
    suffix = path.suffix.lower()
    mains = _MAIN_OF.get(suffix, (suffix,))
    kin = {ending for ending, of in _MAIN_OF.items() if not _is_alone(path) and not set(of).isdisjoint(mains)}
    files = [one for one in path.parent.iterdir() if one.suffix.lower() in kin]
    folders = [path.parent / name for name in companion_folders(path.name)]
    if suffix == ".ets":  # in one of the folders of a slide's folder
        folders.append(path.parent.parent)
    for folder in folders:
        files += [Path(top, name) for top, _, names in os.walk(folder) for name in names]
    size_bytes = newest_ns = 0
    for one in files:
        with suppress(FileNotFoundError):
            status = one.lstat()
            size_bytes += status.st_size
            newest_ns = max(newest_ns, status.st_mtime_ns)
    return size_bytes, newest_ns


def state_of_others(path: Path) -> str:
    """The other files of the slide of this main file, as a text that is the same while they
    are unchanged; "" where it is a single file. Raises OSError."""
    try:
        names = companion_names(path)
    except MissingCompanion:
        return "incomplete"
    except ConversionError:  # which they are cannot be told, perhaps because of one of them
        ending = path.suffix.lower()
        is_main = companion_folders(path.name) or any(ending in mains for mains in _MAIN_OF.values())
        return "unknown" if is_main and not _is_alone(path) else ""
    if not names:
        return ""
    digest = hashlib.sha256()
    for name in sorted(names):
        status = (path.parent / name).lstat()
        line = f"{name}\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
