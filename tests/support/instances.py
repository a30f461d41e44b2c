# SPDX-License-Identifier: Apache-2.0
"""Small, valid VL Whole Slide Microscopy instances as Part 10 bytes."""

import io
from collections.abc import Sequence

from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"


def jpeg_tile(seed: int, size: int = 32) -> bytes:
    """A baseline JPEG of ``size`` x ``size`` pixels, of a colour that ``seed`` gives."""
    colour = (seed * 53 % 256, seed * 91 % 256, seed * 17 % 256)
    out = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(out, "JPEG", quality=90)
    data = out.getvalue()
    # Even, so that no padding hides the true length: a comment segment of three or four bytes.
    return data[:2] + b"\xff\xfe\x00\x03\x20" + data[2:] if len(data) % 2 else data


def make_dataset(
    *,
    study: str = "",
    series: str = "",
    sop: str = "",
    patient_name: str = "Test^Slide",
    patient_id: str = "P1",
    container: str = "S26-1",
    frames: int = 4,
    tile: int = 32,
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE"),
    number: int = 1,
) -> Dataset:
    """A header without pixel data: a square matrix of ``frames`` tiles."""
    side = max(1, round(frames**0.5))
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = WSI
    ds.SOPInstanceUID = sop or generate_uid()
    ds.StudyInstanceUID = study or generate_uid()
    ds.SeriesInstanceUID = series or generate_uid()
    ds.ImageType = list(image_type)
    ds.StudyDate, ds.StudyTime = "20260102", "030405"
    ds.Modality = "SM"
    ds.Manufacturer = "Maker"
    ds.AccessionNumber = "A1"
    ds.PatientName, ds.PatientID = patient_name, patient_id
    ds.PatientBirthDate, ds.PatientSex = "", ""
    ds.ReferringPhysicianName, ds.StudyID = "", ""
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[ds.SeriesInstanceUID])
    ds.ContainerIdentifier = container
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "SP1", generate_uid(entropy_srcs=[container])
    ds.SpecimenDescriptionSequence = Items([specimen])
    path = Dataset()
    path.OpticalPathIdentifier = "0"
    path.ICCProfile = b"ICC0" * 4
    ds.OpticalPathSequence = Items([path])
    ds.DimensionOrganizationType = "TILED_FULL"
    ds.TotalPixelMatrixRows = ds.TotalPixelMatrixColumns = side * tile
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "YBR_FULL_422"
    ds.PlanarConfiguration = 0
    ds.NumberOfFrames = frames
    ds.Rows = ds.Columns = tile
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.LossyImageCompression = "01"
    return ds


def make_instance(
    *, tiles: Sequence[bytes] | None = None, eot: bool = False, native: bool = False, **attributes: object
) -> bytes:
    """Part 10 bytes; JPEG tiles by default, random-free."""
    ds = make_dataset(**attributes)  # type: ignore[arg-type]
    frames = int(ds.NumberOfFrames)
    out = io.BytesIO()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if native else JPEGBaseline8Bit
    ds.PixelData = b""
    if native:
        ds.PhotometricInterpretation = "RGB"
        ds.LossyImageCompression = "00"
        size = int(ds.Rows) * int(ds.Columns) * 3
        ds.PixelData = b"".join(bytes([n % 256]) * size for n in range(frames))
    else:
        data = list(tiles) if tiles is not None else [jpeg_tile(n, int(ds.Rows)) for n in range(frames)]
        if eot:
            ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(data)
        else:
            ds.PixelData = encapsulate(data)
    ds["PixelData"].VR = "OB"
    if not native:
        ds["PixelData"].is_undefined_length = True
    file = FileDataset(out, ds, file_meta=meta, preamble=bytes(128))
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()
