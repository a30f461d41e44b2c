# SPDX-License-Identifier: Apache-2.0
"""Pictures of images with several focal planes and optical paths; what counts as a slide."""

import io
from collections.abc import Iterator
from collections.abc import Sequence as Sequence_
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from archive.channels import channels_of
from archive.drawing import BadView
from archive.errors import NotFound, TooLarge
from archive.part10.codestream import jpeg_segments
from archive.service import Archive
from archive.values import Fit, Rendering, Stored
from converters.codecs.colour import standard_profile
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.codec import DirectCodec
from tests.support.instances import make_dataset, make_instance

TILE = 32
PNG = Rendering("image/png")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "site", codec=DirectCodec())
    yield opened
    opened.close()


def image(*, paths: int = 1, planes: int = 1, places: list[tuple[int, int]] | None = None) -> bytes:
    """2 x 2 tiles for each plane and path; frame n is grey of the value n."""
    count = len(places) if places else 4 * paths * planes
    header = pydicom.dcmread(io.BytesIO(make_instance(frames=count, tile=TILE, native=True)))
    header.TotalPixelMatrixRows = header.TotalPixelMatrixColumns = 2 * TILE
    if places is None:
        header.NumberOfOpticalPaths, header.TotalPixelMatrixFocalPlanes = paths, planes
    else:
        header.DimensionOrganizationType = "TILED_SPARSE"
        header.PerFrameFunctionalGroupsSequence = Sequence([_at(*place) for place in places])
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _at(row: int, column: int) -> Dataset:
    position = Dataset()
    position.RowPositionInTotalImagePixelMatrix = row * TILE + 1
    position.ColumnPositionInTotalImagePixelMatrix = column * TILE + 1
    position.XOffsetInSlideCoordinateSystem = position.YOffsetInSlideCoordinateSystem = 0
    position.ZOffsetInSlideCoordinateSystem = 0
    group = Dataset()
    group.PlanePositionSlideSequence = Sequence([position])
    return group


def corners(archive: Archive, stored: Stored) -> list[int]:
    """The values of the picture's four tiles, row by row."""
    found = archive.instance(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
    )
    pixels = np.asarray(Image.open(io.BytesIO(archive.rendered(found, 0, PNG, **ASK))))
    assert pixels.shape[:2] == (2 * TILE, 2 * TILE)
    return [int(value) for value in pixels[::TILE, ::TILE, 0].ravel()]


def test_the_picture_of_a_stack_is_its_middle_plane_in_the_first_optical_path(archive: Archive) -> None:
    assert corners(archive, store_bytes(archive, image(paths=2, planes=3))) == [4, 5, 6, 7]


def test_the_picture_of_several_optical_paths_is_the_first(archive: Archive) -> None:
    assert corners(archive, store_bytes(archive, image(paths=5))) == [0, 1, 2, 3]


def test_many_paths_do_not_make_a_small_picture_too_large(archive: Archive) -> None:
    assert corners(archive, store_bytes(archive, image(paths=20))) == [0, 1, 2, 3]


def test_where_frames_state_their_places_the_first_at_each_is_shown(archive: Archive) -> None:
    places = [(1, 1), (0, 0), (1, 1), (0, 0), (0, 1)]
    assert corners(archive, store_bytes(archive, image(places=places))) == [1, 4, 255, 0]


def test_series_about_slides_are_not_listed_as_slides(archive: Archive) -> None:
    slide = store_bytes(archive, make_instance())
    for modality in ("SEG", "ANN"):
        about = pydicom.dcmread(io.BytesIO(make_instance(study=slide.study_instance_uid)))
        about.Modality = modality
        out = io.BytesIO()
        about.save_as(out, enforce_file_format=True)
        store_bytes(archive, out.getvalue())

    listed = archive.slides(**ASK)

    assert [one.series_instance_uid for one in listed] == [slide.series_instance_uid]


# ---- pyramids ------------------------------------------------------------------------


def grey(
    values: np.ndarray,
    *,
    series: str = "1.2.3.1",
    number: int = 1,
    kind: str = "VOLUME",
    paths: Sequence_[dict[str, object]] = ({},),
    planes: int = 1,
    pyramid: str = "1.2.3.9",
    sparse: bool = False,
    part: tuple[int, int] | None = None,
    bits: int = 16,
) -> bytes:
    """A TILED_FULL image of 16-bit values (paths, planes, rows, columns), in tiles of ``TILE``;
    or TILED_SPARSE in an order of its own; ``part`` cuts frames for a concatenation."""
    rows, columns = values.shape[-2:]
    down, across = -(-rows // TILE), -(-columns // TILE)
    padded = np.zeros((len(paths), planes, down * TILE, across * TILE), values.dtype)
    padded[..., :rows, :columns] = values.reshape(len(paths), planes, rows, columns)
    frames = [
        (path, plane, r, c)
        for path in range(len(paths)) for plane in range(planes) for r in range(down) for c in range(across)
    ]  # fmt: skip
    if sparse:
        frames.reverse()
    start, end = part or (0, len(frames))
    header = make_dataset(series=series, study="1.2.3", frames=end - start, tile=TILE, number=number)
    header.SOPInstanceUID = f"{series}.{number}.{start}"
    header.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    del header.PlanarConfiguration
    header.BitsAllocated = header.BitsStored = bits
    header.HighBit = bits - 1
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = rows, columns
    header.NumberOfOpticalPaths, header.TotalPixelMatrixFocalPlanes = len(paths), planes
    header.PyramidUID = pyramid
    header.OpticalPathSequence = Sequence()
    for n, attributes in enumerate(paths):
        item = Dataset()
        item.OpticalPathIdentifier = f"P{n}"
        for name, value in attributes.items():
            setattr(item, name, value)
        header.OpticalPathSequence.append(item)
    if part:
        header.ConcatenationUID = f"{series}.77"
        header.ConcatenationFrameOffsetNumber = start
    if sparse:
        header.DimensionOrganizationType = "TILED_SPARSE"
        header.PerFrameFunctionalGroupsSequence = Sequence()
        for path, plane, r, c in frames[start:end]:
            group = _at(r, c)
            group.PlanePositionSlideSequence[0].ZOffsetInSlideCoordinateSystem = plane / 1000
            item = Dataset()
            item.OpticalPathIdentifier = f"P{path}"
            group.OpticalPathIdentificationSequence = Sequence([item])
            header.PerFrameFunctionalGroupsSequence.append(group)
    header.PixelData = b"".join(
        padded[path, plane, r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE].tobytes()
        for path, plane, r, c in frames[start:end]
    )
    header["PixelData"].VR = "OW"
    out = io.BytesIO()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    FileDataset(out, header, file_meta=meta, preamble=bytes(128)).save_as(out, enforce_file_format=True)
    return out.getvalue()


def drawn(archive: Archive, stored: Stored, number: int = 0, **how: object) -> np.ndarray:
    found = archive.instance(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
    )
    made = archive.rendered(found, number, Rendering("image/png", **how), **ASK)
    return np.asarray(Image.open(io.BytesIO(made)))


def ramp(rows: int, columns: int, low: int = 1000, high: int = 3000) -> np.ndarray:
    """A slope from left to right."""
    return np.tile(np.linspace(low, high, columns), (rows, 1)).astype("<u2")


def test_a_picture_is_drawn_from_the_coarsest_level_that_is_fine_enough(archive: Archive) -> None:
    """Each level has a value of its own, so that the picture tells which one it is from."""
    levels = [
        store_bytes(archive, grey(np.full((256 // f, 192 // f), value, np.uint8), number=f, bits=8))
        for f, value in ((1, 10), (2, 20), (4, 40))
    ]
    seen = {
        columns: int(drawn(archive, levels[0], rows=10**6, columns=columns, fit=Fit.CONTAIN)[0, 0])
        for columns in (192, 100, 96, 60, 48, 10)
    }
    assert seen == {192: 10, 100: 10, 96: 20, 60: 20, 48: 40, 10: 40}
    assert int(drawn(archive, levels[1], columns=96)[0, 0]) == 20, (
        "an instance is never drawn from finer ones"
    )


@pytest.mark.parametrize("other", [{"pyramid": "1.2.3.10"}, {"kind": "OVERVIEW"}, {"kind": "LABEL"}])
def test_levels_of_other_images_are_not_mistaken_for_it(archive: Archive, other: dict[str, str]) -> None:
    fine = store_bytes(archive, grey(np.full((128, 128), 10, np.uint8), bits=8))
    store_bytes(archive, grey(np.full((32, 32), 99, np.uint8), number=2, bits=8, **other))
    assert int(drawn(archive, fine, columns=32)[0, 0]) == 10
    assert len(archive.pyramid("", "1.2.3.1", **ASK).levels) == 1


def test_a_level_of_another_aspect_is_not_of_the_pyramid(archive: Archive) -> None:
    fine = store_bytes(archive, grey(np.full((128, 128), 10, np.uint8), bits=8))
    store_bytes(archive, grey(np.full((32, 40), 99, np.uint8), number=2, bits=8))
    assert int(drawn(archive, fine, columns=32)[0, 0]) == 10


def test_a_region_is_the_same_whichever_level_it_comes_from(archive: Archive) -> None:
    whole = np.asarray(
        Image.fromarray(np.random.default_rng(5).integers(0, 255, (13, 17), np.uint8)).resize((300, 250))
    )
    half = np.asarray(Image.fromarray(whole).resize((150, 125), Image.Resampling.BOX))
    stored = store_bytes(archive, grey(whole, bits=8))
    how = {"region": (30.0, 47.0, 160.0, 200.0), "rows": 40, "columns": 50, "fit": Fit.EXACT}
    from_fine = drawn(archive, stored, **how).astype(int)
    store_bytes(archive, grey(half, number=2, bits=8))
    from_coarse = drawn(archive, stored, **how).astype(int)
    wanted = np.asarray(
        Image.fromarray(whole).crop((47, 30, 247, 190)).resize((50, 40), Image.Resampling.BOX)
    )
    assert np.abs(from_fine - wanted).max() <= 1
    assert np.abs(from_coarse - wanted).max() <= 4
    assert not np.array_equal(from_fine, from_coarse)


@pytest.mark.parametrize("sparse", [False, True])
def test_every_path_and_plane_is_found(archive: Archive, sparse: bool) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1) * 40 + np.zeros((2, 3, 64, 96), np.uint8)
    stored = store_bytes(archive, grey(values, paths=({}, {}), planes=3, sparse=sparse, bits=8))
    seen = [
        int(drawn(archive, stored, optical_path=path, focal_plane=plane)[5, 90])
        for path in ("P0", "P1") for plane in (1, 2, 3)
    ]  # fmt: skip
    assert seen == [0, 40, 80, 120, 160, 200]
    assert int(drawn(archive, stored, optical_path="P1")[0, 0]) == 160, "the middle plane"
    for wrong in ({"optical_path": "P2"}, {"focal_plane": 4}):
        with pytest.raises(BadView):
            drawn(archive, stored, **wrong)


def test_a_concatenation_is_one_picture(archive: Archive) -> None:
    values = np.arange(16, dtype=np.uint8).repeat(TILE).reshape(1, 16 * TILE) * 10 + np.zeros(
        (TILE, 1), np.uint8
    )
    parts = [
        store_bytes(archive, grey(values, number=n, part=part, bits=8))
        for n, part in ((3, (11, 16)), (1, (0, 5)), (2, (5, 11)))
    ]
    for stored in parts:
        assert drawn(archive, stored)[0, ::TILE].tolist() == [10 * n for n in range(16)]


def test_frames_and_slide_share_one_window_from_the_coarsest_level(archive: Archive) -> None:
    """Each frame stretched by itself would show all of them alike."""
    fine = store_bytes(archive, grey(ramp(32, 256)))
    coarse = store_bytes(archive, grey(ramp(16, 128), number=2))
    whole = drawn(archive, fine).astype(int)
    assert whole[0, 0] <= 1
    assert whole[0, -1] >= 254
    for number in range(1, 9):
        frame = drawn(archive, fine, number).astype(int)
        assert np.abs(frame - whole[:, 32 * (number - 1) : 32 * number]).max() <= 1
    assert abs(int(drawn(archive, coarse)[0, 64]) - int(whole[0, 128])) <= 2


def test_the_window_that_an_image_states_is_used(archive: Archive) -> None:
    header = pydicom.dcmread(io.BytesIO(grey(np.full((32, 32), 2000, "<u2"))))
    voi, shared = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = 2000, 1000, "LINEAR_EXACT"
    shared.FrameVOILUTSequence = Sequence([voi])
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    stored = store_bytes(archive, out.getvalue())
    assert int(drawn(archive, stored)[0, 0]) == 128
    assert int(drawn(archive, stored, window=(1500.0, 1000.0, "linear-exact"))[0, 0]) == 255


def test_fluorescence_is_a_composite_in_the_colours_of_its_light(archive: Archive) -> None:
    bright = np.zeros((2, 64, 64), "<u2")
    bright[0, :, :32] = bright[1, :, 32:] = 4000
    paths = ({"IlluminationWaveLength": 360.0}, {"ImagePathFilterPassThroughWavelength": 630})
    stored = store_bytes(archive, grey(bright, paths=paths))
    pixels = drawn(archive, stored)
    assert pixels[0, 0].tolist() == [0, 0, 255]
    assert pixels[0, 63].tolist() == [255, 0, 0]
    alone = drawn(archive, stored, optical_path="P1")
    assert alone.ndim == 2
    assert (int(alone[0, 0]), int(alone[0, 63])) == (0, 255)


def test_a_path_is_shown_in_the_colour_of_its_palette() -> None:
    palette = Dataset()
    for name, last in (("Red", 0x8000), ("Green", 0x0000), ("Blue", 0xFFFF)):
        setattr(palette, f"{name}PaletteColorLookupTableDescriptor", [2, 0, 16])
        setattr(palette, f"{name}PaletteColorLookupTableData", b"\0\0" + last.to_bytes(2, "little"))
    item, head = Dataset(), Dataset()
    item.OpticalPathIdentifier, item.PaletteColorLookupTableSequence = "A", Sequence([palette])
    item.IlluminationWaveLength = 500.0
    head.OpticalPathSequence = Sequence([item])
    assert channels_of(head)[0].colour == (128, 0, 255)


def test_a_segment_is_shown_in_its_recommended_colour() -> None:
    segment, head = Dataset(), Dataset()
    segment.SegmentNumber = 1
    segment.RecommendedDisplayCIELabValue = [34885, 53485, 50171]  # pure red of sRGB
    head.SegmentSequence = Sequence([segment])
    (found,) = channels_of(head)
    assert found.identifier == "1"
    assert np.abs(np.array(found.colour) - (255, 0, 0)).max() < 12


def test_more_than_the_limit_is_not_decoded_for_a_picture(tmp_path: Path) -> None:
    small = open_archive(tmp_path / "small", codec=DirectCodec())
    small._core.limits = replace(small._core.limits, render_tiles=3)
    stored = store_bytes(small, grey(np.zeros((64, 64), np.uint8), bits=8))
    with pytest.raises(TooLarge):
        drawn(small, stored)
    assert drawn(small, stored, region=(0.0, 0.0, 32.0, 64.0)).shape == (32, 64)
    small._core.limits = replace(small._core.limits, render_tiles=9, render_pixels=64 * 63)
    with pytest.raises(TooLarge):
        drawn(small, stored)
    small.close()


def test_a_stored_tile_is_handed_out_undecoded_and_only_where_it_is_whole(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance(frames=4, tile=TILE))
    found = archive.instance(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
    )
    assert archive.tile(found, 1, 0, **ASK) == archive.frame(found, 3, **ASK)
    for row, column in ((-1, 0), (2, 0), (0, 2)):
        assert archive.tile(found, row, column, **ASK) is None
    header = pydicom.dcmread(io.BytesIO(make_instance(frames=4, tile=TILE)))
    header.TotalPixelMatrixRows = 2 * TILE - 5
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    cut = store_bytes(archive, out.getvalue())
    found = archive.instance(cut.study_instance_uid, cut.series_instance_uid, cut.sop_instance_uid, **ASK)
    assert archive.tile(found, 0, 1, **ASK) is not None
    assert archive.tile(found, 1, 1, **ASK) is None, "a browser would show the filling"


def test_pyramids_tell_levels_tiles_and_sizes(archive: Archive) -> None:
    for n, (rows, columns) in enumerate(((32, 50), (128, 200), (64, 100))):
        store_bytes(archive, grey(np.zeros((rows, columns), np.uint8), number=n, bits=8))
    store_bytes(archive, grey(np.zeros((300, 300), np.uint8), number=9, kind="OVERVIEW", bits=8))
    found = archive.pyramid("1.2.3", "1.2.3.1", **ASK)
    assert [(level.rows, level.columns) for level in found.levels] == [(128, 200), (64, 100), (32, 50)]
    assert archive.pyramid("", "1.2.3.1.2.0", **ASK) == found
    for study, uid in (("1.2.4", "1.2.3.1"), ("", "1.2.3.1.9.0"), ("", "1.9")):
        with pytest.raises(NotFound):
            archive.pyramid(study, uid, **ASK)
    store_bytes(archive, grey(np.zeros((16, 25), np.uint8), number=7, bits=8))
    assert archive.pyramid("", "1.2.3.1", **ASK).etag != found.etag


def test_a_profile_that_is_kept_apart_is_the_one_of_the_picture(archive: Archive) -> None:
    profile = standard_profile("adobergb") + bytes(100_000)
    profile = len(profile).to_bytes(4, "big") + profile[4:]
    header = pydicom.dcmread(io.BytesIO(make_instance(frames=1, native=True)))
    header.OpticalPathSequence[0].ICCProfile = profile
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    stored = store_bytes(archive, out.getvalue())
    found = archive.instance(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
    )
    made = archive.rendered(found, 0, Rendering("image/png", icc_profile="yes"), **ASK)
    assert Image.open(io.BytesIO(made)).info["icc_profile"] == profile


def test_a_segmentation_of_bits_is_shown_segment_by_segment_in_their_colours(archive: Archive) -> None:
    """Frames of 32 x 32 bits, two segments of two tiles each, TILED_SPARSE."""
    header = pydicom.dcmread(io.BytesIO(grey(np.zeros((TILE, 2 * TILE), np.uint8), bits=8)))
    header.BitsAllocated = header.BitsStored = 1
    header.HighBit, header.NumberOfFrames = 0, 4
    header.DimensionOrganizationType = "TILED_SPARSE"
    del header.OpticalPathSequence
    header.SegmentSequence, header.PerFrameFunctionalGroupsSequence = Sequence(), Sequence()
    for number in (1, 2):
        segment = Dataset()
        segment.SegmentNumber = number
        header.SegmentSequence.append(segment)
        for column in (0, 1):
            group, item = _at(0, column), Dataset()
            item.ReferencedSegmentNumber = number
            group.SegmentIdentificationSequence = Sequence([item])
            header.PerFrameFunctionalGroupsSequence.append(group)
    full, empty = bytes([255]) * (TILE * TILE // 8), bytes(TILE * TILE // 8)
    header.PixelData = full + empty + empty + full
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    stored = store_bytes(archive, out.getvalue())
    both = drawn(archive, stored)
    assert both[0, 0].tolist() == [0, 0, 255]
    assert both[0, -1].tolist() == [0, 255, 0]
    second = drawn(archive, stored, optical_path="2")
    assert (int(second[0, 0]), int(second[0, -1])) == (0, 255)


def test_a_damaged_coarse_level_hides_no_other(archive: Archive) -> None:
    fine = store_bytes(archive, grey(ramp(32, 256)))
    header = pydicom.dcmread(io.BytesIO(grey(ramp(16, 128), number=2)))
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.5"
    header.PixelData = encapsulate([b"broken" * 20] * 4)
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    store_bytes(archive, out.getvalue())
    assert drawn(archive, fine, 1).shape == (TILE, TILE)


def bare_rgb(marker: bool) -> bytes:
    """A JPEG of RGB, with or without Adobe's marker that says so; component names 1, 2, 3."""
    pixels = np.zeros((TILE, TILE, 3), np.uint8)
    pixels[..., 0] = 200
    made = imagecodecs.jpeg8_encode(pixels, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    found = [(kind, at, end) for kind, at, end in jpeg_segments(made) if kind in (0xEE, 0xC0, 0xDA)]
    data = bytearray(made)
    for kind, at, _ in found:
        for n, name in enumerate((1, 2, 3)):
            if kind == 0xC0:
                data[at + 6 + 3 * n] = name
            elif kind == 0xDA:
                data[at + 1 + 2 * n] = name
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5)
    plain = bytes(data)
    for kind, at, end in found:
        if kind == 0xEE:
            plain = plain[: at - 4] + plain[end:]
    plain = plain[:2] + adobe + plain[2:] if marker else plain
    return plain + b"\0" * (len(plain) % 2)


@pytest.mark.parametrize("marker", [True, False])
def test_a_tile_whose_colours_a_browser_would_take_wrong_is_not_handed_out(
    archive: Archive, marker: bool
) -> None:
    header = pydicom.dcmread(io.BytesIO(make_instance(tiles=[bare_rgb(marker)], frames=1, tile=TILE)))
    header.PhotometricInterpretation = "RGB"
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    stored = store_bytes(archive, out.getvalue())
    found = archive.instance(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
    )
    assert np.abs(drawn(archive, stored)[0, 0].astype(int) - (200, 0, 0)).max() < 8
    assert (archive.tile(found, 0, 0, **ASK) is not None) == marker


def test_a_tile_of_one_of_several_optical_paths_is_not_the_picture(archive: Archive) -> None:
    buffer = io.BytesIO()
    Image.new("L", (TILE, TILE), 99).save(buffer, "JPEG")
    tile = buffer.getvalue() + b"\0" * (buffer.tell() % 2)
    seen = []
    for paths in (1, 2):
        header = pydicom.dcmread(io.BytesIO(make_instance(tiles=[tile] * paths, frames=paths, tile=TILE)))
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.TotalPixelMatrixRows = header.TotalPixelMatrixColumns = TILE
        header.NumberOfOpticalPaths = paths
        out = io.BytesIO()
        header.save_as(out, enforce_file_format=True)
        stored = store_bytes(archive, out.getvalue())
        found = archive.instance(
            stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
        )
        seen.append(archive.tile(found, 0, 0, **ASK) is not None)
    assert seen == [True, False]
