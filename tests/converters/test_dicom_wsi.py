# SPDX-License-Identifier: Apache-2.0
"""DICOM from scanners: refused by name, or made anew with equal frames and all that was known."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import generate_frames
from wsidicom import WsiDicom

from converters.convert import Converted, ConvertOptions, convert, inspect
from converters.errors import (
    ConversionError,
    DamagedSlide,
    MissingCompanion,
    MissingPixelSpacing,
    UnreadableSlide,
    UnsupportedPixels,
)
from converters.readers.dicom_series import once_per_series
from converters.registry import companions, open_slide
from converters.slide import GatherMap, PixelTiles, Role, TileMap
from converters.workshop import Limits, Workshop
from converters.writer.metadata import read_metadata
from tests.support.level_pixels import tile_bytes
from tests.support.make_slide import JPEG2000_RGB, make_svs, picture
from tests.support.require import require_data, require_tool
from tests.support.slides import dicom_wsi as drawn

SAMPLES = "slides/dicom-wsi"
EXPECTED: dict[str, tuple[str, int, int, int]] = {
    # kind of the levels' frames in the source; levels copied, encoded again, computed
    "google_camelyon_jpeg.dcm": ("jpeg", 1, 0, 3),
    "google_test_jpeg_dicom.dcm": ("jpeg", 1, 0, 0),
    "google_wsi2dcm_jpeg.dcm": ("jpeg", 1, 0, 2),
    "google_wsi2dcm_jpeg2000.dcm": ("jpeg2000", 1, 0, 2),
    "google_wsi2dcm_raw.dcm": ("native", 0, 1, 2),
    "highdicom_sm_image.dcm": ("native", 0, 1, 3),
    "highdicom_sm_image_control.dcm": ("native", 0, 1, 3),
    "highdicom_sm_image_dots.dcm": ("native", 0, 1, 3),
    "highdicom_sm_image_grayscale.dcm": ("native", 0, 1, 3),
    "highdicom_sm_image_jpegls.dcm": ("jpegls", 1, 0, 3),
    "highdicom_sm_image_jpegls_nobot.dcm": ("jpegls", 1, 0, 3),
    "highdicom_sm_image_numbers.dcm": ("native", 0, 1, 3),
    "openslide_boxes_0.dcm": ("jpeg", 1, 0, 0),
    "openslide_boxes_1.dcm": ("jpeg", 1, 0, 0),
    "panimg_full_no_bot.dcm": ("jpeg", 1, 0, 0),
    "panimg_full_with_bot.dcm": ("jpeg", 1, 0, 0),
    "panimg_sparse_no_bot.dcm": ("jpeg", 1, 0, 0),
    "panimg_sparse_with_bot.dcm": ("jpeg", 1, 0, 0),
}
REFUSED = {
    "google_test_slide_coordinates.dcm": "VL Slide-Coordinates Microscopic Image Storage",
    "highdicom_seg_image_sm_dots_tiled_full.dcm": "Segmentation Storage",
    "highdicom_sm_annotations.dcm": "Microscopy Bulk Simple Annotations Storage",
    "libvips_dicom_test_image.dcm": "Nuclear Medicine Image Storage",
    "google_test_wsi2.dcm": "an image of 1 tiles has 13 frames",
}


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with Workshop(Limits(processes=1)) as made:
        yield made


def made_anew(path: Path, out: Path, workshop: Workshop, **options: object) -> Converted:
    (made,) = convert([path], out, ConvertOptions(verify=True, **options), workshop=workshop)  # type: ignore[arg-type]
    return made


def headers(made: Converted) -> dict[str, Dataset]:
    return {path.stem: pydicom.dcmread(path) for path in made.files}


def frames_of(dataset: Dataset) -> list[bytes]:
    """Encapsulated frames, without the byte that pads them."""
    found = generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames))
    return [frame[: frame.rindex(b"\xff\xd9") + 2] for frame in found]


def complaints(path: Path) -> list[str]:
    done = subprocess.run([require_tool("dciodvfy"), str(path)], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.write_dicom_wsi(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def anew(series: Path, tmp_path_factory: pytest.TempPathFactory, workshop: Workshop) -> Converted:
    return made_anew(series, tmp_path_factory.mktemp("anew"), workshop)


# ---- samples ------------------------------------------------------------------------------


def test_every_sample_has_an_expected_outcome() -> None:
    assert {path.name for path in require_data(SAMPLES).glob("*.dcm")} == {*EXPECTED, *REFUSED}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_sample_is_made_anew_with_equal_frames(name: str, tmp_path: Path, workshop: Workshop) -> None:
    kind, copied, again, computed = EXPECTED[name]
    source = require_data(f"{SAMPLES}/{name}")
    made = made_anew(source, tmp_path, workshop)
    levels = [one for one in made.instances if one.role is Role.VOLUME]
    assert sum(one.born for one in levels) == copied
    assert sum(one.computed for one in levels) == computed
    assert sum(not one.born and not one.computed for one in levels) == again
    for path in made.files:
        assert complaints(path) == []
    received = pydicom.dcmread(source)
    if received.ImageType[2] != "VOLUME":
        received = pydicom.dcmread(source.with_name("openslide_boxes_0.dcm"))
    written = headers(made)["level-0"]
    if kind == "native":
        assert np.array_equal(written.pixel_array, received.pixel_array)
    else:
        assert frames_of(written) == frames_of(received)
    assert written.StudyInstanceUID == received.StudyInstanceUID
    assert written.SOPInstanceUID != received.SOPInstanceUID
    with WsiDicom.open(tmp_path / source.stem) as peer:
        size = peer.size
        assert (size.height, size.width) == (received.TotalPixelMatrixRows, received.TotalPixelMatrixColumns)


@pytest.mark.parametrize("name", REFUSED)
def test_other_dicom_is_refused_by_name_in_one_line(name: str, tmp_path: Path, workshop: Workshop) -> None:
    with pytest.raises(ConversionError) as refusal:
        made_anew(require_data(f"{SAMPLES}/{name}"), tmp_path / "out", workshop)
    assert str(refusal.value).endswith(REFUSED[name])
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


# ---- what survives ------------------------------------------------------------------------


def test_a_series_keeps_all_of_its_images(series: Path, anew: Converted) -> None:
    assert [path.name for path in anew.files] == [
        "level-2.dcm", "level-1.dcm", "level-0.dcm", "thumbnail.dcm", "label.dcm", "overview.dcm"
    ]  # fmt: skip
    others = [one for one in anew.instances if not one.born]
    assert [one.role for one in others] == [Role.VOLUME, Role.THUMBNAIL, Role.LABEL]
    assert others[0].computed
    for name in ("level-0", "level-1"):
        received = pydicom.dcmread(series.with_name(f"{name.replace('-', '')}.dcm"))
        assert frames_of(headers(anew)[name]) == frames_of(received)
    label = headers(anew)["label"]
    assert np.array_equal(label.pixel_array, picture(60, 80, seed=8))
    assert all(complaints(path) == [] for path in anew.files)


def test_openslide_and_wsidicom_see_the_pixels_of_the_received_series(series: Path, anew: Converted) -> None:
    with WsiDicom.open(series.parent) as received, WsiDicom.open(anew.folder) as written:
        assert received.size == written.size
        assert len(written.levels) == 3
        before, after = (np.asarray(one.read_region((0, 0), 0, (500, 300))) for one in (received, written))
        assert np.array_equal(before, after)
    with openslide.OpenSlide(anew.folder / "level-0.dcm") as peer:
        assert peer.level_dimensions == ((500, 300), (250, 150), (125, 75))
        assert {"label", "macro", "thumbnail"} <= set(peer.associated_images)
        pixels = np.asarray(peer.read_region((0, 0), 0, (500, 300)).convert("RGB"), dtype=int)
        assert np.abs(pixels - picture(300, 500)).mean() < 3


@pytest.mark.parametrize("name", ["level-0", "level-1", "thumbnail", "label", "overview"])
def test_patient_study_and_specimen_stay(anew: Converted, name: str) -> None:
    written = headers(anew)[name]
    assert str(written.PatientName) == "Müller^Jörg"
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert (written.PatientID, written.PatientBirthDate, written.PatientSex) == ("P-17", "19500102", "M")
    assert written.ClinicalTrialProtocolID == "TRIAL-9"
    assert (written.StudyInstanceUID, written.StudyID) == (drawn.STUDY, "S-1")
    assert (written.StudyDate, written.StudyTime, written.AccessionNumber) == ("20260102", "030405", "A-26-1")
    assert written.ContainerIdentifier == "A-26-1 1-1"
    (specimen,) = written.SpecimenDescriptionSequence
    assert (specimen.SpecimenIdentifier, specimen.SpecimenUID) == ("A-26-1 1", drawn.SPECIMEN)
    assert list(specimen.IssuerOfTheSpecimenIdentifierSequence) == []
    step = specimen.SpecimenPreparationSequence[0].SpecimenPreparationStepContentItemSequence[0]
    assert step.TextValue == "Spezialfärbung"


def test_scanner_place_time_and_optical_path_stay(anew: Converted) -> None:
    written = headers(anew)["level-0"]
    assert (written.Manufacturer, written.ManufacturerModelName) == ("Leica Biosystems", "GT450 DX")
    assert (written.DeviceSerialNumber, list(written.SoftwareVersions)) == ("SN-450", ["1.2", "3.4"])
    assert written.AcquisitionDateTime == "20260102030405.250000+0100"
    origin = written.TotalPixelMatrixOriginSequence[0]
    assert (origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem) == (20.5, 41.25)
    assert written.FrameOfReferenceUID == drawn.FRAME_OF_REFERENCE
    assert written.ImagedVolumeDepth == 2.5
    (path,) = written.OpticalPathSequence
    received = drawn.srgb_profile()
    assert path.OpticalPathIdentifier == "HE"
    assert path.ICCProfile[128 : len(received)] == received[128:]  # in the head is the device's class
    assert (path.ObjectiveLensPower, path.ObjectiveLensNumericalAperture) == (40, 0.75)
    shared = written.SharedFunctionalGroupsSequence[0]
    assert shared.OpticalPathIdentificationSequence[0].OpticalPathIdentifier == "HE"
    assert shared.PixelMeasuresSequence[0].SliceThickness == 0.0025
    assert list(shared.WholeSlideMicroscopyImageFrameTypeSequence[0].FrameType) == list(written.ImageType)
    assert written.ContributingEquipmentSequence[-1].Manufacturer == "Coverslip"


def test_label_and_overview_have_frames_of_reference_of_their_own(anew: Converted) -> None:
    found = {name: one.FrameOfReferenceUID for name, one in headers(anew).items()}
    assert found["level-0"] == found["level-1"] == found["thumbnail"] == drawn.FRAME_OF_REFERENCE
    assert len({found["level-0"], found["label"], found["overview"]}) == 3
    label = headers(anew)["label"]
    assert (label.LabelText, label.BarcodeValue) == ("A-26-1 1", "4711")
    assert "BarcodeValue" not in headers(anew)["level-0"]
    assert list(label.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) == [0.1, 0.1]


def test_images_that_contradict_the_finest_level_follow_it(tmp_path: Path, workshop: Workshop) -> None:
    def other(header: Dataset) -> None:
        header.PatientID, header.FrameOfReferenceUID = "SOMEBODY", "1.2.3"

    main = drawn.write_image(tmp_path / "0.dcm", picture(200, 300))
    drawn.write_image(tmp_path / "1.dcm", picture(100, 150), number=2, change=other)
    written = headers(made_anew(main, tmp_path / "out", workshop))
    assert {one.PatientID for one in written.values()} == {"P-17"}
    assert {one.FrameOfReferenceUID for one in written.values()} == {drawn.FRAME_OF_REFERENCE}


def test_new_instances_name_those_that_they_are_made_from(series: Path, anew: Converted) -> None:
    for name, received in (("level-0", "level0"), ("label", "label"), ("thumbnail", "thumbnail")):
        written, source = headers(anew)[name], pydicom.dcmread(series.with_name(f"{received}.dcm"))
        assert written.SeriesInstanceUID != source.SeriesInstanceUID
        assert written.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        (referenced,) = written.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
        assert [one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence] == [
            source.SOPInstanceUID
        ]


def test_private_elements_are_not_carried_and_inspect_says_so(series: Path, anew: Converted) -> None:
    assert not any(element.tag.is_private for element in headers(anew)["level-0"])
    found = inspect(series)
    assert found.problem == ""
    assert "(0011,1001)" in found.lost
    assert found.label_text == "A-26-1 1"
    assert found.acquired == "2026-01-02T03:04:05.250000+01:00"


def test_what_the_operator_says_goes_over_what_was_received(
    series: Path, tmp_path: Path, workshop: Workshop
) -> None:
    given = read_metadata(
        {"patient": {"identifier": "P-18"}, "slide": {"identifier": "OTHER"}, "study": {"uid": "2.25.77"}}
    )
    written = headers(made_anew(series, tmp_path, workshop, metadata=given))["level-0"]
    assert (written.PatientID, str(written.PatientName)) == ("P-18", "Müller^Jörg")
    assert written.ContainerIdentifier == "OTHER"
    assert written.StudyInstanceUID == "2.25.77"
    assert "ReferencedSeriesSequence" not in written
    (other,) = written.StudiesContainingOtherReferencedInstancesSequence
    assert other.StudyInstanceUID == drawn.STUDY


def test_it_makes_no_difference_which_file_of_a_series_is_named(
    series: Path, anew: Converted, tmp_path: Path, workshop: Workshop
) -> None:
    again = made_anew(series.with_name("label.dcm"), tmp_path, workshop)
    assert [path.read_bytes() for path in again.files] == [path.read_bytes() for path in anew.files]


@pytest.mark.parametrize("compression", [7, JPEG2000_RGB])
def test_a_converted_svs_made_anew_has_equal_frames(
    compression: int, tmp_path: Path, workshop: Workshop
) -> None:
    svs = make_svs(tmp_path / "slide.svs", compression=compression, icc=True)
    first = made_anew(svs, tmp_path / "first", workshop)
    second = made_anew(first.folder / "level-0.dcm", tmp_path / "second", workshop)
    one, other = headers(first), headers(second)
    assert one.keys() == other.keys()
    for name, received in one.items():
        written = other[name]
        assert written.file_meta.TransferSyntaxUID == received.file_meta.TransferSyntaxUID
        assert list(written.ImageType) == list(received.ImageType)
        assert written.PhotometricInterpretation == received.PhotometricInterpretation
        assert written.get("LossyImageCompressionMethod") == received.get("LossyImageCompressionMethod")
        if name.startswith("level"):
            assert written.PixelData == received.PixelData
    assert not any(one.computed for one in second.instances)


# ---- forms that are met -----------------------------------------------------------------


def test_parts_of_a_concatenation_are_joined(tmp_path: Path, workshop: Workshop) -> None:
    main = drawn.write_concatenation(tmp_path)
    assert sorted(companions(main)) == ["part2.dcm", "part3.dcm"]
    made = made_anew(main, tmp_path / "out", workshop)
    written = headers(made)["level-0"]
    received = [frame for n in (1, 2, 3) for frame in frames_of(pydicom.dcmread(tmp_path / f"part{n}.dcm"))]
    assert frames_of(written) == received
    assert "ConcatenationUID" not in written
    assert len(written.SourceImageSequence) == 3
    (tmp_path / "part2.dcm").unlink()
    with pytest.raises(MissingCompanion, match="part 2 of 3 of a concatenation"):
        open_slide(main)


def test_our_own_concatenation_is_joined_again(tmp_path: Path, workshop: Workshop) -> None:
    from converters.writer.concatenation import PartLimit

    svs = make_svs(tmp_path / "slide.svs", levels=(1,))
    whole = headers(made_anew(svs, tmp_path / "whole", workshop))["level-0"]
    parts = made_anew(svs, tmp_path / "parts", workshop, part_limit=PartLimit(5, 0))
    assert any("part-2" in path.name for path in parts.files)
    again = headers(made_anew(parts.folder / "level-0-part-1.dcm", tmp_path / "again", workshop))["level-0"]
    assert frames_of(again) == frames_of(whole)


def test_a_sparse_level_stays_sparse(tmp_path: Path, workshop: Workshop) -> None:
    path = drawn.write_sparse(tmp_path)
    with open_slide(path) as slide:
        assert np.flatnonzero(~slide.scenes[0].levels[0].tiles.absent).tolist() == [1, 5, 6]
    written = headers(made_anew(path, tmp_path / "out", workshop))["level-0"]
    assert written.DimensionOrganizationType == "TILED_SPARSE"
    assert frames_of(written) == frames_of(pydicom.dcmread(path))
    places = [
        (
            frame.PlanePositionSlideSequence[0].RowPositionInTotalImagePixelMatrix,
            frame.PlanePositionSlideSequence[0].ColumnPositionInTotalImagePixelMatrix,
        )
        for frame in written.PerFrameFunctionalGroupsSequence
    ]
    assert places == [(1, 129), (129, 129), (129, 257)]


@pytest.mark.parametrize("offsets", ["right", "absent", "wrong"])
def test_offset_tables_are_claims_only(offsets: str, tmp_path: Path) -> None:
    path = drawn.write_image(tmp_path / "image.dcm", picture(200, 300), offsets=offsets)
    expected = [drawn.jpeg_frame(one) for one in drawn.cut(picture(200, 300), 128)]
    with open_slide(path) as slide:
        (level,) = slide.scenes[0].levels
        assert isinstance(level.tiles, TileMap)
        assert [tile_bytes(slide, level, at) for at in range(6)] == expected
        assert any("offset table" in line for line in slide.findings) == (offsets == "wrong")


@pytest.mark.parametrize("offsets", ["right", "absent"])
def test_frames_of_several_fragments_are_gathered(offsets: str, tmp_path: Path, workshop: Workshop) -> None:
    path = drawn.write_image(tmp_path / "image.dcm", picture(200, 300), fragments=3, offsets=offsets)
    expected = [drawn.jpeg_frame(one) for one in drawn.cut(picture(200, 300), 128)]
    with open_slide(path) as slide:
        assert isinstance(slide.scenes[0].levels[0].tiles, GatherMap)
    assert frames_of(headers(made_anew(path, tmp_path / "out", workshop))["level-0"]) == expected


@pytest.mark.parametrize(
    ("syntax", "tiles"),
    [
        (drawn.NATIVE, PixelTiles),
        (drawn.RLE, PixelTiles),
        (drawn.JPEG_LS, TileMap),
        (drawn.J2K, TileMap),
        (drawn.HTJ2K, TileMap),
    ],
)
def test_frames_without_loss_give_their_pixels(
    syntax: str, tiles: type, tmp_path: Path, workshop: Workshop
) -> None:
    pixels = picture(200, 300)
    path = drawn.write_image(tmp_path / "image.dcm", pixels, transfer_syntax_uid=syntax)
    with open_slide(path) as slide:
        assert isinstance(slide.scenes[0].levels[0].tiles, tiles)
    made = made_anew(path, tmp_path / "out", workshop)
    written = headers(made)["level-0"]
    assert written.LossyImageCompression == "00"
    if tiles is TileMap:
        assert written.file_meta.TransferSyntaxUID == syntax
    with open_slide(made.files[-1]) as slide:
        level = slide.scenes[0].levels[0]
        assert (level.rows, level.columns) == (200, 300)
    decoded = list(written.pixel_array) if syntax != drawn.HTJ2K else []
    for frame, tile in zip(decoded, drawn.cut(pixels, 128), strict=False):
        assert np.array_equal(frame, tile)


def test_sixteen_bits_and_channels_in_files_of_their_own_become_one_level(
    tmp_path: Path, workshop: Workshop
) -> None:
    channels = [picture(200, 300, seed)[..., :1].astype(np.uint16) * 250 for seed in (1, 2)]
    for number, (name, pixels) in enumerate(zip(("DAPI", "FITC"), channels, strict=True), 1):

        def named(header: Dataset, name: str = name) -> None:
            header.OpticalPathSequence[0].OpticalPathIdentifier = name
            header.OpticalPathSequence[0].OpticalPathDescription = name

        frames = [drawn.frame_of(one, drawn.J2K) for one in drawn.cut(pixels, 128)]
        drawn.write_image(
            tmp_path / f"{name}.dcm", pixels, number=number, frames=frames, channels=[name], change=named,
            transfer_syntax_uid=drawn.J2K,
        )  # fmt: skip
    with open_slide(tmp_path / "DAPI.dcm") as slide:
        (scene,) = slide.scenes
        assert [path.identifier for path in scene.optical_paths] == ["DAPI", "FITC"]
        assert len(scene.levels[0].tiles) == 12
    written = headers(made_anew(tmp_path / "DAPI.dcm", tmp_path / "out", workshop))["level-0"]
    assert [path.OpticalPathDescription for path in written.OpticalPathSequence] == ["DAPI", "FITC"]
    assert written.NumberOfFrames == 12
    for at, (frame, tile) in enumerate(
        zip(written.pixel_array, [one for c in channels for one in drawn.cut(c, 128)], strict=True)
    ):
        assert np.array_equal(frame, tile[..., 0]), at


def test_focal_planes_keep_their_heights(tmp_path: Path) -> None:
    planes = [picture(200, 300, seed) for seed in (1, 2, 3)]

    def stacked(header: Dataset) -> None:
        header.TotalPixelMatrixFocalPlanes = 3
        header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = "0.0015"

    frames = [drawn.jpeg_frame(one) for plane in planes for one in drawn.cut(plane, 128)]
    path = drawn.write_image(tmp_path / "stack.dcm", planes[0], frames=frames, change=stacked)
    with open_slide(path) as slide:
        (scene,) = slide.scenes
        assert list(scene.focal_planes_um) == pytest.approx([0, 1.5, 3.0])
        level = scene.levels[0]
        assert level.focal_planes == 3
        assert tile_bytes(slide, level, level.frame_index(0, 2, 0, 1)) == frames[13]


def test_a_dicom_file_with_a_tiff_header_in_its_preamble_is_dicom(tmp_path: Path, workshop: Workshop) -> None:
    svs = make_svs(tmp_path / "slide.svs")
    dual = made_anew(svs, tmp_path / "dual", workshop, dual_tiff=True)
    level = dual.folder / "level-0.dcm"
    assert level.read_bytes()[:4] in (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
    found = inspect(level)
    assert [name for name, why in found.refusals.items() if why is None] == ["dicom-wsi"]
    again = headers(made_anew(level, tmp_path / "again", workshop))["level-0"]
    assert frames_of(again) == frames_of(pydicom.dcmread(level))


# ---- headers that are wrong or say little -------------------------------------------------


def without(*keywords: str) -> Callable[[Dataset], None]:
    def change(header: Dataset) -> None:
        for keyword in keywords:
            del header[keyword]

    return change


def test_colours_are_the_codestreams(tmp_path: Path, workshop: Workshop) -> None:
    """JPEG 2000 with a component transformation that the header calls RGB."""

    def wrong(header: Dataset) -> None:
        header.PhotometricInterpretation = "RGB"

    path = drawn.write_image(
        tmp_path / "image.dcm", picture(200, 300), transfer_syntax_uid=drawn.J2K, change=wrong
    )
    made = made_anew(path, tmp_path / "out", workshop)
    assert headers(made)["level-0"].PhotometricInterpretation == "YBR_RCT"
    assert "the frames are YBR_RCT, Photometric Interpretation says something else" in made.findings


@pytest.mark.parametrize(
    ("said", "adobe"), [("RGB", b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\0"), ("YBR_FULL_422", b"")]
)
def test_a_jpeg_that_does_not_say_its_colours_has_those_of_the_header(
    said: str, adobe: bytes, tmp_path: Path, workshop: Workshop
) -> None:
    def stated(header: Dataset) -> None:
        header.PhotometricInterpretation = said

    path = drawn.write_image(tmp_path / "image.dcm", picture(200, 300), change=stated)
    written = headers(made_anew(path, tmp_path / "out", workshop))["level-0"]
    assert written.PhotometricInterpretation == said
    frame = drawn.jpeg_frame(drawn.cut(picture(200, 300), 128)[0])
    assert frames_of(written)[0] == frame[:2] + adobe + frame[2:]


def test_what_is_missing_is_derived_or_left_unknown(tmp_path: Path, workshop: Workshop) -> None:
    bare = without(
        "ImageType", "FrameOfReferenceUID", "OpticalPathSequence", "NumberOfOpticalPaths", "PatientID",
        "DimensionOrganizationType", "ImageOrientationSlide", "SpecimenDescriptionSequence", "Manufacturer",
    )  # fmt: skip
    path = drawn.write_image(tmp_path / "image.dcm", picture(200, 300), change=bare)
    made = made_anew(path, tmp_path / "out", workshop)
    written = headers(made)["level-0"]
    assert list(written.ImageType) == ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    assert written.PatientID.startswith("UNKNOWN-")
    assert written.Manufacturer == "Unknown"
    assert written.OpticalPathSequence[0].ICCProfile
    assert complaints(made.files[-1]) == []
    for line in (
        "ImageType (Type 1) is missing",
        "an image that does not say what it shows: taken for VOLUME",
        "frames that do not say where they lie: taken for TILED_FULL",
    ):
        assert line in made.findings


def test_a_value_that_its_kind_does_not_allow_is_left_out_and_named(
    tmp_path: Path, workshop: Workshop
) -> None:
    path = drawn.write_one_image(tmp_path)
    data = path.read_bytes()
    assert data.count(b"19500102") == 1
    path.write_bytes(data.replace(b"19500102", b"195O01O2"))
    made = made_anew(path, tmp_path / "out", workshop)
    assert headers(made)["level-0"].PatientBirthDate == ""
    assert "PatientBirthDate is not valid: left out" in made.findings


def test_the_pixel_size_is_asked_for_where_nothing_says_it(tmp_path: Path, workshop: Workshop) -> None:
    def no_size(header: Dataset) -> None:
        del header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        del header.ImagedVolumeWidth

    path = drawn.write_image(tmp_path / "image.dcm", picture(200, 300), change=no_size)
    with pytest.raises(MissingPixelSpacing):
        made_anew(path, tmp_path / "out", workshop)


def test_the_pixel_size_follows_from_the_imaged_volume(tmp_path: Path) -> None:
    path = drawn.write_image(
        tmp_path / "image.dcm", picture(200, 300), change=without("SharedFunctionalGroupsSequence")
    )
    with open_slide(path) as slide:
        assert slide.scenes[0].levels[0].pixel_spacing_mm == pytest.approx((0.0005, 0.0005))
        assert any("taken from the size of the imaged volume" in line for line in slide.findings)


def test_losses_of_before_are_remembered(tmp_path: Path, workshop: Workshop) -> None:
    def history(header: Dataset) -> None:
        header.LossyImageCompression = "01"
        header.LossyImageCompressionMethod = ["ISO_15444_1", "ISO_10918_1"]
        header.LossyImageCompressionRatio = ["8", "12.5"]

    kept = drawn.write_image(tmp_path / "jpeg.dcm", picture(200, 300), change=history)
    written = headers(made_anew(kept, tmp_path / "one", workshop))["level-0"]
    assert list(written.LossyImageCompressionMethod) == ["ISO_15444_1", "ISO_10918_1"]
    assert written.LossyImageCompressionRatio[0] == 8
    kept.unlink()
    plain = drawn.write_image(
        tmp_path / "plain.dcm", picture(200, 300), transfer_syntax_uid=drawn.NATIVE, change=history
    )
    written = headers(made_anew(plain, tmp_path / "other", workshop))["level-0"]
    assert list(written.LossyImageCompressionMethod) == ["ISO_15444_1", "ISO_10918_1"]


# ---- series and folders -----------------------------------------------------------------


def test_a_folder_of_files_gives_each_series_once(series: Path, tmp_path: Path) -> None:
    for path in series.parent.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "notes.txt").write_text("no DICOM")
    other = drawn.write_image(
        tmp_path / "other.dcm",
        picture(64, 64),
        change=lambda header: setattr(header, "SeriesInstanceUID", "1.9"),
    )
    found = once_per_series(sorted(tmp_path.iterdir()))
    assert sorted(path.name for path in found) == ["level0.dcm", "notes.txt", other.name]
    assert sorted(companions(series)) == ["label.dcm", "level1.dcm", "overview.dcm", "thumbnail.dcm"]


def test_two_pyramids_are_two_regions(tmp_path: Path) -> None:
    for number, uid in enumerate(("1.2.1", "1.2.2"), 1):
        drawn.write_image(
            tmp_path / f"{number}.dcm", picture(200, 300, number), number=number,
            change=lambda header, uid=uid: setattr(header, "PyramidUID", uid),
        )  # fmt: skip
    with open_slide(tmp_path / "1.dcm") as slide:
        assert [len(scene.levels) for scene in slide.scenes] == [1, 1]


def test_a_copy_of_an_instance_is_not_another_one(tmp_path: Path) -> None:
    path = drawn.write_one_image(tmp_path)
    shutil.copy(path, tmp_path / "copy.dcm")
    with open_slide(path) as slide:
        assert len(slide.scenes) == 1
        assert len(slide.sources) == 1


def test_pyramids_that_nobody_can_tell_apart_are_refused(tmp_path: Path) -> None:
    for number, factor in enumerate((1, 1, 2), 1):
        drawn.write_image(tmp_path / f"{number}.dcm", picture(200 // factor, 300 // factor), number=number)
    with pytest.raises(UnsupportedPixels, match="no Pyramid UID tells them apart"):
        open_slide(tmp_path / "1.dcm")


def test_a_label_without_a_slide_is_refused(tmp_path: Path) -> None:
    path = drawn.write_image(tmp_path / "label.dcm", picture(60, 80), role="LABEL")
    with pytest.raises(UnsupportedPixels, match="no VOLUME image, only: LABEL"):
        open_slide(path)


def test_a_deflated_data_set_is_refused(tmp_path: Path) -> None:
    path = drawn.write_image(tmp_path / "image.dcm", picture(64, 64), transfer_syntax_uid=drawn.NATIVE)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    dataset.save_as(path)
    with pytest.raises(UnreadableSlide, match="deflated or big endian"):
        open_slide(path)


@pytest.mark.parametrize(
    ("keyword", "value", "kind", "words"),
    [
        ("PixelRepresentation", 1, UnsupportedPixels, "signed, inverted or palette"),
        ("PhotometricInterpretation", "PALETTE COLOR", UnsupportedPixels, "signed, inverted or palette"),
        ("BitsAllocated", 32, UnsupportedPixels, "no whole slide image has"),
        ("TotalPixelMatrixRows", 4_000_000_000, DamagedSlide, "more than 4000000 tiles"),
        ("TotalPixelMatrixColumns", 900, DamagedSlide, "an image of 16 tiles has 6 frames"),
        ("TotalPixelMatrixColumns", 0, DamagedSlide, "does not say how large"),
        ("DimensionOrganizationType", "TILED_SPARSE", DamagedSlide, "do not all say where they lie"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    keyword: str, value: object, kind: type[ConversionError], words: str, tmp_path: Path
) -> None:
    path = drawn.write_image(
        tmp_path / "image.dcm", picture(200, 300), change=lambda header: setattr(header, keyword, value)
    )
    with pytest.raises(kind, match=words):
        open_slide(path)


@pytest.mark.parametrize("shift", [1, 128 * 3])
def test_frames_off_the_grid_or_outside_are_refused(shift: int, tmp_path: Path) -> None:
    def moved(header: Dataset) -> None:
        place = header.PerFrameFunctionalGroupsSequence[0].PlanePositionSlideSequence[0]
        place.RowPositionInTotalImagePixelMatrix += shift

    path = drawn.write_image(tmp_path / "image.dcm", picture(300, 500), sparse=(1, 5), change=moved)
    with pytest.raises(ConversionError, match=r"do not lie on a grid|lie outside of the image"):
        open_slide(path)


def test_two_frames_in_one_place_are_refused(tmp_path: Path) -> None:
    def doubled(header: Dataset) -> None:
        groups: Sequence[Dataset] = header.PerFrameFunctionalGroupsSequence
        groups[1].PlanePositionSlideSequence = groups[0].PlanePositionSlideSequence

    path = drawn.write_image(tmp_path / "image.dcm", picture(300, 500), sparse=(1, 5), change=doubled)
    with pytest.raises(DamagedSlide, match="two frames of an image lie in the same place"):
        open_slide(path)
