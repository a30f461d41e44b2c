# SPDX-License-Identifier: Apache-2.0
"""Zeiss CZI slides for tests: some by ZEISS's own writer (pylibCZIrw), the rest by ours.

Every function returns the path; what was drawn is what ``drawn`` gives for the same size.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.make_slide import picture
from tests.support.slides.czi_writer import (
    JPEG,
    JPEG_XR,
    UNCOMPRESSED,
    ZSTD_1,
    CziWriter,
    metadata_xml,
)

ROWS, COLUMNS, TILE = 1024, 1280, 256
OVERLAP = 40
_ZSTD = "zstd1:ExplicitLevel=2;PreProcess=HiLoByteUnpack"
_CHANNELS = (
    '<Dimensions><Channels><Channel Id="Channel:0" Name="DAPI">'
    "<ExcitationWavelength>353</ExcitationWavelength><EmissionWavelength>465</EmissionWavelength>"
    "<Color>#FF00A0FF</Color><Fluor>DAPI</Fluor><ExposureTime>25000000</ExposureTime>"
    "<IlluminationType>Epifluorescence</IlluminationType><ContrastMethod>Fluorescence</ContrastMethod>"
    '</Channel><Channel Id="Channel:1" Name="Alexa 647"><EmissionWavelength>668</EmissionWavelength>'
    "<ContrastMethod>Fluorescence</ContrastMethod></Channel></Channels>{rest}</Dimensions>"
)
_SLIDE_IMAGE = (
    "<AcquisitionDateAndTime>2024-05-06T07:08:09.1234567Z</AcquisitionDateAndTime>"
    "<ComponentBitCount>8</ComponentBitCount>"
    '<Dimensions><Channels><Channel Id="Channel:0" Name="TL Brightfield">'
    "<ExposureTime>200000</ExposureTime><ContrastMethod>Brightfield</ContrastMethod></Channel></Channels>"
    '<S><Scenes><Scene Index="0" Name="ScanRegion0"/><Scene Index="1" Name="ScanRegion1"/></Scenes></S>'
    '</Dimensions><ObjectiveSettings><ObjectiveRef Id="Objective:2"/></ObjectiveSettings>'
)
_SLIDE_INSTRUMENT = (
    '<Microscopes><Microscope Id="Microscope:1" Name="Axioscan 7"/></Microscopes><Objectives>'
    '<Objective Id="Objective:1"><NominalMagnification>5</NominalMagnification>'
    "<LensNA>0.16</LensNA></Objective>"
    '<Objective Id="Objective:2"><NominalMagnification>20</NominalMagnification>'
    "<LensNA>0.8</LensNA></Objective>"
    "</Objectives>"
)
_LABEL_XML = (
    '<AttachmentInfos><AttachmentInfo Id="AttachmentInfo:1"><Label><Barcodes><Barcode Id="Barcode:1">'
    "<Content>S24-1234 A1</Content></Barcode></Barcodes></Label></AttachmentInfo></AttachmentInfos>"
)


def drawn(rows: int = ROWS, columns: int = COLUMNS, seed: int = 21) -> NDArray[np.uint8]:
    """The RGB picture on the slides."""
    return picture(rows, columns, seed)


def grey16(channel: int, plane: int, rows: int = 512, columns: int = 640) -> NDArray[np.uint16]:
    """(rows, columns, 1) of the fluorescence slide."""
    inverted = 255 - drawn(rows, columns)[..., channel : channel + 1].astype(np.uint16)
    return inverted * (200 + 20 * plane)


def write_brightfield(folder: Path, *, compression: str = "uncompressed:") -> Path:
    """By ZEISS's writer: RGB tiles on a grid, at a negative origin."""
    from pylibCZIrw import czi

    path = folder / "brightfield.czi"
    pixels = drawn()[..., ::-1]
    with czi.create_czi(str(path), exist_ok=True, compression_options=compression) as document:
        for top in range(0, ROWS, TILE):
            for left in range(0, COLUMNS, TILE):
                document.write(
                    data=np.ascontiguousarray(pixels[top : top + TILE, left : left + TILE]),
                    location=(left - 3000, top - 77),
                )
        document.write_metadata("slide", {0: "TL Brightfield"}, scale_x=0.22e-6, scale_y=0.22e-6)
    return path


def write_fluorescence(folder: Path, *, scale_z: float = 1.5e-6) -> Path:
    """By ZEISS's writer: two channels, two focal planes, 16 bits, Zstandard."""
    from pylibCZIrw import czi

    path = folder / "fluorescence.czi"
    with czi.create_czi(str(path), exist_ok=True, compression_options=_ZSTD) as document:
        for channel in range(2):
            for plane in range(2):
                document.write(data=grey16(channel, plane), plane={"C": channel, "T": 0, "Z": plane})
        document.write_metadata(
            "slide", {0: "DAPI", 1: "Cy5"}, scale_x=0.325e-6, scale_y=0.325e-6, scale_z=scale_z
        )
    return path


def write_scenes(folder: Path) -> Path:
    """By ZEISS's writer: three scenes far apart, one of them at negative coordinates."""
    from pylibCZIrw import czi

    path = folder / "scenes.czi"
    with czi.create_czi(str(path), exist_ok=True, compression_options=_ZSTD) as document:
        for scene, (x, y, size) in enumerate(((-70_000, -5, 200), (0, 0, 300), (118_583, 88_865, 400))):
            document.write(
                data=np.ascontiguousarray(drawn(size, size + 50, scene)[..., ::-1]),
                location=(x, y),
                scene=scene,
            )
        document.write_metadata("slide", scale_x=0.22e-6, scale_y=0.22e-6)
    return path


def mosaic_tile(number: int, rows: int = 300, columns: int = 400) -> NDArray[np.uint8]:
    """Tile ``number`` of the mosaic: each is its own picture, so that the order shows."""
    return drawn(rows, columns, 50 + number)


def write_mosaic(folder: Path, *, order: Sequence[int] = (4, 1, 5, 0, 3, 2), numbered: bool = True) -> Path:
    """2 x 3 tiles that overlap by OVERLAP, tile n with M index ``order[n]``; one more stands
    apart, so that part of the scene is bare."""
    writer = CziWriter()
    for number, drawing in enumerate(order):
        row, column = divmod(number, 3)
        places = {"C": 0, "S": 0, **({"M": drawing} if numbered else {})}
        writer.add(
            mosaic_tile(number),
            column * (400 - OVERLAP) - 1000,
            row * (300 - OVERLAP) + 90_000,
            compression=ZSTD_1,
            **places,
        )
    writer.add(mosaic_tile(6, 100, 100), 900, 90_600, C=0, S=0, **({"M": 6} if numbered else {}))
    return writer.save(folder / "mosaic.czi", metadata_xml())


def write_slide(
    folder: Path,
    *,
    compression: int = JPEG,
    pyramid: bool = True,
    stale: bool = False,
    hole: bool = False,
    attachments: bool = True,
) -> Path:
    """As Axioscan: two scenes of RGB tiles, a coarser level, label, preview and thumbnail.
    ``hole`` leaves a tile of the coarser level out."""
    writer = CziWriter()
    for scene, x in enumerate((-2000, 40_000)):
        pixels = drawn(ROWS // 2, COLUMNS, 30 + scene)
        coarse = pixels[::2, ::2]
        for covers, image in ((1, pixels), (2, coarse)) if pyramid else ((1, pixels),):
            for number, (top, left) in enumerate(
                np.ndindex(image.shape[0] // TILE, -(-image.shape[1] // TILE))
            ):
                tile = image[top * TILE : (top + 1) * TILE, left * TILE : (left + 1) * TILE]
                if hole and covers == 2 and number == 1:
                    continue
                writer.add(
                    tile,
                    x + left * TILE * covers,
                    500 + top * TILE * covers,
                    covers=covers,
                    compression=compression,
                    C=0,
                    S=scene,
                    **({"M": number} if covers == 1 else {}),
                )
    if attachments:
        label = CziWriter()
        label.add(drawn(120, 90, 8), 0, 0, compression=UNCOMPRESSED, C=0)
        preview = CziWriter()
        preview.add(drawn(150, 400, 9), 0, 0, compression=JPEG_XR, C=0)
        writer.attach("Label", "CZI", label.to_bytes(metadata_xml()))
        writer.attach("SlidePreview", "CZI", preview.to_bytes(metadata_xml()))
        writer.attach("Thumbnail", "JPG", _jpeg(drawn(80, 100, 10)))
    xml = metadata_xml(
        image=_SLIDE_IMAGE,
        instrument=_SLIDE_INSTRUMENT,
        rest=_LABEL_XML,
        attributes={"NeedsPyramidRecalculation": "true"} if stale else None,
    )
    return writer.save(folder / "slide.czi", xml)


def write_jpeg_xr(folder: Path) -> Path:
    """:func:`write_slide` of JPEG XR, without the attachments."""
    return write_slide(folder, compression=JPEG_XR, attachments=False)


def write_channels(
    folder: Path, *, times: int = 1, colour: bool = False, spacing_z_um: float | None = 2.0
) -> Path:
    """Two channels of 16 bits, two focal planes from the top down, ``times`` points
    in time; ``colour`` adds a brightfield channel."""
    writer = CziWriter()
    for time in range(times):
        for channel in range(2):
            for plane in range(2):
                pixels = grey16(channel, plane, 200, 300) + np.uint16(time)
                writer.add(pixels, 0, 0, compression=ZSTD_1, C=channel, Z=plane, T=time)
        if colour:
            writer.add(drawn(200, 300), 0, 0, C=2, Z=0, T=time)
    rest = ""
    if spacing_z_um is not None:
        rest += "<Z><Positions><Interval><Increment>-2</Increment></Interval></Positions></Z>"
    rest += (
        "<T><StartTime>2024-05-06T07:08:09Z</StartTime>"
        "<Positions><List><Offsets>5 65 125</Offsets></List></Positions></T>"
    )
    return writer.save(
        folder / "channels.czi", metadata_xml(image=_CHANNELS.format(rest=rest), z_um=spacing_z_um)
    )


def write_samples(
    folder: Path,
    pixels: NDArray[np.generic],
    *,
    bits: int = 16,
    compression: int = 0,
    data: bytes | None = None,
) -> Path:
    """One tile of the given (rows, columns, samples), or of JPEG XR ``data`` made of them."""
    writer = CziWriter()
    writer.add(pixels, 0, 0, compression=compression if data is None else JPEG_XR, data=data, C=0)
    image = (
        f"<ComponentBitCount>{bits}</ComponentBitCount>"
        '<Dimensions><Channels><Channel Id="Channel:0" Name="one"/></Channels></Dimensions>'
    )
    return writer.save(folder / "samples.czi", metadata_xml(image=image))


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()
