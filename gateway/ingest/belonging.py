# SPDX-License-Identifier: Apache-2.0
"""Files that are part of another file's slide: no slides themselves.

Companions in folders of their own (MRXS, VSI) are not listed at all; these lie beside
their main file, which names them.
"""

from pathlib import Path

from converters.errors import ConversionError
from converters.registry import companions

_MAIN_OF = {
    ".jpg": (".vms", ".vmu"),
    ".jpeg": (".vms", ".vmu"),
    ".opt": (".vms", ".vmu"),
    ".ngr": (".vmu",),
    ".ndpi": (".ndpis",),
    ".full": (".tif", ".tiff"),
    ".tif": (".tif", ".tiff"),
    ".tiff": (".tif", ".tiff"),
    ".ets": (".vsi",),
    ".dat": (".mrxs",),
    ".ini": (".mrxs",),
}
"""Ending of a file -> endings of main files that may name it as theirs."""
_NEVER_ALONE = frozenset({".jpg", ".jpeg", ".opt", ".ngr", ".full", ".ets"})
_MAX_MAIN_FILES = 200  # to ask in one folder


def belongs_to_another(path: Path) -> bool:
    """Whether a main file in the same folder names ``path`` as part of its slide.

    Raises OSError when the folder cannot be read.
    """
    endings = _MAIN_OF.get(path.suffix.lower(), ())
    multi_file_ome = path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    if path.suffix.lower() in (".tif", ".tiff") and not multi_file_ome:
        return False
    mains = [other for other in path.parent.iterdir() if other.suffix.lower() in endings and other != path]
    for main in sorted(mains)[:_MAX_MAIN_FILES]:
        try:
            if path.name in companions(main):
                return True
        except ConversionError:
            continue  # whatever it is, it names no files
    return False


def may_belong_to_another(path: Path) -> bool:
    """Whether a file of this kind is part of a slide and no slide itself, so that its main
    file is worth waiting for."""
    return path.suffix.lower() in _NEVER_ALONE
