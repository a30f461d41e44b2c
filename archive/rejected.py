# SPDX-License-Identifier: Apache-2.0
"""What a rejection note says (IHE IOCM, RAD TF-2 4.66): codes, references, and whether an
instance was rejected before. Only reads."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from archive.core import Core
from archive.indexing import execute

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
QUALITY, SAFETY, WORKLIST_ENTRY, EXPIRED = "113001", "113037", "113038", "113039"
CODES = {
    QUALITY: "Rejected for Quality Reasons",
    SAFETY: "Rejected for Patient Safety Reasons",
    WORKLIST_ENTRY: "Incorrect Modality Worklist Entry",
    EXPIRED: "Data Retention Policy Expired",
}
"""Document titles of PS3.16 CID 7011, by DCM code."""

KEPT = frozenset(f"{code} {meaning}" for code, meaning in CODES.items() if code != EXPIRED)
"""Reasons of tombstones whose bytes are kept: it may not come again, but be taken back."""


@dataclass(frozen=True, slots=True)
class Note:
    """A rejection note: its code, and (study, series, class, instance) of what it names."""

    code: str
    references: tuple[tuple[str, str, str, str], ...]

    @property
    def reason(self) -> str:
        """For the journal, the tombstones and the audit trail."""
        return f"{self.code} {CODES[self.code]}"


def note_of(dataset: Dataset) -> Note | None:
    """The rejection that a data set is; None for every other one."""
    if dataset.get("SOPClassUID") != KEY_OBJECT_SELECTION:
        return None
    title = next(iter(dataset.get("ConceptNameCodeSequence") or ()), Dataset())
    code = str(title.get("CodeValue", ""))
    if title.get("CodingSchemeDesignator") != "DCM" or code not in CODES:
        return None
    return Note(code, tuple(_references(dataset)))


def _references(dataset: Dataset) -> Iterator[tuple[str, str, str, str]]:
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for item in series.get("ReferencedSOPSequence") or ():
                yield (
                    str(study.get("StudyInstanceUID", "")),
                    str(series.get("SeriesInstanceUID", "")),
                    str(item.get("ReferencedSOPClassUID", "")),
                    str(item.get("ReferencedSOPInstanceUID", "")),
                )


def rejected_before(core: Core, sop: str) -> str:
    """Why an instance was rejected and may not come again; "" otherwise. What went because
    its time was over may."""
    with core.index.read():
        rows = execute(core, "SELECT reason FROM tombstone WHERE sop_instance_uid = ?", sop).fetchall()
    return next((str(reason) for (reason,) in rows if str(reason) in KEPT), "")
