# SPDX-License-Identifier: Apache-2.0
"""A Part 10 file as a header, bulk values and a frame table, without reading its bulk.

The header is walked in a map of the file, fragments by positioned reads of their
headers: memory is that of the header. Nothing in it
is believed that can be checked: offset tables against the items, lengths against the
file, numbers against each other.
"""

import mmap
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from archive.part10.budget import DEFAULT_BUDGET, ParseBudget
from archive.part10.bulk import BulkValue
from archive.part10.dataset import as_dataset
from archive.part10.errors import Malformed, NeedsReencoding
from archive.part10.meta import FileMeta, encode_meta, is_uid, read_meta
from archive.part10.pixels import frame_table
from archive.part10.reencode import reencode_to_explicit_le
from archive.part10.source import PathOrFile, Source, mapped
from archive.part10.syntaxes import DEFLATED, EXPLICIT_BIG_ENDIAN, IMPLICIT, require_known
from archive.part10.walker import Normalised, normalise

__all__ = ["BulkValue", "ScannedFile", "reencode_to_explicit_le", "scan_file"]

OTHER_SOP_CLASS = "group 2 names another SOP class than the data set"

_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_STUDY, _SERIES = 0x0020000D, 0x0020000E


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """What a file holds.

    ``dataset`` has no group 2, no offset tables and no bulk; its elements are decoded
    when they are first read. ``header`` is the same as Part 10 bytes in normal form
    (``archive.part10.walker``): Explicit VR Little Endian with sequences of undefined
    length, whatever the file's own encoding; its group 2 names ``transfer_syntax_uid``,
    or Explicit VR Little Endian where that is Implicit, since that is what follows.
    ``bulk`` has pixel data too; offsets count in the file (of ``scratch`` if
    ``reencoded``). ``frame_table`` is encoded, its blob 0 being that file, and ``b""``
    without pixel data. ``findings`` name what is wrong but harmless, without values.
    ``media_storage_uids`` are class and instance of group 2.
    """

    transfer_syntax_uid: str
    media_storage_uids: tuple[str, str]
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    dataset: Dataset
    header: bytes
    bulk: tuple[BulkValue, ...]
    pixel_data: BulkValue | None
    frame_table: bytes
    findings: tuple[str, ...]
    reencoded: bool = False


def scan_file(
    path_or_file: PathOrFile,
    *,
    budget: ParseBudget = DEFAULT_BUDGET,
    allow_bare: bool = False,
    scratch: Path | None = None,
    of_patient: bool = True,
) -> ScannedFile:
    """Scan a Part 10 file (PS3.10 7), or refuse it with a ``Part10Error``.

    ``allow_bare`` takes a data set without preamble and group 2 as well, in Implicit or
    Explicit VR Little Endian, as told apart by its first element. A deflated or big
    endian file is re-encoded to ``scratch`` (which must not exist) and that is scanned;
    without ``scratch`` it raises ``NeedsReencoding``. An open file must be seekable; it
    is scanned whole, whatever its position, and stays open. Instances that are not
    ``of_patient`` (PS3.4 Annex GG) need no Study and Series Instance UID: "" then.
    """
    with mapped(path_or_file) as source:
        meta = read_meta(source.data, allow_bare=allow_bare)
        require_known(meta.transfer_syntax_uid)
        if meta.transfer_syntax_uid not in (DEFLATED, EXPLICIT_BIG_ENDIAN):
            return _scan(source, meta, budget, of_patient)
    if scratch is None:
        raise NeedsReencoding(f"transfer syntax {meta.transfer_syntax_uid} must be re-encoded first")
    reencode_to_explicit_le(path_or_file, scratch, budget)
    return replace(scan_file(scratch, budget=budget, of_patient=of_patient), reencoded=True)


def _scan(file: Source, meta: FileMeta, budget: ParseBudget, of_patient: bool) -> ScannedFile:
    source = file.data
    normal = normalise(
        source,
        meta.data_set_offset,
        len(source),
        implicit=_is_implicit(source, meta, findings := list(meta.findings)),
        budget=budget,
        descriptor=file.descriptor,
    )
    sop_class, sop_instance = (_uid(normal, tag) for tag in (_SOP_CLASS, _SOP_INSTANCE))
    study, series = (_uid(normal, tag) if of_patient else "" for tag in (_STUDY, _SERIES))
    if meta.sop_class_uid and meta.sop_class_uid != sop_class:
        findings.append(OTHER_SOP_CLASS)
    if meta.sop_instance_uid and meta.sop_instance_uid != sop_instance:
        findings.append("group 2 names another SOP instance than the data set")
    pixel_data = _pixel_data(normal)
    table = b""
    if pixel_data is not None:
        table = frame_table(source, normal, pixel_data, meta.transfer_syntax_uid, budget, findings)
    elif normal.extended_offsets or normal.extended_lengths:
        findings.append("an extended offset table without pixel data")
    findings += [f"{text} ({n} times)" if n > 1 else text for text, n in normal.findings.items()]
    return ScannedFile(
        transfer_syntax_uid=meta.transfer_syntax_uid,
        media_storage_uids=(meta.sop_class_uid, meta.sop_instance_uid),
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        study_instance_uid=study,
        series_instance_uid=series,
        dataset=as_dataset(normal),
        header=encode_meta(sop_class, sop_instance, meta.transfer_syntax_uid) + normal.data,
        bulk=tuple(normal.bulk),
        pixel_data=pixel_data,
        frame_table=table,
        findings=tuple(findings),
    )


def _is_implicit(source: bytes | mmap.mmap, meta: FileMeta, findings: list[str]) -> bool:
    """Whether the data set is in Implicit VR, by its transfer syntax; where its first
    element says otherwise, the element is right."""
    declared = meta.transfer_syntax_uid == IMPLICIT
    first = source[meta.data_set_offset : meta.data_set_offset + 6]
    if len(first) == 6:
        looks_explicit = first[4:6].isalpha() and first[4:6].isupper()
        if declared == looks_explicit:
            findings.append("the data set is not encoded as its transfer syntax says")
            return not declared
    return declared


def _pixel_data(normal: Normalised) -> BulkValue | None:
    found = [value for value in normal.bulk if value.is_pixel_data]
    if len(found) > 1:
        raise Malformed("more than one of Pixel, Float and Double Float Pixel Data")
    return found[0] if found else None


def _uid(normal: Normalised, tag: int) -> str:
    """A UID that every instance must have."""
    value = normal.value(tag)
    name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    if not value:
        raise Malformed(f"{name} is absent or empty")
    text = value.rstrip(b"\x00 ").decode("latin-1")
    if not is_uid(text):
        raise Malformed(f"{name} is not a UID")
    return text
