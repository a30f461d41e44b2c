# SPDX-License-Identifier: Apache-2.0
"""Born DICOM: the scanner's bytes under our headers."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from pydicom import Dataset

from archive.part10.codestream import sniff
from archive.part10.frame_table import FrameTable, Range
from converters.errors import MissingPixelSpacing
from converters.registry import open_slide
from converters.slide import Role, SourceFile
from converters.verify import entropy_coded
from converters.writer.born import DicomInstance, born_instances
from converters.writer.icc import srgb_profile
from converters.writer.metadata import read_metadata
from tests.support.converted import REAL, SECRET, SYNTHETIC, born, digest
from tests.support.make_slide import make_svs
from tests.support.require import require_data

GOLDEN = {
    "slides/svs/CMU-1-Small-Region.svs": "34c0d4dcbcf2fe6bd0fd5f0c47cefb46",
    "slides/svs/openslide-small.svs": "cfbdffb38dfa20fdf86de9924562a88d",
    "slides/synthetic/aperio_scanscope.svs": "0336002b7b22d0c6a78fec30bc249fe6",
}
"""First half of the SHA-256 over all header bytes. When one changes, raise WRITER_PROFILE: the UIDs must
change with the content."""


def frames(instance: DicomInstance) -> list[bytes]:
    table = FrameTable.from_bytes(instance.frame_table)
    blobs = [b if isinstance(b, bytes) else _bytes(b) for b in instance.blobs]
    result = []
    for index in range(table.count):
        parts = table.segments(index)
        result.append(
            b"".join(
                blobs[p.blob_index][p.offset : p.offset + p.length] if isinstance(p, Range) else p
                for p in parts
            )
        )
    return result


def _bytes(blob: SourceFile | Path) -> bytes:
    return (blob.path if isinstance(blob, SourceFile) else blob).read_bytes()


def header(instance: DicomInstance) -> Dataset:
    return pydicom.dcmread(io.BytesIO(instance.header))


def volumes(instances: list[DicomInstance]) -> list[DicomInstance]:
    """The levels that the scanner wrote, finest first."""
    found = (i for i in instances if i.role is Role.VOLUME and not i.computed)
    return sorted(found, key=lambda i: i.level)


def scanners_tiles(path: Path) -> list[list[bytes]]:
    """Every tile of every tiled page, read by tifffile, coarser pages later."""
    with tifffile.TiffFile(path) as tiff:
        result = []
        for page in tiff.pages:
            if page.is_tiled:
                tiles = []
                for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
                    tiff.filehandle.seek(offset)
                    tiles.append(tiff.filehandle.read(length))
                result.append(tiles)
    return result


@pytest.mark.parametrize("sample", REAL + SYNTHETIC)
def test_entropy_coded_data_are_the_scanners_tile_by_tile(sample: str) -> None:
    path = require_data(sample)
    levels = volumes(born(path))
    originals = scanners_tiles(path)
    assert len(levels) == len(originals)
    for instance, tiles in zip(levels, originals, strict=True):
        made = frames(instance)
        assert instance.born
        assert len(made) == len(tiles) == instance.number_of_frames
        for frame, tile in zip(made, tiles, strict=True):
            # everything after the tile's SOI is there unchanged, and at the end
            assert frame.endswith(tile[2:])
            assert frame[:2] == b"\xff\xd8" != frame[-len(tile) :][:2]  # one SOI
            assert entropy_coded(frame) == entropy_coded(tile) != b""


def test_jpeg_2000_tiles_are_the_scanners_whole(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", compression=33005)
    for instance, tiles in zip(volumes(born(path)), scanners_tiles(path), strict=True):
        assert frames(instance) == tiles
        assert instance.transfer_syntax_uid == "1.2.840.10008.1.2.4.91"
        assert header(instance).PhotometricInterpretation == "YBR_ICT"
        assert header(instance).LossyImageCompressionMethod == "ISO_15444_1"


@pytest.mark.parametrize("sample", list(GOLDEN))
def test_headers_are_the_bytes_of_this_writer_profile(sample: str) -> None:
    instances = born(require_data(sample))
    found = hashlib.sha256(b"".join(instance.header for instance in instances)).hexdigest()[:32]
    assert found == GOLDEN[sample]


def test_the_same_slide_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    first = make_svs(tmp_path / "first.svs", missing_tiles=(1,))
    second = tmp_path / "elsewhere.svs"
    second.write_bytes(first.read_bytes())
    os.utime(second, (1e9, 1e9))
    for one, other in zip(born(first), born(second), strict=True):
        assert one.header == other.header
        assert one.frame_table == other.frame_table


def test_uids_depend_on_the_secret_and_on_the_slide(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs")
    with open_slide(path) as slide:
        uids = []
        for secret, source in ((SECRET, digest(path)), (bytes(32), digest(path)), (SECRET, bytes(32))):
            made = born_instances(slide, source_digest=source, secret=secret)
            uids.append({i.sop_instance_uid for i in made} | {header(made[0]).StudyInstanceUID})
    assert uids[0].isdisjoint(uids[1])
    assert uids[0].isdisjoint(uids[2])
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for group in uids for uid in group)


def test_no_two_images_share_an_instance_uid_and_all_share_study_and_series() -> None:
    instances = born(require_data(SYNTHETIC[0]))
    headers = [header(instance) for instance in instances]
    assert len({h.SOPInstanceUID for h in headers}) == len(headers) == 6
    assert len({h.StudyInstanceUID for h in headers}) == 1
    assert len({h.SeriesInstanceUID for h in headers}) == 1
    assert sorted(int(h.InstanceNumber) for h in headers) == [1, 2, 3, 4, 5, 6]


def test_rgb_jpeg_without_an_adobe_marker_gets_one() -> None:
    (level,) = volumes(born(require_data(REAL[0])))
    stream = sniff(frames(level)[0][:2000])
    assert stream.adobe_transform == 0
    assert stream.has_tables
    assert header(level).PhotometricInterpretation == "RGB"


def test_ycbcr_jpeg_gets_no_marker_that_it_does_not_need(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", photometric="YCBCR", subsampling="422")
    level = volumes(born(path))[0]
    assert sniff(frames(level)[0][:2000]).adobe_transform is None
    assert header(level).PhotometricInterpretation == "YBR_FULL_422"


@pytest.mark.parametrize(
    ("options", "compression"),
    [
        ({"photometric": "RGB"}, 7),
        ({"photometric": "YCBCR", "subsampling": "420"}, 7),
        ({"photometric": "YCBCR", "subsampling": "422"}, 7),
        ({"photometric": "YCBCR", "subsampling": "444"}, 7),
        ({}, 33005),
    ],
)
def test_absent_tiles_are_white_in_a_codestream_like_their_levels(
    tmp_path: Path, options: dict[str, str], compression: int
) -> None:
    path = make_svs(tmp_path / "a.svs", compression=compression, missing_tiles=(0, 9), **options)  # type: ignore[arg-type]
    finest, coarse = volumes(born(path))
    made = frames(finest)
    blank, tile = sniff(made[0]), sniff(made[1][:2000])
    assert made[0] == made[9] == finest.blobs[1]
    for what in ("format", "rows", "columns", "components", "bits", "sampling", "mct", "reversible"):
        assert getattr(blank, what) == getattr(tile, what)
    assert blank.adobe_transform in (tile.adobe_transform, None)
    assert finest.absent_tiles == bytes((0b10000000, 0b01000000))
    assert coarse.absent_tiles == b""
    assert len(coarse.blobs) == 1


def test_a_header_says_what_the_slide_says() -> None:
    (level,) = volumes(born(require_data(REAL[0])))
    h = header(level)
    assert h.ImageType == ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    assert (h.Manufacturer, h.ManufacturerModelName, h.DeviceSerialNumber) == (
        "Aperio", "ScanScope", "CPAPERIOCS",
    )  # fmt: skip
    assert h.SoftwareVersions == "Aperio Image Library v11.2.1"
    assert h.AcquisitionDateTime == "20091229095915"
    assert "TimezoneOffsetFromUTC" not in h
    assert (h.TotalPixelMatrixRows, h.TotalPixelMatrixColumns) == (2967, 2220)
    assert (h.Rows, h.Columns, h.NumberOfFrames) == (240, 240, 130)
    assert h.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [0.000499, 0.000499]
    assert h.OpticalPathSequence[0].ObjectiveLensPower == 20
    assert h.LossyImageCompression == "01"
    assert float(h.LossyImageCompressionRatio) == pytest.approx(17.6, abs=1)
    assert h.file_meta.ImplementationVersionName == "COVERSLIP_P2"


def test_the_scanners_profile_is_carried_and_an_assumed_one_says_so() -> None:
    profile = header(volumes(born(require_data(SYNTHETIC[0])))[0]).OpticalPathSequence[0]
    with tifffile.TiffFile(require_data(SYNTHETIC[0])) as tiff:
        original = bytes(tiff.pages[0].tags[34675].value)
    assert profile.ICCProfile[128:] == original[128:]
    assert "OpticalPathDescription" not in profile
    assumed = header(volumes(born(require_data(REAL[0])))[0])
    assert assumed.OpticalPathSequence[0].ICCProfile == srgb_profile()
    assert "OpticalPathDescription" not in assumed.OpticalPathSequence[0]
    (ours,) = assumed.ContributingEquipmentSequence
    assert ours.ContributionDescription.endswith("assumed to be sRGB: the scanner gave no ICC profile")


def test_coarser_levels_are_derived_and_lie_in_the_same_frame_of_reference() -> None:
    headers = [header(instance) for instance in volumes(born(require_data(SYNTHETIC[0])))]
    assert [h.ImageType[3] for h in headers] == ["NONE", "RESAMPLED", "RESAMPLED"]
    assert len({h.FrameOfReferenceUID for h in headers}) == len({h.PyramidUID for h in headers}) == 1
    spacings = [h.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0] for h in headers]
    assert [float(s) for s in spacings] == pytest.approx([0.000499, 0.001996, 0.007984])


def test_label_and_overview_stand_alone_and_say_what_they_show() -> None:
    by_role = {instance.role: instance for instance in born(require_data(REAL[0]))}
    volume, thumbnail = header(by_role[Role.VOLUME]), header(by_role[Role.THUMBNAIL])
    label, overview = header(by_role[Role.LABEL]), header(by_role[Role.OVERVIEW])
    for alone in (label, overview):
        assert "PyramidUID" not in alone
        assert (alone.BurnedInAnnotation, alone.SpecimenLabelInImage) == ("YES", "YES")
    places = {h.FrameOfReferenceUID for h in (volume, label, overview)}
    assert len(places) == 3
    assert thumbnail.FrameOfReferenceUID == volume.FrameOfReferenceUID
    assert thumbnail.PyramidUID == volume.PyramidUID
    assert (volume.BurnedInAnnotation, volume.SpecimenLabelInImage) == ("NO", "NO")
    assert label.LabelText == label.BarcodeValue == ""
    assert "LabelText" not in overview


def test_the_label_stays_lossless_and_strips_keep_their_lossy_history() -> None:
    by_role = {instance.role: instance for instance in born(require_data(REAL[0]))}
    assert header(by_role[Role.LABEL]).LossyImageCompression == "00"
    for role in (Role.OVERVIEW, Role.THUMBNAIL):
        h = header(by_role[role])
        assert h.LossyImageCompressionMethod == "ISO_10918_1"
        assert float(h.LossyImageCompressionRatio) > 2


def test_large_pictures_are_compressed_without_loss(tmp_path: Path) -> None:
    big = np.random.default_rng(1).integers(0, 256, (1300, 1300, 3), dtype=np.uint8)
    path = make_svs(tmp_path / "a.svs", label=big)
    label = next(i for i in born(path) if i.role is Role.LABEL)
    assert label.transfer_syntax_uid == "1.2.840.10008.1.2.4.90"
    assert sniff(frames(label)[0][:4096]).reversible is True


def test_vendor_text_gets_into_no_header(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "canary.svs", extra=[("User", "CANARY"), ("Title", "CANARY")])
    for instance in born(path):
        for word in (b"CANARY", b"canary", b"Filtered", b"StripeWidth", b"AppMag"):
            assert word not in instance.header


def test_without_mpp_the_slide_is_refused_until_somebody_tells_the_pixel_size(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", mpp=None)
    with pytest.raises(MissingPixelSpacing, match=r"give it in the metadata as \{"):
        born(path)
    given = read_metadata({"pixel_spacing_mm": [0.0005, 0.00025]})
    measures = [
        header(i).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        for i in volumes(born(path, given))
    ]
    assert [[float(v) for v in m.PixelSpacing] for m in measures] == [[0.0005, 0.00025], [0.002, 0.001]]


def test_an_unknown_time_is_the_files_and_marked(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", scanned=None)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    h = header(born(path)[0])
    assert h.AcquisitionDateTime == "20231114221320+0000"
    assert h.AcquisitionDeviceProcessingDescription == "Acquisition time unknown: file time used"


def test_unknown_identifiers_are_eight_digits_of_the_digest(tmp_path: Path) -> None:
    h = header(born(make_svs(tmp_path / "a.svs"))[0])
    assert h.ContainerIdentifier.startswith("UNKNOWN-")
    assert len(h.ContainerIdentifier) == 16
    assert h.ContainerIdentifier == h.PatientID == h.SpecimenDescriptionSequence[0].SpecimenIdentifier


def test_the_barcode_names_the_container(tmp_path: Path) -> None:
    instances = born(make_svs(tmp_path / "a.svs", barcode="S26-1234;A1"))
    label = next(header(i) for i in instances if i.role is Role.LABEL)
    assert label.BarcodeValue == "S26-1234;A1"
    assert {header(i).ContainerIdentifier for i in instances} == {"S26-1234;A1"}


def test_levels_can_be_chosen_and_are_then_the_same_as_in_the_whole(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", levels=(1, 2, 4))
    everything = {i.sop_instance_uid: i.header for i in born(path)}
    chosen = born(path, levels=(2, 1))
    assert [i.level for i in chosen] == [2, 1]
    assert all(everything[i.sop_instance_uid] == i.header for i in chosen)
    only_others = born(path, levels=(), associated=True)
    assert [i.role for i in only_others] == [Role.THUMBNAIL, Role.LABEL, Role.OVERVIEW]
