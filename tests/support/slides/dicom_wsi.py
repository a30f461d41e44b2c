# SPDX-License-Identifier: Apache-2.0
"""DICOM series as scanners (and careless converters) write them, by pydicom alone.

:func:`write_image` writes one instance in any of the forms that are met;
:func:`write_dicom_wsi` a whole series: two levels, thumbnail, label and overview.
"""

import struct
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items

from converters.codecs import encode
from tests.support.make_slide import picture, srgb_profile

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
ROOT = "1.2.826.0.1.3680043.10.9999.7"
STUDY, SERIES, FRAME_OF_REFERENCE, SPECIMEN = (f"{ROOT}.{n}" for n in (1, 2, 3, 4))
NATIVE, JPEG, JPEG_LS, J2K, HTJ2K, RLE = (
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5",
)  # fmt: skip
PHOTOMETRIC = {JPEG: "YBR_FULL_422", J2K: "YBR_RCT", HTJ2K: "YBR_RCT"}
SPACING_MM = 0.0005
Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Change = Callable[[Dataset], None]


def nothing(header: Dataset) -> None:
    """The header stays as it is."""


def cut(pixels: Pixels, tile: int) -> list[Pixels]:
    """Tiles of a picture of (rows, columns, samples), row by row, padded at the edges."""
    rows, columns = pixels.shape[:2]
    padding = ((0, -rows % tile), (0, -columns % tile), (0, 0))
    whole = np.pad(pixels, padding, mode="edge")
    return [
        np.ascontiguousarray(whole[top : top + tile, left : left + tile])
        for top in range(0, rows, tile)
        for left in range(0, columns, tile)
    ]


def jpeg_frame(pixels: Pixels) -> bytes:
    """A JPEG without any marker that tells its colours, as scanners write it."""
    if pixels.shape[2] == 1:
        return bytes(imagecodecs.jpeg8_encode(pixels[..., 0], level=90))
    stream = bytes(
        imagecodecs.jpeg8_encode(pixels, level=90, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
    )
    at = stream.index(b"\xff\xe0")
    return stream[:at] + stream[at + 2 + int.from_bytes(stream[at + 2 : at + 4]) :]


def frame_of(pixels: Pixels, transfer_syntax_uid: str) -> bytes:
    if transfer_syntax_uid == JPEG:
        return jpeg_frame(pixels)
    return encode(pixels, transfer_syntax_uid)


def header(
    pixels: Pixels, tile: int, number: int, role: str, transfer_syntax_uid: str, spacing_mm: float
) -> Dataset:
    """What a good scanner says of an image, patient and specimen included."""
    result = Dataset()
    result.SpecificCharacterSet = "ISO_IR 100"
    result.SOPClassUID, result.SOPInstanceUID = WSI, f"{ROOT}.5.{number}"
    kind = ("ORIGINAL", "NONE") if number == 1 or role in ("LABEL", "OVERVIEW") else ("DERIVED", "RESAMPLED")
    result.ImageType = [kind[0], "PRIMARY", role, kind[1]]
    result.PatientName, result.PatientID = "Müller^Jörg", "P-17"
    result.PatientBirthDate, result.PatientSex = "19500102", "M"
    result.ClinicalTrialSponsorName, result.ClinicalTrialProtocolID = "Sponsor", "TRIAL-9"
    result.ClinicalTrialProtocolName = result.ClinicalTrialSiteID = result.ClinicalTrialSiteName = ""
    result.ClinicalTrialSubjectID = "SUBJECT-3"
    result.StudyInstanceUID, result.StudyID = STUDY, "S-1"
    result.StudyDate, result.StudyTime, result.AccessionNumber = "20260102", "030405", "A-26-1"
    result.ReferringPhysicianName = "Kuhn^Ada"
    result.Modality, result.SeriesInstanceUID, result.SeriesNumber = "SM", SERIES, 4
    result.SeriesDescription = "HE"
    result.Manufacturer, result.ManufacturerModelName = "Leica Biosystems", "GT450 DX"
    result.DeviceSerialNumber, result.SoftwareVersions = "SN-450", ["1.2", "3.4"]
    result.AcquisitionDateTime = "20260102030405.250000+0100"
    result.ContentDate, result.ContentTime = "20260102", "030500"
    result.InstanceNumber, result.ImageComments = number, "kept"
    result.FrameOfReferenceUID, result.PositionReferenceIndicator = FRAME_OF_REFERENCE, "SLIDE_CORNER"
    result.VolumetricProperties, result.FocusMethod, result.ExtendedDepthOfField = "VOLUME", "AUTO", "NO"
    label = "YES" if role in ("LABEL", "OVERVIEW") else "NO"
    result.BurnedInAnnotation = result.SpecimenLabelInImage = label
    if role == "LABEL":
        result.LabelText, result.BarcodeValue = "A-26-1 1", "4711"
    _pixels(result, pixels, tile, transfer_syntax_uid)
    _places(result, spacing_mm)
    _paths(result, pixels.shape[2], [""])
    _specimen(result)
    result.add_new(0x00111001, "LO", "a maker's own")
    result.add_new(0x00110010, "LO", "MAKER")
    return result


def _pixels(to: Dataset, pixels: Pixels, tile: int, transfer_syntax_uid: str) -> None:
    samples, bits = pixels.shape[2], pixels.dtype.itemsize * 8
    to.SamplesPerPixel = samples
    colours = PHOTOMETRIC.get(transfer_syntax_uid, "RGB")
    to.PhotometricInterpretation = "MONOCHROME2" if samples == 1 else colours
    if samples == 3:
        to.PlanarConfiguration = 0
    to.Rows = to.Columns = tile
    to.BitsAllocated = to.BitsStored = bits
    to.HighBit, to.PixelRepresentation = bits - 1, 0
    to.TotalPixelMatrixRows, to.TotalPixelMatrixColumns = pixels.shape[:2]
    lossy = transfer_syntax_uid == JPEG
    to.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        to.LossyImageCompressionRatio, to.LossyImageCompressionMethod = "12.5", "ISO_10918_1"


def _places(to: Dataset, spacing_mm: float) -> None:
    to.DimensionOrganizationType = "TILED_FULL"
    to.TotalPixelMatrixFocalPlanes = to.NumberOfOpticalPaths = 1
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = "20.5", "41.25"
    to.TotalPixelMatrixOriginSequence = [origin]
    to.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    to.ImagedVolumeWidth = to.TotalPixelMatrixColumns * spacing_mm
    to.ImagedVolumeHeight = to.TotalPixelMatrixRows * spacing_mm
    to.ImagedVolumeDepth = 2.5
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing_mm, spacing_mm], 0.0025
    shared.PixelMeasuresSequence = [measures]
    to.SharedFunctionalGroupsSequence = [shared]


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _paths(to: Dataset, samples: int, identifiers: Sequence[str]) -> None:
    items = []
    for number, name in enumerate(identifiers):
        item = Dataset()
        item.OpticalPathIdentifier = name or "HE"
        item.ObjectiveLensPower, item.ObjectiveLensNumericalAperture = "40", "0.75"
        if name:
            item.IlluminationTypeCodeSequence = [code("111743", "DCM", "Epifluorescence illumination")]
            item.IlluminationWaveLength = 405.0 + 80 * number
            item.OpticalPathDescription = name
        else:
            item.IlluminationTypeCodeSequence = [code("111744", "DCM", "Brightfield illumination")]
            item.IlluminationColorCodeSequence = [code("414298005", "SCT", "Full Spectrum")]
        if samples == 3:
            item.ICCProfile = srgb_profile() + bytes(-len(srgb_profile()) % 2)
        items.append(item)
    to.OpticalPathSequence = items
    to.NumberOfOpticalPaths = len(items)


def _specimen(to: Dataset) -> None:
    to.ContainerIdentifier = "A-26-1 1-1"
    to.IssuerOfTheContainerIdentifierSequence = []
    to.ContainerTypeCodeSequence = [code("433466003", "SCT", "Microscope slide")]
    step, text, specimen = Dataset(), Dataset(), Dataset()
    text.ValueType, text.TextValue = "TEXT", "Spezialfärbung"
    text.ConceptNameCodeSequence = [code("F.99", "99LAB", "Own step")]
    step.SpecimenPreparationStepContentItemSequence = [text]
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "A-26-1 1", SPECIMEN
    specimen.SpecimenShortDescription = "Haut"
    specimen.SpecimenPreparationSequence = [step]  # and no issuer, which is of Type 2
    to.SpecimenDescriptionSequence = [specimen]


def write_image(
    path: Path,
    pixels: Pixels,
    *,
    number: int = 1,
    role: str = "VOLUME",
    tile: int = 128,
    transfer_syntax_uid: str = JPEG,
    spacing_mm: float = SPACING_MM,
    frames: Sequence[bytes] | None = None,
    sparse: Collection[int] | None = None,
    channels: Sequence[str] = (),
    offsets: str = "right",
    fragments: int = 1,
    change: Change = nothing,
) -> Path:
    """One instance. ``frames`` replace those made of ``pixels`` (rows, columns, samples);
    ``sparse`` names the tiles that alone are there, TILED_SPARSE; ``channels`` the optical
    paths, for frames that are given. ``offsets``: the basic offset table is "right",
    "absent" or "wrong". ``fragments`` are the pieces of each frame. ``change`` edits the
    header last."""
    dataset = header(pixels, tile, number, role, transfer_syntax_uid, spacing_mm)
    if frames is None:
        frames = [frame_of(one, transfer_syntax_uid) for one in cut(pixels, tile)]
    if sparse is not None:
        _make_sparse(dataset, pixels, tile, sorted(sparse))
        frames = [frames[at] for at in sorted(sparse)]
    if channels:
        _paths(dataset, pixels.shape[2], channels)
    dataset.NumberOfFrames = len(frames)
    change(dataset)
    if transfer_syntax_uid == NATIVE:
        dataset.PixelData = b"".join(frames)
    else:
        dataset.PixelData = _encapsulated(frames, offsets, fragments)
        dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def _make_sparse(to: Dataset, pixels: Pixels, tile: int, tiles: Sequence[int]) -> None:
    across = -(-pixels.shape[1] // tile)
    groups = []
    for at in tiles:
        position, frame = Dataset(), Dataset()
        position.RowPositionInTotalImagePixelMatrix = at // across * tile + 1
        position.ColumnPositionInTotalImagePixelMatrix = at % across * tile + 1
        position.XOffsetInSlideCoordinateSystem = position.YOffsetInSlideCoordinateSystem = "0"
        position.ZOffsetInSlideCoordinateSystem = "0"
        frame.PlanePositionSlideSequence = [position]
        groups.append(frame)
    to.DimensionOrganizationType = "TILED_SPARSE"
    del to.TotalPixelMatrixFocalPlanes
    to.PerFrameFunctionalGroupsSequence = Items(groups)


def _encapsulated(frames: Sequence[bytes], offsets: str, fragments: int) -> bytes:
    body, starts = bytearray(), []
    for frame in frames:
        starts.append(len(body))
        size = -(-len(frame) // fragments)
        size += size % 2
        for at in range(0, len(frame), size):
            piece = frame[at : at + size]
            piece += bytes(len(piece) % 2)
            body += b"\xfe\xff\x00\xe0" + struct.pack("<I", len(piece)) + piece
    if offsets == "wrong":
        starts = [start + 2 for start in starts]
    table = b"" if offsets == "absent" else struct.pack(f"<{len(starts)}I", *starts)
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(table)) + table + bytes(body)


def write_dicom_wsi(folder: Path, *, rows: int = 300, columns: int = 500) -> Path:
    """A series of five files; the finest level is ``level0.dcm``."""
    whole = picture(rows, columns)
    half = whole[::2, ::2].copy()
    main = write_image(folder / "level0.dcm", whole)
    write_image(folder / "level1.dcm", half, number=2, spacing_mm=2 * SPACING_MM)
    small = whole[::8, ::8].copy()
    write_image(folder / "thumbnail.dcm", small, number=3, role="THUMBNAIL", spacing_mm=8 * SPACING_MM)
    label = picture(60, 80, seed=8)
    write_image(
        folder / "label.dcm", label, number=4, role="LABEL", tile=32, transfer_syntax_uid=NATIVE,
        spacing_mm=0.1,
    )  # fmt: skip
    write_image(folder / "overview.dcm", picture(64, 64, seed=9), number=5, role="OVERVIEW", tile=64)
    return main


def write_one_image(folder: Path) -> Path:
    """A series of one level."""
    return write_image(folder / "image.dcm", picture(200, 300))


def write_sparse(folder: Path) -> Path:
    """A level most of whose tiles were not scanned."""
    return write_image(folder / "sparse.dcm", picture(300, 500), sparse=(1, 5, 6))


def write_concatenation(folder: Path, parts: Sequence[int] = (5, 4, 3)) -> Path:
    """A level of 12 frames in several instances."""
    pixels = picture(300, 500)
    frames = [frame_of(one, JPEG) for one in cut(pixels, 128)]
    first, paths = 0, []
    for at, size in enumerate(parts, 1):

        def numbered(header: Dataset, at: int = at, first: int = first) -> None:
            header.ConcatenationUID = f"{ROOT}.6"
            header.SOPInstanceUIDOfConcatenationSource = f"{ROOT}.7"
            header.InConcatenationNumber, header.InConcatenationTotalNumber = at, len(parts)
            header.ConcatenationFrameOffsetNumber = first

        piece = frames[first : first + size]
        paths.append(write_image(folder / f"part{at}.dcm", pixels, number=at, frames=piece, change=numbered))
        first += size
    return paths[0]
