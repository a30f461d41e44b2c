# SPDX-License-Identifier: Apache-2.0
"""The tables as peewee models, made for one database: never module globals.

What a column means stands here; constraints and indexes stand in ``migrations``. Times
are microseconds since the epoch, UTC (:func:`now_us`). Absent text is ``""``. Foreign
keys are never followed lazily: ``instance.series`` is the id, join to get the row.
"""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from peewee import (
    BigAutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    CompositeKey,
    DoubleField,
    Field,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
)


def now_us() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Models:
    """The model classes of one database; each attribute is a peewee ``Model`` subclass."""

    ProtocolStudy: Any
    Study: Any
    Original: Any
    Series: Any
    Instance: Any
    Blob: Any
    BlobRef: Any
    InstanceBlob: Any
    HeaderRevision: Any
    Attribute: Any
    NameSound: Any
    Tombstone: Any
    Derivative: Any
    Job: Any
    Duty: Any
    Delivered: Any
    Quarantine: Any
    WatchedFile: Any
    Setting: Any
    AuditEvent: Any
    Change: Any

    def all(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)


def _text() -> "Field[str]":
    return TextField(default="")


def _big() -> "Field[int]":
    return BigIntegerField(default=0)


def _optional() -> "Field[int | None]":
    return BigIntegerField(null=True)


def _time() -> "Field[int]":
    return BigIntegerField(default=now_us)


def _link(model: Any, backref: str, *, null: bool = False) -> Any:
    return ForeignKeyField(model, backref=backref, lazy_load=False, null=null)


def make_models(database: Any) -> Models:
    """Model classes bound to ``database``."""

    class Base(Model):
        class Meta:
            legacy_table_names = False

    Base._meta.set_database(database)

    class ProtocolStudy(Base):
        """A GLP or clinical study (not a DICOM study): the home of slides."""

        id = BigAutoField()
        identifier = TextField(unique=True)
        title = _text()
        glp = BooleanField(default=False)
        blinded = BooleanField(default=False)
        created = _time()

    class Study(Base):
        """A DICOM study. ``*_folded``, ``*_ideographic``, ``*_phonetic``: the component
        groups of a name, folded (``matching.fold``). ``*_time_key``: HHMMSS.ffffff.
        ``uid_status``: ``received``, ``own`` (may still move), ``frozen`` or ``given``.
        Counters are kept by the verb that adds or removes."""

        id = BigAutoField()
        study_instance_uid = TextField(unique=True)
        patient_id = _text()
        issuer_of_patient_id = _text()
        patient_name = _text()
        patient_name_folded = _text()
        patient_name_ideographic = _text()
        patient_name_phonetic = _text()
        patient_birth_date = _text()
        patient_sex = _text()
        study_date = _text()
        study_time = _text()
        study_time_key = _text()
        accession_number = _text()
        referring_physician_name = _text()
        referring_physician_name_folded = _text()
        study_id = _text()
        study_description = _text()
        timezone_offset_from_utc = _text()
        protocol_study = _link(ProtocolStudy, "studies", null=True)
        sensitivity = IntegerField(default=0)
        uid_status = TextField(default="received")
        unmatched = BooleanField(default=False)
        number_of_series = _big()
        number_of_instances = _big()
        size_bytes = _big()
        modalities = _text()  # sorted, joined by a backslash
        place = _big()  # in a result: study date << 36 | id, by trigger; repeated below
        created = _time()
        updated = _time()

    class Original(Base):
        """A scanner's own file or files. ``files``: JSON list of {name, digest, size}
        in the order of the manifest; ``digest`` as in ``NewOriginal``."""

        id = BigAutoField()
        digest = BlobField(unique=True)
        name = _text()
        format = _text()
        description = _text()
        size_bytes = _big()
        files = TextField(default="[]")
        unmatched = BooleanField(default=False)
        held = BooleanField(default=False)
        created = _time()

    class Series(Base):
        """A series. ``total_pixel_matrix_*`` are the largest of its instances;
        ``search_text`` is what the work list's search box looks in, folded."""

        id = BigAutoField()
        study = _link(Study, "series")
        series_instance_uid = TextField(unique=True)
        modality = _text()
        series_number = _optional()
        series_description = _text()
        series_date = _text()
        series_time = _text()
        performed_procedure_step_start_date = _text()
        performed_procedure_step_start_time = _text()
        performed_procedure_step_start_time_key = _text()
        body_part_examined = _text()
        laterality = _text()
        manufacturer = _text()
        manufacturer_model_name = _text()
        device_serial_number = _text()
        station_name = _text()
        container_identifier = _text()
        frame_of_reference_uid = _text()
        total_pixel_matrix_rows = _big()
        total_pixel_matrix_columns = _big()
        original = _link(Original, "series", null=True)
        unmatched = BooleanField(default=False)
        held = BooleanField(default=False)
        number_of_instances = _big()
        size_bytes = _big()
        search_text = _text()
        place = _big()
        created = _time()
        updated = _time()

    class Instance(Base):
        """An instance at its current header revision (0 is the base).

        ``record_key`` with the header's and JSON's offset and length names the current
        revision; the table and the absent-tile bitmap (``table_*``, ``absent_*``) stay
        in the base's record, ``base_record_key``. ``bulk``: JSON list of
        [path, vr, offset, length, encapsulated], in blob 0. ``origin``: ``received``,
        ``bare`` (received without preamble and group 2), ``born`` or ``converted``.
        ``image_type``: values joined by a backslash."""

        id = BigAutoField()
        study = _link(Study, "instances")
        series = _link(Series, "instances")
        sop_instance_uid = TextField(unique=True)
        sop_class_uid = TextField()
        transfer_syntax_uid = TextField()
        instance_number = _optional()
        modality = _text()
        image_type = _text()
        content_date = _text()
        content_time = _text()
        number_of_frames = _big()
        rows = _big()
        columns = _big()
        samples_per_pixel = IntegerField(default=0)
        bits_allocated = IntegerField(default=0)
        bits_stored = IntegerField(default=0)
        pixel_representation = IntegerField(default=0)
        planar_configuration = IntegerField(default=0)
        photometric_interpretation = _text()
        lossy = BooleanField(default=False)
        has_pixel_data = BooleanField(default=False)
        total_pixel_matrix_rows = _big()
        total_pixel_matrix_columns = _big()
        size_bytes = _big()
        revision = IntegerField(default=0)
        record_key = _text()
        base_record_key = _text()
        header_offset = _big()
        header_length = _big()
        json_offset = _big()
        json_length = _big()
        table_offset = _big()
        table_length = _big()
        bulk = TextField(default="[]")
        absent_offset = _big()
        absent_length = _big()
        absent_tiles = BooleanField(default=False)
        base_digest = BlobField()
        dataset_digest = BlobField()  # of the base's canonical data set, pixels left out
        content_digest = BlobField()  # over both; b"" until the pixel digest is known
        pixel_digest = BlobField()  # over the frames; b"" until it is first needed
        origin = TextField(default="received")
        original = _link(Original, "instances", null=True)
        place = _big()
        stored = _time()

    class Blob(Base):
        """Bytes written once. ``state``: ``live``, ``condemned`` (no reference, removed
        after a day unless revived), ``gone``. ``digest``: SHA-256, 32 bytes."""

        id = BigAutoField()
        digest = BlobField(unique=True)
        size_bytes = _big()
        state = TextField(default="live")
        condemned_at = _optional()
        created = _time()

    class BlobRef(Base):
        """Who keeps a blob: ``owner_kind`` is ``instance``, ``original`` or ``derivative``."""

        id = BigAutoField()
        blob = _link(Blob, "references")
        owner_kind = TextField()
        owner_id = BigIntegerField()

    class InstanceBlob(Base):
        """The blobs that an instance's frame table counts in, by ``position`` from 0.
        ``unpacked_*``: of the blob that it came with, where ``blob`` holds that one
        recompressed; else NULL."""

        instance = _link(Instance, "blobs")
        position = IntegerField()
        blob = _link(Blob, "instances")
        unpacked_digest = BlobField(null=True)
        unpacked_size_bytes = _optional()

        class Meta:
            primary_key = CompositeKey("instance", "position")

    class HeaderRevision(Base):
        """Every header an instance ever had, the base (revision 0) included."""

        id = BigAutoField()
        instance = _link(Instance, "revisions")
        revision = IntegerField()
        record_key = TextField()
        header_offset = _big()
        header_length = _big()
        json_offset = _big()
        json_length = _big()
        bulk = TextField(default="[]")
        digest = BlobField()
        dataset_digest = BlobField()
        reason = _text()
        time = _time()

    class Attribute(Base):
        """A matching key that has no column: one row a value (``index.attributes``).
        ``place`` and ``series_id`` are the instance's."""

        id = BigAutoField()
        instance = _link(Instance, "attributes")
        path = TextField()
        folded = TextField(null=True)
        num = DoubleField(null=True)
        date = TextField(null=True)
        place = _big()
        series_id = _big()

    class NameSound(Base):
        """How a word of a study's name sounds (``index.sounds``); ``path``: which name."""

        id = BigAutoField()
        study = _link(Study, "sounds")
        path = TextField()
        sound = TextField()

    class Tombstone(Base):
        """What was deleted: answers 410, and keeps its UID from coming back unseen.
        ``pointer``: the SOP Instance UID that took its place."""

        id = BigAutoField()
        level = TextField()
        study_instance_uid = TextField()
        series_instance_uid = _text()
        sop_instance_uid = _text()
        protocol_study_id = _optional()
        sensitivity = IntegerField(default=0)
        pointer = _text()
        reason = _text()
        time = _time()

    class Derivative(Base):
        """Something made from a series and kept as a blob: ``thumbnail``, ``label`` …"""

        id = BigAutoField()
        series = _link(Series, "derivatives")
        kind = TextField()
        digest = BlobField()
        media_type = TextField()
        created = _time()

    class Job(Base):
        """Work that survives restarts. ``key`` (when not empty) is unique among the
        waiting and running jobs of a kind. ``payload``: JSON object."""

        id = BigAutoField()
        kind = TextField()
        key = _text()
        payload = TextField(default="{}")
        state = TextField(default="waiting")
        lease_owner = _text()
        lease_until = _big()
        attempts = IntegerField(default=0)
        not_before = _big()
        progress = DoubleField(default=0.0)
        message = _text()
        study_instance_uid = _text()
        created = _time()
        updated = _time()

    class Duty(Base):
        """The outbox, see :mod:`archive.outbox`. ``payload`` and ``progress``: JSON objects."""

        id = BigAutoField()
        receiver = TextField()
        kind = TextField()
        key = _text()
        payload = TextField(default="{}")
        state = TextField(default="waiting")
        holds = IntegerField(default=1)
        again = IntegerField(default=0)
        lease_owner = _text()
        lease_until = _big()
        attempts = IntegerField(default=0)
        not_before = _big()
        progress = TextField(default="{}")
        message = _text()
        created = _time()
        updated = _time()

    class Delivered(Base):
        """What receivers have confirmed, at which header revision."""

        receiver = TextField()
        sop_instance_uid = TextField()
        revision = IntegerField()
        time = _time()

        class Meta:
            primary_key = CompositeKey("receiver", "sop_instance_uid")

    class Quarantine(Base):
        """Bytes that could not be stored. ``file``: its name in the quarantine folder."""

        id = BigAutoField()
        name = _text()
        reason = _text()
        source = _text()
        size_bytes = _big()
        file = _text()
        digest = BlobField(null=True)
        sop_instance_uid = _text()
        resolved = _optional()
        created = _time()

    class WatchedFile(Base):
        """A file of a watched folder that was dealt with: never twice."""

        id = BigAutoField()
        folder = TextField()
        identity = TextField()
        digest = BlobField(null=True)
        outcome = _text()
        reason = _text()
        time = _time()

    class Setting(Base):
        """Small values that all processes share."""

        key = TextField(primary_key=True)
        value = _text()

    class AuditEvent(Base):
        """One audit event; append-only. ``event``: canonical JSON (sorted keys, no
        spaces, UTF-8); ``code``: DCM event ID (``110104``). Insert without ``seq`` and
        ``leaf_hash``: the sequencer fills them. Read by ``seq`` only."""

        id = BigAutoField()
        time = _time()
        code = _text()
        action = _text()
        outcome = _text()
        actor = _text()
        via = _text()
        address = _text()
        request_id = _text()
        study_instance_uid = _text()
        series_instance_uid = _text()
        sop_instance_uid = _text()
        protocol_study_id = _optional()
        event = TextField()
        salt = BlobField(default=_salt)
        seq = _optional()
        leaf_hash = BlobField(null=True)

    class Change(Base):
        """One line of the change feed; append-only, sequenced like audit events."""

        id = BigAutoField()
        time = _time()
        action = TextField()
        study_instance_uid = _text()
        series_instance_uid = _text()
        sop_instance_uid = _text()
        protocol_study_id = _optional()
        sensitivity = IntegerField(default=0)
        salt = BlobField(default=_salt)
        seq = _optional()
        leaf_hash = BlobField(null=True)

    return Models(
        ProtocolStudy=ProtocolStudy,
        Study=Study,
        Original=Original,
        Series=Series,
        Instance=Instance,
        Blob=Blob,
        BlobRef=BlobRef,
        InstanceBlob=InstanceBlob,
        HeaderRevision=HeaderRevision,
        Attribute=Attribute,
        NameSound=NameSound,
        Tombstone=Tombstone,
        Derivative=Derivative,
        Job=Job,
        Duty=Duty,
        Delivered=Delivered,
        Quarantine=Quarantine,
        WatchedFile=WatchedFile,
        Setting=Setting,
        AuditEvent=AuditEvent,
        Change=Change,
    )


def _salt() -> bytes:
    """16 random bytes, so that a leaf's hash does not give away the event."""
    return secrets.token_bytes(16)
