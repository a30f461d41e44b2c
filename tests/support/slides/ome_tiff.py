# SPDX-License-Identifier: Apache-2.0
"""OME-TIFFs, drawn for tests: pyramids below pages, channels, planes, time points, scenes,
several files, and the way that Lunaphore uses the format."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.support.make_slide import picture
from tests.support.slides.jpeg_pages import write_tiled

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
UUID = "urn:uuid:00000000-0000-4000-8000-0000000000"
MARKERS = ("DAPI", "TRITC_CD3", "Cy5_CD20", "TRITC_PanCK", "Cy5_Ki67")
FLUORS = {"DAPI": (385, 455), "TRITC": (555, 585), "Cy5": (640, 680)}
"""Excitation and emission in nm."""
CHANNELS = tuple(
    f'Name="{name}" Fluor="{name.split("_")[0]}" '
    f'ExcitationWavelength="{FLUORS[name.split("_")[0]][0]}" '
    f'EmissionWavelength="{FLUORS[name.split("_")[0]][1]}" Color="{-16776961 + 65536 * number}"'
    for number, name in enumerate(MARKERS)
)
LUNAPHORE = (
    '<StructuredAnnotations><XMLAnnotation ID="Annotation:0"><Value><OriginalMetadata><Key>Instrument</Key>'
    "<Value>Lunaphore COMET</Value></OriginalMetadata></Value></XMLAnnotation></StructuredAnnotations>"
)
INSTRUMENT = (
    '<Instrument ID="Instrument:0"><Microscope Manufacturer="Maker" Model="M-7" SerialNumber="0042"/>'
    '<Objective ID="Objective:0" NominalMagnification="20" LensNA="0.75"/></Instrument>'
)
USES_INSTRUMENT = '<InstrumentRef ID="Instrument:0"/><ObjectiveSettings ID="Objective:0"/>'


@dataclass
class Image:
    """One Image: ``pixels`` are (T, C, Z, rows, columns) or, in colour, (T, C, Z, rows,
    columns, samples). ``channels`` are attributes, ``microns`` (columns, rows, planes);
    ``planes`` are Plane elements, ``before`` elements that stand before Pixels."""

    pixels: NDArray[Any]
    name: str = ""
    channels: Sequence[str] = ()
    microns: tuple[float | None, float | None, float | None] = (0.5, 0.5, None)
    acquired: str = "2023-05-04T10:11:12"
    planes: str = ""
    before: str = ""
    order: str = "XYCZT"
    form: dict[str, Any] = field(default_factory=dict)
    """How TiffWriter writes its pages."""

    @property
    def samples(self) -> int:
        return self.pixels.shape[5] if self.pixels.ndim == 6 else 1

    def raster(self) -> list[NDArray[Any]]:
        """The planes in the order of the file."""
        axes = {"T": 0, "C": 1, "Z": 2}
        slowest, middle, fastest = (axes[axis] for axis in reversed(self.order[2:]))
        ordered = np.moveaxis(self.pixels, (slowest, middle, fastest), (0, 1, 2))
        return list(ordered.reshape(-1, *ordered.shape[3:]))


def grey(
    channels: int = 1, planes: int = 1, times: int = 1, *, rows: int, columns: int, dtype: str
) -> NDArray[Any]:
    """(T, C, Z, rows, columns) of values that differ in every plane."""
    base = picture(rows, columns, 61).astype(np.float64)
    out = np.zeros((times, channels, planes, rows, columns), np.float64)
    for number, place in enumerate(np.ndindex(times, channels, planes)):
        out[place] = base[..., number % 3] / 255 * (0.6 + 0.4 * (number % 7) / 7)
    if dtype.startswith("float"):
        return (out * 7 - 2).astype(dtype)
    info = np.iinfo(dtype)
    return (out * (int(info.max) - int(info.min)) + int(info.min)).astype(dtype)


def colour(rows: int, columns: int, seed: int = 61) -> NDArray[Any]:
    """(1, 1, 1, rows, columns, 3)."""
    return picture(rows, columns, seed)[np.newaxis, np.newaxis, np.newaxis]


def document(
    images: Sequence[Image],
    *,
    files: Sequence[str] = (),
    creator: str = "Writer 1.2",
    instrument: str = INSTRUMENT,
    annotations: str = "",
) -> str:
    """The OME-XML. ``files``: plane by plane of the first image, the file that holds it
    (as its only page); none where all is in one file."""
    text, ifd = "", 0
    for number, image in enumerate(images):
        times, channels, depth, rows, columns = image.pixels.shape[:5]
        sizes = {"X": columns, "Y": rows, "Z": depth, "C": channels * image.samples, "T": times}
        attributes = "".join(f' Size{axis}="{size}"' for axis, size in sizes.items())
        for axis, size in zip("XYZ", image.microns, strict=True):
            if size is not None:
                attributes += f' PhysicalSize{axis}="{size}"'
        kind = {"float32": "float", "float64": "double"}.get(image.pixels.dtype.name, image.pixels.dtype.name)
        text += f'<Image ID="Image:{number}" Name={quoteattr(image.name)}>'
        text += f"<AcquisitionDate>{image.acquired}</AcquisitionDate>" if image.acquired else ""
        text += f'{image.before}<Pixels ID="Pixels:{number}" DimensionOrder="{image.order}"'
        text += f' Type="{kind}"{attributes}>'
        for channel in range(channels):
            words = image.channels[channel] if image.channels else ""
            text += f'<Channel ID="Channel:{number}:{channel}" SamplesPerPixel="{image.samples}" {words}/>'
        count = times * channels * depth
        if files:
            order = image.order[2:]
            limits = {"T": times, "C": channels, "Z": depth}
            for at, name in enumerate(files):
                place = f' First{order[0]}="{at % limits[order[0]]}"'
                rest = at // limits[order[0]]
                place += f' First{order[1]}="{rest % limits[order[1]]}"'
                place += f' First{order[2]}="{rest // limits[order[1]]}"'
                text += f'<TiffData IFD="0" PlaneCount="1"{place}>'
                text += f'<UUID FileName="{name}">{UUID}{at:02d}</UUID></TiffData>'
        else:
            text += f'<TiffData IFD="{ifd}" PlaneCount="{count}"/>'
        text += f"{image.planes}</Pixels></Image>"
        ifd += count
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{NAMESPACE}" UUID="{UUID}00" '
        f"Creator={quoteattr(creator)}>{instrument}{text}{annotations}</OME>"
    )


def write_ome(
    folder: Path,
    images: Sequence[Image],
    *,
    levels: Sequence[int] = (1,),
    name: str = "slide.ome.tiff",
    **words: Any,
) -> Path:
    """Write ``images`` into one file; coarser ``levels`` (every n-th pixel) below each page."""
    path = folder / name
    text = document(images, **words)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, image in enumerate(images):
            for place, plane in enumerate(image.raster()):
                description = text if number == place == 0 else None
                _write_page(writer, plane, image, levels, description)
    return path


def _write_page(
    writer: tifffile.TiffWriter, plane: NDArray[Any], image: Image, levels: Sequence[int], text: str | None
) -> None:
    for level, factor in enumerate(levels):
        pixels = np.ascontiguousarray(plane[::factor, ::factor])
        options: dict[str, Any] = {"subfiletype": int(level > 0), "software": False}
        if level == 0 and len(levels) > 1:
            options["subifds"] = len(levels) - 1
        description = text.encode() if text and level == 0 else None
        form = dict(image.form)
        if form.get("compression") == "jpeg" and "tile" in form:
            write_tiled(
                writer, pixels, form["tile"][0], description=description, subsampling=(2, 1), **options
            )
            continue
        form.setdefault("photometric", "rgb" if image.samples == 3 else "minisblack")
        if form.get("planarconfig") == "separate":
            pixels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        writer.write(pixels, metadata=None, description=description, **form, **options)


def write_lunaphore(folder: Path, *, rows: int = 900, columns: int = 1000, tile: int = 256) -> Path:
    """Five channels of 16 bits, deflated, in three resolutions."""
    image = Image(
        grey(5, rows=rows, columns=columns, dtype="uint16"),
        name="COMET cycle stack",
        channels=CHANNELS,
        microns=(0.23, 0.23, None),
        planes="".join(
            f'<Plane TheZ="0" TheC="{channel}" TheT="0" ExposureTime="{20 + channel}" ExposureTimeUnit="ms"/>'
            for channel in range(5)
        ),
        form={"tile": (tile, tile), "compression": "zlib"},
    )
    return write_ome(folder, [image], levels=(1, 2, 4), instrument="", annotations=LUNAPHORE)


def write_brightfield(
    folder: Path, *, rows: int = 900, columns: int = 1000, compression: str = "jpeg"
) -> Path:
    """RGB tiles of JPEG or JPEG 2000 in three resolutions, with label and macro images."""
    form = {"tile": (256, 256), "compression": compression}
    plain = {"compression": "lzw"}
    images = [
        Image(colour(rows, columns), name="region", before=USES_INSTRUMENT, form=form),
        Image(colour(120, 160, 62), name="slide label", microns=(None, None, None), form=plain),
        Image(colour(150, 400, 63), name="macro image", microns=(None, None, None), form=plain),
    ]
    path = folder / "slide.ome.tiff"
    text = document(images)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, image in enumerate(images):
            levels = (1, 2, 4) if number == 0 else (1,)
            _write_page(writer, image.raster()[0], image, levels, text if number == 0 else None)
    return path


def write_ome_files(
    folder: Path, *, rows: int = 300, columns: int = 400, channels: int = 3, companion: bool = False
) -> Path:
    """Each channel in a file of its own, the first of which is returned; the XML in all of
    them or, with ``companion``, in a file of its own."""
    image = Image(
        grey(channels, rows=rows, columns=columns, dtype="uint16"),
        channels=CHANNELS[:channels],
        form={"tile": (128, 128), "compression": "zlib"},
    )
    names = [f"slide_{channel}.ome.tiff" for channel in range(channels)]
    text = document([image], files=names)
    for number, (name, plane) in enumerate(zip(names, image.raster(), strict=True)):
        words = text.replace(f'{UUID}00" Creator', f'{UUID}{number:02d}" Creator')
        if companion:
            words = (
                f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{NAMESPACE}" UUID="{UUID}{number:02d}">'
                f'<BinaryOnly MetadataFile="slide.companion.ome" UUID="{UUID}99"/></OME>'
            )
        with tifffile.TiffWriter(folder / name) as writer:
            _write_page(writer, plane, image, (1,), words)
    if companion:
        (folder / "slide.companion.ome").write_text(text, encoding="utf-8")
    return folder / names[0]
