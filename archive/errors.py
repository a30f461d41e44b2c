# SPDX-License-Identifier: Apache-2.0
"""Why the archive said no, in DICOM's own codes.

The numbers are C-STORE statuses (PS3.4 B.2.3, PS3.7 Annex C); STOW-RS reports the
same ones as Failure Reason (0008,1197). DIMSE answers with the code as it stands;
only ``dicomweb`` adds a table, code to HTTP status, and only ``gateway.cli`` one to
exit codes.
"""

from enum import IntEnum


class Reason(IntEnum):
    """PS3.7 Annex C and PS3.4 Table B.2-1."""

    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122


class StoreWarning(IntEnum):
    """Stored, but not quite as it came (PS3.4 Table B.2-1; Warning Reason of PS3.18 I.2)."""

    COERCION = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DATA_SET_MISMATCH = 0xB007


class ArchiveError(Exception):
    """Base of every refusal. ``reason`` is DICOM's code; ``str()`` names the problem
    without any attribute value (UIDs excepted), so that it may be logged."""

    reason = Reason.PROCESSING_FAILURE


class NotFound(ArchiveError):
    """Nothing of that name in the caller's scope; hidden and absent look the same."""

    reason = Reason.NO_SUCH_SOP_INSTANCE


class NoSuchStudy(NotFound):
    def __init__(self, study_instance_uid: str) -> None:
        super().__init__(f"no study {study_instance_uid}")
        self.study_instance_uid = study_instance_uid


class NoSuchSeries(NotFound):
    def __init__(self, series_instance_uid: str) -> None:
        super().__init__(f"no series {series_instance_uid}")
        self.series_instance_uid = series_instance_uid


class NoSuchInstance(NotFound):
    def __init__(self, sop_instance_uid: str) -> None:
        super().__init__(f"no instance {sop_instance_uid}")
        self.sop_instance_uid = sop_instance_uid


class NoSuchFrame(NotFound):
    def __init__(self, frame_number: int, number_of_frames: int) -> None:
        super().__init__(f"no frame {frame_number}: the instance has {number_of_frames}")
        self.frame_number = frame_number
        self.number_of_frames = number_of_frames


class NoSuchBulkData(NotFound):
    def __init__(self, path: str) -> None:
        super().__init__(f"no bulk data at {path}")
        self.path = path


class NoSuchJob(NotFound):
    def __init__(self, job_id: int) -> None:
        super().__init__(f"no job {job_id}")
        self.job_id = job_id


class NoSuchDuty(NotFound):
    def __init__(self, duty_id: int) -> None:
        super().__init__(f"nothing in the outbox has the number {duty_id}")
        self.duty_id = duty_id


class NoSuchTransaction(NotFound):
    def __init__(self, transaction_uid: str) -> None:
        super().__init__(f"no transaction {transaction_uid}")
        self.transaction_uid = transaction_uid


class NoSuchPeer(NotFound):
    def __init__(self, ae_title: str) -> None:
        super().__init__(f"no peer {ae_title}")
        self.ae_title = ae_title


class TransactionInUse(ArchiveError):
    """A storage commitment with that Transaction UID was asked for before (409)."""

    def __init__(self, transaction_uid: str) -> None:
        super().__init__(f"transaction {transaction_uid} is in use")
        self.transaction_uid = transaction_uid


class Gone(ArchiveError):
    """It was here and was deleted (410); shown only to who could have seen it. ``pointer``:
    study, series and instance of what tells why, a rejection note."""

    reason = Reason.NO_SUCH_SOP_INSTANCE

    pointer: tuple[str, str, str] | None = None

    def __init__(
        self, sop_instance_uid: str, why: str = "", pointer: tuple[str, str, str] | None = None
    ) -> None:
        super().__init__(f"{sop_instance_uid} was {f'rejected: {why}' if why else 'deleted'}")
        self.sop_instance_uid, self.pointer = sop_instance_uid, pointer


class TransactionExpired(Gone):
    """The result of a storage commitment was kept for its time, and is no more (410)."""

    def __init__(self, transaction_uid: str) -> None:
        ArchiveError.__init__(self, f"the result of transaction {transaction_uid} is no longer kept")
        self.transaction_uid = transaction_uid


class NotAllowed(ArchiveError):
    """The principal has no right to the action."""

    reason = Reason.NOT_AUTHORIZED

    def __init__(self, action: str) -> None:
        super().__init__(f"not allowed: {action}")
        self.action = action


class DuplicateInstance(ArchiveError):
    """The same SOP Instance UID with other pixels: kept in quarantine, not stored."""

    reason = Reason.DUPLICATE_SOP_INSTANCE

    def __init__(self, sop_instance_uid: str) -> None:
        super().__init__(f"{sop_instance_uid} is stored already with other pixel data")
        self.sop_instance_uid = sop_instance_uid


class StudyMismatch(ArchiveError):
    """A data set of another study than the request named (PS3.18 10.5.1)."""

    reason = Reason.DATA_SET_MISMATCH

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the request is for study {expected}, the data set of {found}")
        self.expected, self.found = expected, found


class Unreadable(ArchiveError):
    """Not DICOM, truncated or malformed; the message says which and at what offset."""

    reason = Reason.CANNOT_UNDERSTAND


class UnsupportedSopClass(ArchiveError):
    reason = Reason.SOP_CLASS_NOT_SUPPORTED

    def __init__(self, sop_class_uid: str) -> None:
        super().__init__(f"SOP class {sop_class_uid} is not stored here")
        self.sop_class_uid = sop_class_uid


class UnsupportedTransferSyntax(ArchiveError):
    reason = Reason.TRANSFER_SYNTAX_NOT_SUPPORTED

    def __init__(self, transfer_syntax_uid: str) -> None:
        super().__init__(f"transfer syntax {transfer_syntax_uid} is not supported")
        self.transfer_syntax_uid = transfer_syntax_uid


class CannotTranscode(ArchiveError):
    """No way from the stored to the asked transfer syntax or media type (HTTP 406)."""

    reason = Reason.TRANSFER_SYNTAX_NOT_SUPPORTED


class CannotDecode(ArchiveError):
    """The stored codestream is damaged or beyond the decoder's limits."""

    reason = Reason.PROCESSING_FAILURE


class TooLarge(ArchiveError):
    """The answer would exceed a limit (HTTP 413)."""

    reason = Reason.OUT_OF_RESOURCES


class StorageFull(ArchiveError):
    """No space (or no quota) for the bytes; nothing of them was kept."""

    reason = Reason.OUT_OF_RESOURCES


class StorageFailed(ArchiveError):
    """The medium refused: an I/O or permission error, named without its path."""

    reason = Reason.OUT_OF_RESOURCES


class Damaged(ArchiveError):
    """Stored bytes are missing or differ from their digest."""

    reason = Reason.PROCESSING_FAILURE


class BadQuery(ArchiveError):
    """A matching key's value is not of its VR's form (PS3.4 C.2.2; HTTP 400)."""

    reason = Reason.DATA_SET_MISMATCH


class NoSuchOrder(NotFound):
    def __init__(self) -> None:
        super().__init__("no worklist item of that identifier")


class BadOrder(ArchiveError):
    """A worklist item lacks something, or a value is none that its attribute can hold."""

    reason = Reason.DATA_SET_MISMATCH


class StepRefused(ArchiveError):
    """A performed procedure step cannot begin or change so. ``status``: of PS3.7 Annex C;
    ``error_id``: of PS3.4 Table F.7.2-2, 0 for none; ``attributes``: tags in question."""

    def __init__(
        self, status: int, message: str, attributes: tuple[str, ...] = (), *, error_id: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.attributes, self.error_id = status, attributes, error_id


class Busy(ArchiveError):
    """A bounded queue or pool is full: try again (503 with Retry-After)."""

    reason = Reason.OUT_OF_RESOURCES


class Changed(Busy):
    """What was looked at is not so any more in the turn to write: nothing was done, look again."""

    def __init__(self) -> None:
        super().__init__("it was changed meanwhile; try again")


class StoreTooNew(ArchiveError):
    """The data folder was written by a newer release; it is left untouched."""


class Held(ArchiveError):
    """A retention or hold forbids the change, or it would break a born slide."""

    reason = Reason.NOT_AUTHORIZED


class Rejected(Held):
    """The instance was rejected by a note (IOCM) and may not come again."""

    def __init__(self, sop_instance_uid: str, reason: str) -> None:
        super().__init__(f"{sop_instance_uid} was rejected: {reason}")
        self.sop_instance_uid = sop_instance_uid


class RejectionRefused(ArchiveError):
    """A rejection note that names something else than what is stored."""

    reason = Reason.DATA_SET_MISMATCH

    def __init__(self, what: str) -> None:
        super().__init__(f"the rejection note {what}")


class SourceChanged(ArchiveError):
    """The file changed while it was copied; copy it again once it is quiet."""

    reason = Reason.OUT_OF_RESOURCES


class LeaseLost(ArchiveError):
    """The job's lease ran out and somebody else has it, or it has ended."""

    def __init__(self, job_id: int) -> None:
        super().__init__(f"job {job_id} is no longer ours")
        self.job_id = job_id
