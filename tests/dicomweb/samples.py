# SPDX-License-Identifier: Apache-2.0
"""Small instances of each kind that the HTTP edge must tell apart, made with pydicom."""

import io
from array import array

from PIL import Image, ImageCms
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    MicroscopyBulkSimpleAnnotationsStorage,
    VLWholeSlideMicroscopyImageStorage,
)

ROOT = "1.2.826.0.1.3680043.10.1"
STUDY = f"{ROOT}.1"
SERIES = f"{ROOT}.1.1"
TILE = 16
ICC_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def tile(number: int, form: str = "JPEG") -> bytes:
    """One coloured tile as a codestream of even length, another for each number."""
    image = Image.new("RGB", (TILE, TILE), (40 * number % 256, 90, 255 - 20 * number % 256))
    buffer = io.BytesIO()
    if form == "JPEG2000":
        image.save(buffer, form, no_jp2=True, irreversible=False, mct=1)
    else:
        image.save(buffer, form, quality=90)
    return buffer.getvalue() + b"\0" * (buffer.tell() % 2)


def header(number: int, *, study: str = STUDY, series: str = SERIES, kind: str = "VOLUME") -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    made.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    made.SOPInstanceUID = f"{series}.{number}"
    made.StudyDate, made.StudyTime = "20260101", "101500"
    made.AccessionNumber = "A1"
    made.Modality = "SM"
    made.Manufacturer = "Coverslip"
    made.ReferringPhysicianName = ""
    made.PatientName, made.PatientID = "Müller^Jörg", "P1"
    made.PatientBirthDate, made.PatientSex = "", ""
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.StudyID, made.SeriesNumber, made.InstanceNumber = "S1", 1, number
    made.FrameOfReferenceUID = f"{study}.9"
    made.ContainerIdentifier = "C-1"
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "SP-1", f"{study}.8"
    made.SpecimenDescriptionSequence = [specimen]
    path = Dataset()
    path.OpticalPathIdentifier, path.ICCProfile = "1", ICC_PROFILE
    made.OpticalPathSequence = [path]
    made.SamplesPerPixel, made.PlanarConfiguration = 3, 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.BurnedInAnnotation = "NO"
    made.LossyImageCompression = "00"
    made.DimensionOrganizationType = "TILED_FULL"
    return made


def size(made: Dataset, columns: int, rows: int) -> None:
    made.Rows = made.Columns = TILE
    made.NumberOfFrames = columns * rows
    made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows = columns * TILE, rows * TILE


def written(made: Dataset, syntax: str, *, preamble: bool = True) -> bytes:
    """Part 10 bytes, or a bare data set as some clients send it."""
    if preamble:
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = syntax
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    buffer = io.BytesIO()
    if preamble:
        made.save_as(buffer, enforce_file_format=True)
    else:
        made.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def volume(number: int = 1, *, columns: int = 3, rows: int = 2, first: int = 1, **kwargs: str) -> bytes:
    """A lossy level: JPEG baseline, ``columns`` x ``rows`` tiles; frame n is ``tile(first + n - 1)``."""
    made = header(number, **kwargs)
    made.LossyImageCompression = "01"
    made.LossyImageCompressionRatio, made.LossyImageCompressionMethod = "10", "ISO_10918_1"
    made.PhotometricInterpretation = "YBR_FULL_422"
    size(made, columns, rows)
    made.PixelData = encapsulate([tile(first + n) for n in range(columns * rows)], has_bot=True)
    made["PixelData"].VR = "OB"
    return written(made, JPEGBaseline8Bit)


def lossless(number: int = 2, **kwargs: str) -> bytes:
    """A level of two tiles in reversible JPEG 2000."""
    made = header(number, **kwargs)
    made.PhotometricInterpretation = "YBR_RCT"
    size(made, 2, 1)
    made.PixelData = encapsulate([tile(1, "JPEG2000"), tile(2, "JPEG2000")], has_bot=True)
    made["PixelData"].VR = "OB"
    return written(made, JPEG2000Lossless)


def label(number: int = 3, *, kind: str = "LABEL", preamble: bool = True, **kwargs: str) -> bytes:
    """A single native frame."""
    made = header(number, kind=kind, **kwargs)
    made.PhotometricInterpretation = "RGB"
    size(made, 1, 1)
    made.PixelData = bytes(range(256)) * (TILE * TILE * 3 // 256)
    made["PixelData"].VR = "OB"
    return written(made, ExplicitVRLittleEndian, preamble=preamble)


COORDINATES = array("d", range(10_000)).tobytes()


def annotations(number: int = 1, *, series: str = f"{ROOT}.1.2", **kwargs: str) -> bytes:
    """Bulk simple annotations: coordinates above the bulk threshold, no pixel data."""
    full = header(number, series=series, **kwargs)
    made = Dataset()
    text = (
        "SpecificCharacterSet SOPInstanceUID StudyDate StudyTime AccessionNumber PatientName PatientID "
        "StudyInstanceUID SeriesInstanceUID StudyID SeriesNumber InstanceNumber"
    )
    for keyword in text.split():
        setattr(made, keyword, full[keyword].value)
    made.SOPClassUID, made.Modality = MicroscopyBulkSimpleAnnotationsStorage, "ANN"
    group = Dataset()
    group.AnnotationGroupNumber = 1
    group.DoublePointCoordinatesData = COORDINATES
    made.AnnotationGroupSequence = [group]
    return written(made, ExplicitVRLittleEndian)
