# SPDX-License-Identifier: Apache-2.0
"""The two XML texts of a Motic slide, the same in MDS and MDSX: what the image is
(``MoticDigitalSlideImage``) and how it was scanned (``Property``).

Every element holds its value in an attribute: ``<Width value="2048"/>``. The image's
``ImageMatrix`` gives width, height, cell size, background and the layers, ``Layer0`` the
finest, each with its scale (1, 0.5, 0.25, ...) and its rows and columns of cells. Cells are
whole at the right and lower edges too; a layer is its size times its scale, rounded down.
``Scale`` of ``Property`` is the pixel size in µm, ``ScanObjective`` the magnification.

Traps: the text is UTF-16 in MDS and base64 over UTF-16LE in MDSX, with zeros and line ends
after it, and its XML declaration may name another encoding.

Sources: moticreader (MIT); openslide pull requests 622 and 624 (facts).
"""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from archive.part10.codestream import sniff
from archive.part10.errors import Part10Error
from converters.errors import DamagedSlide
from converters.readers.encoded_tiles import MAX_TILES, reference, tile_bytes
from converters.slide import Colour, GatherMap, Level, OpticalPath, PixelType, Scan, TileMap

MAX_XML_BYTES = 16 << 20
MAX_LAYERS = 32
MAX_PROPERTIES = 5000
MANUFACTURER = "Motic"
BARCODE = ("barcode", "slidebarcode", "slide.barcode")
LABEL_TEXT = ("labeltext", "slidelabel", "slide.label")
SCANNED = ("scantime", "scandatetime", "scandate", "createtime", "createdate")
SOFTWARE = ("softwareversion", "software")
MODEL = ("scannermodel", "scannertype", "devicemodel")
SERIAL = ("scannerserialnumber", "serialnumber", "deviceserialnumber")
TIME_FORMS = (
    "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y%m%d%H%M%S", "%Y-%m-%d", "%Y/%m/%d",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """One resolution: ``scale`` as written (it names a storage in MDS), cells down and across."""

    scale: str
    cell_rows: int
    cell_columns: int

    @property
    def cells(self) -> int:
        return self.cell_rows * self.cell_columns


@dataclass(frozen=True, slots=True)
class MoticWords:
    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    layers: tuple[Layer, ...]
    background: Colour | None
    properties: dict[str, str]
    description: str

    @property
    def pixel_spacing_mm(self) -> tuple[float, float] | None:
        micrometres = _number(self.properties.get("scale", ""))
        if micrometres is None or not 0.02 <= micrometres <= 100:
            return None
        return micrometres / 1000, micrometres / 1000

    def optical_path(self) -> OpticalPath:
        power = _number(self.properties.get("scanobjective", ""))
        return OpticalPath(objective_power=power if power is not None and 0 < power <= 200 else None)

    def scan(self) -> Scan:
        software = self._first(SOFTWARE)
        return Scan(
            manufacturer=MANUFACTURER,
            model_name=self._first(MODEL),
            device_serial_number=self._first(SERIAL),
            software_versions=(software,) if software else (),
            acquired=_time(self._first(SCANNED)),
            barcode=self._first(BARCODE),
            label_text=self._first(LABEL_TEXT),
            description=self.description,
            properties=dict(self.properties),
        )

    def _first(self, keys: tuple[str, ...]) -> str:
        return next((self.properties[key] for key in keys if self.properties.get(key)), "")


def motic_words(image_xml: bytes, property_xml: bytes) -> MoticWords:
    """Raises DamagedSlide where the image's text cannot be used; a ``Property`` that is
    empty or unreadable only leaves its values out."""
    image_text = xml_text(image_xml)
    root = _parsed(image_text, "MoticDigitalSlideImage")
    matrix = root if root.tag == "ImageMatrix" else root.find("ImageMatrix")
    if matrix is None:
        raise DamagedSlide("the slide's XML has no ImageMatrix")
    columns, rows = _count(matrix, "Width", 2**31 - 1), _count(matrix, "Height", 2**31 - 1)
    tile_columns, tile_rows = _count(matrix, "CellWidth", 65535), _count(matrix, "CellHeight", 65535)
    layers = []
    for number in range(_count(matrix, "LayerCount", MAX_LAYERS)):
        layer = matrix.find(f"Layer{number}")
        if layer is None:
            raise DamagedSlide(f"the slide's XML does not describe layer {number}")
        scale = _value(layer, "Scale")
        if not 0 < (_number(scale) or 0) <= 1:
            raise DamagedSlide(f"layer {number} has an impossible scale")
        layers.append(Layer(scale, _count(layer, "Rows", MAX_TILES), _count(layer, "Cols", MAX_TILES)))
        if layers[-1].cells > MAX_TILES:
            raise DamagedSlide(f"layer {number} has more than {MAX_TILES} tiles")
    properties: dict[str, str] = {}
    property_text = xml_text(property_xml) if property_xml else ""
    for text, source in ((property_text, "Property"), (image_text, "MoticDigitalSlideImage")):
        if text:
            _collect(_parsed(text, source), "", properties)
    return MoticWords(
        rows, columns, tile_rows, tile_columns, tuple(layers), _background(matrix), properties, property_text
    )


def xml_text(data: bytes) -> str:
    """The XML in one of its wrappings, without its declaration. Raises DamagedSlide."""
    if len(data) > MAX_XML_BYTES:
        raise DamagedSlide("the slide's XML is too long")
    stripped = data.strip(b"\0\r\n\t ")
    if not stripped.startswith((b"<", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        try:
            data = base64.b64decode(re.sub(rb"[\0\r\n\t ]", b"", stripped), validate=True)
        except binascii.Error as error:
            raise DamagedSlide("the slide's XML is no base64") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        coding = "utf-16"
    elif data[1:2] == b"\0":
        coding = "utf-16-le"
    else:
        coding = "utf-8-sig"
    text = data[: len(data) & ~1 if coding.startswith("utf-16") else len(data)].decode(coding, "replace")
    text = text[text.find("<") :].rstrip("\0\r\n\t ")
    return re.sub(r"^<\?xml.*?\?>", "", text, flags=re.DOTALL)


def levels(
    words: MoticWords, maps: dict[int, TileMap | GatherMap], path: Path, findings: list[str]
) -> tuple[Level, ...]:
    """``maps`` holds the tiles of the layers that the file has, by the layer's number and in
    the order of its grid. Raises DamagedSlide."""
    found: list[Level] = []
    spacing = words.pixel_spacing_mm
    for number, layer in enumerate(words.layers):
        tiles = maps.get(number)
        if tiles is None or bool(tiles.absent.all()):
            if number == 0:
                raise DamagedSlide("the finest layer has no tiles")
            findings.append(f"layer {number} is listed but has no tiles: left out")
            continue
        factor = 1 / float(layer.scale)
        rows, columns = max(1, int(words.rows / factor)), max(1, int(words.columns / factor))
        down, across = -(-rows // words.tile_rows), -(-columns // words.tile_columns)
        if down > layer.cell_rows or across > layer.cell_columns:
            raise DamagedSlide(f"layer {number} has too few cells for its size")
        tiles = _cropped(tiles, layer, down, across)
        found.append(
            Level(
                index=len(found),
                rows=rows,
                columns=columns,
                tile_rows=words.tile_rows,
                tile_columns=words.tile_columns,
                tiles=tiles,
                pixel_type=PixelType(samples_per_pixel=(samples := _samples(path, tiles, number))),
                pixel_spacing_mm=(spacing[0] * factor, spacing[1] * factor) if spacing else None,
                downsample=factor,
                reference=reference(path, tiles, words.tile_rows, words.tile_columns, samples),
                absent_colour=words.background,
            )
        )
    return tuple(found)


def _samples(path: Path, tiles: TileMap | GatherMap, number: int) -> int:
    first = int(np.flatnonzero(~tiles.absent)[0])
    try:
        stream = sniff(tile_bytes(path, tiles, first))
    except Part10Error as error:
        raise DamagedSlide(f"tiles of layer {number} are no images") from error
    return 1 if stream.components == 1 else 3


def _cropped(tiles: TileMap | GatherMap, layer: Layer, down: int, across: int) -> TileMap | GatherMap:
    """Without the cells that lie outside of the layer's size."""
    if (down, across) == (layer.cell_rows, layer.cell_columns):
        return tiles
    grid: NDArray[np.int64] = np.arange(layer.cells).reshape(layer.cell_rows, layer.cell_columns)
    kept = grid[:down, :across].reshape(-1)
    if isinstance(tiles, TileMap):
        return TileMap(tiles.offsets[kept], tiles.lengths[kept], tiles.source)
    counts = (tiles.index[1:] - tiles.index[:-1])[kept].astype(np.int64)
    index = np.concatenate((np.zeros(1, np.uint64), np.cumsum(counts).astype(np.uint64)))
    starts = np.repeat(tiles.index[:-1][kept].astype(np.int64) - index[:-1].astype(np.int64), counts)
    pieces = starts + np.arange(int(index[-1]))
    return GatherMap(
        index,
        tiles.offsets[pieces],
        tiles.lengths[pieces],
        tiles.literal[pieces],
        tiles.literals,
        tiles.source,
    )


def _parsed(text: str, what: str) -> Element:
    try:
        root: Element = fromstring(text)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise DamagedSlide(f"the slide's XML ({what}) cannot be parsed") from error
    return root


def _value(parent: Element, name: str) -> str:
    child = parent.find(name)
    return "" if child is None else child.get("value", "").strip()


def _count(parent: Element, name: str, most: int) -> int:
    text = _value(parent, name)
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 12 and 0 < int(text) <= most):
        raise DamagedSlide(f"the slide's XML has no usable {name}")
    return int(text)


def _background(matrix: Element) -> Colour | None:
    text = _value(matrix, "BackgroundColor")
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) < 1 << 24):
        return None
    value = int(text)
    return value >> 16, value >> 8 & 255, value & 255


def _collect(element: Element, path: str, into: dict[str, str]) -> None:
    """Every value below, keyed by its path in lower case; the first of a name stays."""
    pending = [(element, path)]
    while pending:
        parent, prefix = pending.pop()
        for child in parent:
            key = f"{prefix}{child.tag}".lower()
            value = child.get("value") or (child.text or "").strip()
            if value and len(into) < MAX_PROPERTIES:
                into.setdefault(key, value)
            pending.append((child, f"{key}."))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _time(text: str) -> datetime | None:
    for form in TIME_FORMS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None
