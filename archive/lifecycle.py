# SPDX-License-Identifier: Apache-2.0
"""Deleting and correcting: journal first, then one transaction (DESIGN 4)."""

import copy
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from pydicom import dcmread
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from archive.access import Action, Principal, Scope
from archive.audit import INSTANCES_ACCESSED, STUDY_DELETED, AuditRecord
from archive.availability import note_deleted
from archive.core import Core
from archive.errors import BadQuery, Busy, Changed, Held, NoSuchInstance, NoSuchSeries, NoSuchStudy
from archive.indexing import add_revision, execute, remove_instance, took_effect
from archive.ingest import put_blob
from archive.journal import REJECT, Entry, Revision, Target, encode_entry, new_entry
from archive.part10.encode import encode_header
from archive.part10.frame_table import FrameTable
from archive.part10.recode import recode_to_utf8
from archive.part10.stream import Part10Stream
from archive.prepare import Described, describe_header
from archive.record import BlobRef
from archive.retrieve import bulk_values
from archive.rows import Row, gone_for, live_siblings, rows_below

T = TypeVar("T")

IMPLEMENTATION_VERSION = "COVERSLIP_1"
_TRIES = 5
UTF_8 = "ISO_IR 192"
# What a correction may touch: who, which order, which specimen, which study. Never what
# describes the pixels or what identifies an object.
_GROUPS = {0x0010, 0x0012}  # patient, clinical trial
_KEYWORDS = {
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "SeriesDescription",
    "ReferringPhysicianName",
    "PhysiciansOfRecord",
    "RequestingPhysician",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
    "RequestAttributesSequence",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "TimezoneOffsetFromUTC",
    "ContainerIdentifier",
    "IssuerOfTheContainerIdentifierSequence",
    "ContainerTypeCodeSequence",
    "ContainerComponentSequence",
    "SpecimenDescriptionSequence",
    "BarcodeValue",
    "LabelText",
}


def settled(verb: Callable[[], T]) -> T:
    """The result of ``verb``, which looks and then writes; again when others came between."""
    for _ in range(_TRIES - 1):
        try:
            return verb()
        except Changed:
            continue
    return verb()


def delete(
    core: Core, study: str, series: str, sop: str, *, reason: str, principal: Principal, scope: Scope
) -> int:
    """See ``Archive.delete``."""
    core.check(principal, Action.DELETE)
    return settled(partial(_delete, core, study, series, sop, reason, principal, scope))


def _delete(
    core: Core, study: str, series: str, sop: str, reason: str, principal: Principal, scope: Scope
) -> int:
    rows = named(core, study, series, sop, scope)
    try:
        refuse_part_of_slide(core, rows)
    except Held:
        core.refuse(principal, "delete of one instance of a born slide", study=study, sop=sop)
        raise
    remove(core, rows, "delete", reason=reason, principal=principal, study=study, series=series, sop=sop)
    return len(rows)


def named(core: Core, study: str, series: str, sop: str, scope: Scope) -> list[Row]:
    """The instances of a study, series or one of them; at least one. Raises Gone,
    NoSuchStudy and its kin."""
    below = (row for page in rows_below(core, study, series, scope) for row in page)
    rows = [row for row in below if not sop or row.sop_instance_uid == sop]
    if not rows:
        if (gone := gone_for(core, study, series, sop, scope)) is not None:
            raise gone
        raise NoSuchInstance(sop) if sop else NoSuchSeries(series) if series else NoSuchStudy(study)
    return rows


def refuse_part_of_slide(core: Core, rows: Sequence[Row]) -> None:
    """Raises Held where other instances need the scanner's file that these are made of."""
    going = {r.id for r in rows}
    for row in rows:
        if row.base == "made" and row.original_id and live_siblings(core, row) - going:
            raise Held(
                "the instance's pixels are in the scanner's own file, which other instances need: "
                "delete the whole series"
            )


def remove(
    core: Core,
    rows: Sequence[Row],
    action: str,
    *,
    reason: str,
    principal: Principal,
    study: str = "",
    series: str = "",
    sop: str = "",
    pointer: str = "",
) -> None:
    """Take instances out for every door, by a journal entry ``delete``, or ``reject``, which
    keeps their blobs. ``study``, ``series``, ``sop``: what was named, for the trail;
    ``pointer``: the SOP Instance UID of what tells why. Raises Changed when one of them has
    gone meanwhile, or was replaced."""
    now = core.journal_time()
    entry = new_entry(
        action,
        principal.actor,
        reason,
        targets=[Target(r.record_key, r.sop_instance_uid) for r in rows],
        pointer=pointer,
        time=now,
    )
    keep = action == REJECT

    def commit() -> None:
        for row in rows:
            if execute(core, "SELECT 1 FROM instance WHERE id = ?", row.id).fetchone() is None:
                raise Changed
            remove_instance(core, row, tombstone=True, reason=reason, time=now, keep=keep, pointer=pointer)
            core.add_change("deleted", row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid)
        note_deleted(core, rows)
        core.add_audit(
            AuditRecord(
                STUDY_DELETED if study and not series else INSTANCES_ACCESSED,
                "D",
                principal,
                0,
                study or rows[0].study_instance_uid,
                sop,
                {"number_of_instances": len(rows), "reason": reason},
            )
        )

    journalled(core, entry, commit, last=True)


def correct(
    core: Core,
    study: str,
    patch: Mapping[str, object],
    *,
    reason: str,
    principal: Principal,
    scope: Scope,
) -> int:
    """See ``Archive.correct``."""
    core.check(principal, Action.CORRECT)
    _check_patch(patch)
    rows = [r for page in rows_below(core, study, "", scope) for r in page]
    if not rows:
        raise NoSuchStudy(study)
    now = core.clock()
    revisions: list[tuple[Row, Revision, Described]] = []
    for row in rows:
        key, offset, length = row.header
        dataset = dcmread(io.BytesIO(core.files.get(key).pread(offset, length)), force=True)
        revised = revise(dataset, patch, principal.actor, reason, now)
        header = encode_header(
            revised, row.transfer_syntax_uid, implementation_version=IMPLEMENTATION_VERSION
        )
        described = describe_header(header, core.limits.parse, bulk_values(row))
        record = core.files.get(row.record_key)
        frames = FrameTable.open(record.fileno(), *row.table) if row.table[1] else None
        data = header + described.json
        ref = BlobRef(hashlib.sha256(data).digest(), len(data))
        put_blob(core, ref, data)
        revision = Revision(
            Target(row.record_key, row.sop_instance_uid),
            row.revision + 1,
            ref,
            len(header),
            hashlib.sha256(header).digest(),
            Part10Stream(header, row.transfer_syntax_uid, frames, row.bulk).length,
        )
        revisions.append((row, revision, described))
    entry = new_entry("correct", principal.actor, reason, revisions=[r for _, r, _ in revisions], time=now)

    def commit() -> None:
        for row, revision, described in revisions:
            now_at = execute(core, "SELECT revision FROM instance WHERE id = ?", row.id).fetchone()
            if now_at is None or now_at[0] != row.revision:
                raise Busy("the study was changed meanwhile; try again")
            add_revision(core, row, revision, described, reason=reason, time=now)
            core.add_change(
                "corrected", row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid
            )
        core.add_audit(
            AuditRecord(
                INSTANCES_ACCESSED,
                "U",
                principal,
                0,
                study,
                "",
                {
                    "reason": reason,
                    "attributes": sorted(patch),
                    "revisions": {
                        r.target.sop_instance_uid: [r.revision, r.digest.hex()] for _, r, _ in revisions
                    },
                },
            )
        )

    journalled(core, entry, commit)
    return len(revisions)


def journalled(core: Core, entry: Entry, commit: Callable[[], None], *, last: bool = False) -> None:
    """The entry, durable; then its effect. Killed in between, ``recover`` completes it;
    refused, the entry is taken back. ``last``: its place in the journal counts, so that no
    entry of a later time may have had its effect; raises Changed then."""
    core.storage.put_bytes(entry.key, encode_entry(entry))

    def noted() -> None:
        if last and core.journal_time(entry.time) != entry.time:
            raise Changed
        commit()
        core.note_journal_time(entry.time)

    try:
        core.index.write(noted)
    except Exception:
        # Whatever it is. A connection may be lost after the commit, and ``recover`` of another process
        # may have completed the entry: only what had no effect is taken back.
        if not took_effect(core, entry):
            core.storage.delete(entry.key)
        raise


def _check_patch(patch: Mapping[str, object]) -> None:
    if not patch:
        raise BadQuery("nothing to correct")
    for keyword in patch:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise BadQuery(f"{keyword} is not an attribute's keyword")
        if keyword not in _KEYWORDS and tag >> 16 not in _GROUPS:
            raise BadQuery(f"{keyword} cannot be corrected")


def revise(dataset: Dataset, patch: Mapping[str, object], actor: str, reason: str, now: datetime) -> Dataset:
    """The data set with ``patch`` applied, in ISO_IR 192, the prior values in
    OriginalAttributesSequence (PS3.3 C.12.1.1.9: of a sequence, the whole prior one)."""
    if dataset.get("SpecificCharacterSet") != UTF_8:
        dataset = recode_to_utf8(dataset)
    prior = Dataset()
    for keyword in sorted(patch):
        if keyword in dataset:
            prior[keyword] = copy.deepcopy(dataset[keyword])
    for keyword, value in patch.items():
        _assign(dataset, keyword, value)
    dataset.SpecificCharacterSet = UTF_8
    stamp = now.strftime("%Y%m%d%H%M%S.%f") + "+0000"
    item = Dataset()
    item.SourceOfPreviousValues = None
    item.AttributeModificationDateTime = stamp
    item.ModifyingSystem = "COVERSLIP"
    item.ReasonForTheAttributeModification = "CORRECT"
    item.ModifiedAttributesSequence = Items([prior])
    former: Sequence[Dataset] = dataset.get("OriginalAttributesSequence") or []
    dataset.OriginalAttributesSequence = Items([*former, item])
    dataset.InstanceCoercionDateTime = stamp
    return dataset


def _assign(dataset: Dataset, keyword: str, value: object) -> None:
    """Set an attribute: a scalar or list, None to empty it; of a sequence a list of data
    sets in the DICOM JSON model. Raises BadQuery for what its VR cannot hold."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    vr = dictionary_VR(tag)
    try:
        if vr == "SQ":
            if not isinstance(value, list):
                raise BadQuery(f"{keyword}: a sequence is a list of data sets")
            setattr(dataset, keyword, Items([Dataset.from_json(item) for item in value]))
            return
        dataset[tag] = DataElement(tag, vr, value, validation_mode=RAISE)
    except BadQuery:
        raise
    except Exception as error:
        # pydicom raises what it likes on values that are not of the VR's form.
        raise BadQuery(f"{keyword}: the value is not of VR {vr}") from error
