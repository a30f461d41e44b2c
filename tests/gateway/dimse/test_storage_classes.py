# SPDX-License-Identifier: Apache-2.0
"""Which storage SOP classes are taken, and that an operator may say so."""

import io
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, build_context
from pynetdicom.presentation import PresentationContext

from archive.service import Archive
from gateway.dimse.composition import services
from gateway.dimse.negotiation import negotiate
from gateway.dimse.rights import ALL_RIGHTS
from gateway.dimse.storage_classes import storage_classes
from gateway.settings import DimseSettings, SettingsError
from tests.gateway.dimse.running import AE_TITLE, running
from tests.support.instances import WSI, make_instance

ANNOTATIONS = "1.2.840.10008.5.1.4.1.1.91.1"
PRIVATE = "1.2.276.0.7230010.3.99"
PATHOLOGY = [
    "VLWholeSlideMicroscopyImageStorage",
    "MicroscopyBulkSimpleAnnotationsStorage",
    "SegmentationStorage",
    "LabelMapSegmentationStorage",
    "BasicTextSRStorage",
    "EnhancedSRStorage",
    "ComprehensiveSRStorage",
    "Comprehensive3DSRStorage",
    "ParametricMapStorage",
    "KeyObjectSelectionDocumentStorage",
    "GrayscaleSoftcopyPresentationStateStorage",
    "ColorSoftcopyPresentationStateStorage",
    "PseudoColorSoftcopyPresentationStateStorage",
    "BlendingSoftcopyPresentationStateStorage",
    "AdvancedBlendingPresentationStateStorage",
    "EncapsulatedPDFStorage",
    "VLPhotographicImageStorage",
    "VLMicroscopicImageStorage",
    "VLSlideCoordinatesMicroscopicImageStorage",
    "ConfocalMicroscopyImageStorage",
    "ConfocalMicroscopyTiledPyramidalImageStorage",
    "SecondaryCaptureImageStorage",
    "MultiFrameTrueColorSecondaryCaptureImageStorage",
]


@pytest.mark.parametrize("keyword", PATHOLOGY)
def test_every_class_that_pathology_uses_can_be_named_and_is_taken_unasked(keyword: str) -> None:
    named = storage_classes([keyword])
    uids = [uid for uid in KNOWN if named(uid)]
    assert len(uids) == 1
    assert storage_classes(DimseSettings().sop_classes)(uids[0])


KNOWN = [uid for uid in pydicom._uid_dict.UID_dictionary if uid.startswith("1.2.840.10008.5.1.4.")] + [
    "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.77.1.8",
    "1.2.840.10008.5.1.4.1.1.77.1.9",
]
KNOWN = sorted(set(KNOWN))


def test_private_and_standard_classes_are_taken_apart() -> None:
    assert [storage_classes(["private"])(uid) for uid in (PRIVATE, WSI)] == [True, False]
    assert [storage_classes(["standard"])(uid) for uid in (PRIVATE, WSI)] == [False, True]
    only = storage_classes([PRIVATE, WSI])
    assert [only(uid) for uid in (PRIVATE, f"{PRIVATE}.1", WSI, ANNOTATIONS)] == [True, False, True, False]


@pytest.mark.parametrize(
    "name", ["VLWholeSlideMicroscopyImage", "verification", "1.2.840.10008.1.1", "1..2", "", "Verification"]
)
def test_what_is_no_storage_class_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(SettingsError, match=r"dimse\.sop_classes: "):
        services(DimseSettings(sop_classes=(name,)))


def test_a_class_that_is_not_named_is_refused_in_negotiation() -> None:
    proposed: list[PresentationContext] = [build_context(ANNOTATIONS), build_context(WSI)]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    only = services(DimseSettings(sop_classes=("VLWholeSlideMicroscopyImageStorage",)))
    assert [answer.result for answer in negotiate(proposed, only, ALL_RIGHTS)] == [3, 0]


@pytest.mark.parametrize("named", [ANNOTATIONS, "1.2.840.10008.1.3.10", PRIVATE])
def test_a_class_that_is_not_taken_is_0122_whatever_context_it_comes_by(
    archive: Archive, tmp_path: Path, named: str
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(make_instance()))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = named
    entity = AE("SCANNER1")
    entity.add_requested_context(WSI, [JPEGBaseline8Bit, ExplicitVRLittleEndian])
    with running(archive, DimseSettings(sop_classes=(WSI,))) as scp:
        association = entity.associate("127.0.0.1", scp.port, ae_title=AE_TITLE)
        # The library sends an instance in a context of its class only: of that name, then.
        association._accepted_cx[1].abstract_syntax = named
        assert association.send_c_store(dataset).Status == 0x0122
        association.release()
    assert list((tmp_path / "data" / "spool").iterdir()) == []
