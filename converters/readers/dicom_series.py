# SPDX-License-Identifier: Apache-2.0
"""Which DICOM files are one series: read from the first part of every file of a folder.

Only whole slide images count (VL Whole Slide Microscopy Image Storage). The main file of
a series is its finest VOLUME image; equals are told apart by SOP Instance UID and name,
so that it is the same wherever one begins.
"""

import io
import stat
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import UID

from archive.part10.errors import Part10Error
from archive.part10.meta import read_meta
from archive.part10.syntaxes import DEFLATED, EXPLICIT_BIG_ENDIAN
from converters.errors import DamagedSlide, UnreadableSlide

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.77.1.6"
OTHER_DICOM = "a DICOM file, and no whole slide image"
MAX_FILES = 2000  # of a folder that may be a series
MAX_PARTS = 255  # files of one series: a level's tiles know theirs by one byte
_PREFIX_BYTES = (1 << 16, 1 << 21)  # what is read of a file: nearly always the first does
_LAST = 0x00480007  # Total Pixel Matrix Rows


@dataclass(frozen=True, slots=True)
class Head:
    """What the first part of a DICOM file says; texts and numbers "" and 0 where absent.
    ``role`` is Image Type value 3."""

    path: Path
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    role: str
    rows: int  # of the total pixel matrix
    columns: int

    @property
    def is_slide(self) -> bool:
        return self.sop_class_uid == SOP_CLASS_UID and bool(self.series_instance_uid)

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts the main file of a series to the front."""
        volume = self.role in ("VOLUME", "")
        return (not volume, -self.rows * self.columns, self.sop_instance_uid, self.path.name)


def is_part10(start: bytes) -> bool:
    """Whether a file that begins so is a DICOM file with its preamble (PS3.10 7.1)."""
    return start[128:132] == b"DICM"


def read_head(path: Path) -> Head | None:
    """None for a file that is no Part 10 file, or none that can be read that far."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
            if not is_part10(start):
                return None
            for size in _PREFIX_BYTES:
                start += file.read(size - len(start))
                found = _head(path, start)
                if found is not None:
                    return found
                if len(start) < size:
                    break
    except OSError:
        return None
    return None


def _head(path: Path, start: bytes) -> Head | None:
    try:
        meta = read_meta(start)
        if meta.transfer_syntax_uid in (DEFLATED, EXPLICIT_BIG_ENDIAN):
            return Head(path, meta.transfer_syntax_uid, meta.sop_class_uid, "", "", "", 0, 0)
        passed: list[int] = []

        def beyond(tag: BaseTag, vr: str | None, length: int) -> bool:
            passed.append(int(tag))
            return int(tag) > _LAST

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they hold values; wrong ones are told when it is opened
            found = read_partial(io.BytesIO(start), stop_when=beyond)
            if (passed and passed[-1] > _LAST) or "TotalPixelMatrixRows" in found:
                return _told(path, meta.transfer_syntax_uid, found)
    except Part10Error:
        return None
    except Exception:  # noqa: BLE001  pydicom raises whatever damaged bytes lead it to
        return None
    return None


def _told(path: Path, transfer_syntax_uid: str, found: Dataset) -> Head:
    kind = found.get("ImageType") or ()
    kinds = [kind] if isinstance(kind, str) else [str(one) for one in kind]
    rows, columns = (found.get(f"TotalPixelMatrix{way}") for way in ("Rows", "Columns"))
    return Head(
        path=path,
        transfer_syntax_uid=transfer_syntax_uid,
        sop_class_uid=str(found.get("SOPClassUID") or ""),
        sop_instance_uid=str(found.get("SOPInstanceUID") or ""),
        series_instance_uid=str(found.get("SeriesInstanceUID") or ""),
        role=kinds[2] if len(kinds) > 2 else "",
        rows=rows if isinstance(rows, int) else 0,
        columns=columns if isinstance(columns, int) else 0,
    )


def why_no_slide(path: Path, start: bytes) -> str | None:
    """None for a whole slide image, else what the file is, in a few words."""
    if not is_part10(start):
        return "no DICM at byte 128"
    head = read_head(path)
    if head is None:
        try:
            named = read_meta(start).sop_class_uid
        except Part10Error:
            named = ""
        return None if named in ("", SOP_CLASS_UID) else _other(named)
    if head.sop_class_uid in ("", SOP_CLASS_UID):
        return None
    return _other(head.sop_class_uid)


def _other(sop_class_uid: str) -> str:
    name = UID(sop_class_uid, IGNORE).name
    known = "an unknown kind" if name == sop_class_uid else name
    return f"{OTHER_DICOM}: {known}"


def series_of(path: Path) -> Sequence[Head]:
    """The files of the folder that are of the same series as ``path``, the main one first.

    A copy of an instance that is there already is left out. Raises UnreadableSlide where
    the folder or the series holds too many files, DamagedSlide where ``path`` breaks off.
    """
    own = read_head(path)
    if own is None:
        raise DamagedSlide("the DICOM header breaks off or is damaged")
    if own.transfer_syntax_uid in (DEFLATED, EXPLICIT_BIG_ENDIAN):
        raise UnreadableSlide("the data set is deflated or big endian: the archive takes it, no converter")
    if not own.is_slide:
        raise DamagedSlide("the DICOM header names no series")
    found = [own]
    for other in _files_beside(path):
        head = read_head(other)
        if head is not None and head.is_slide and head.series_instance_uid == own.series_instance_uid:
            found.append(head)
    if len(found) > MAX_PARTS:
        raise UnreadableSlide(f"the series has more than {MAX_PARTS} files")
    first: dict[str, Head] = {}
    for head in sorted(found, key=lambda head: head.path.name):
        first.setdefault(head.sop_instance_uid or head.path.name, head)
    if own.path not in {head.path for head in first.values()}:
        first[own.sop_instance_uid] = own  # of two copies the one that was asked for
    return sorted(first.values(), key=lambda head: head.order)


def _files_beside(path: Path) -> list[Path]:
    found = []
    for number, other in enumerate(path.parent.iterdir()):
        if number >= MAX_FILES:
            raise UnreadableSlide(
                f"the folder holds more than {MAX_FILES} files: put the series into one of its own"
            )
        if not other.name.startswith(".") and other.name != path.name:
            try:
                if stat.S_ISREG(other.lstat().st_mode):
                    found.append(other)
            except OSError:
                continue  # it went meanwhile
    return sorted(found)


def once_per_series(paths: Iterable[Path]) -> list[Path]:
    """``paths`` without the files of a series that another of them stands for already:
    of each series in a folder its main file stays. Other files stay."""
    kept: dict[object, Head | Path] = {}
    for path in paths:
        head = read_head(path)
        if head is None or not head.is_slide:
            kept[path] = path
            continue
        key = (path.parent, head.series_instance_uid)
        known = kept.get(key)
        if not isinstance(known, Head) or head.order < known.order:
            kept[key] = head
    return [one.path if isinstance(one, Head) else one for one in kept.values()]
