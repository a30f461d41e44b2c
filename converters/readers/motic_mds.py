# SPDX-License-Identifier: Apache-2.0
"""Motic MDS: an OLE2 compound file with a storage for each layer and a stream for each tile.

``DSI0/<scale>/RRRR_CCCC`` are the tiles (whole JPEGs; scale is "1", "0.5", ... as the XML
writes it), ``DSI0/MoticDigitalSlideImage`` and ``Property`` the XML, ``Label`` and ``Macro``
pictures. A tile that was not scanned has no stream. A stream's sectors need not be
neighbours: then the tile is gathered from pieces, still without decoding.

Sources: moticreader (MIT) and public readers of MDS (facts); [MS-CFB]; :mod:`motic_words`.
"""

import re
from functools import partial

from converters.errors import DamagedSlide
from converters.probe import Probe
from converters.readers.compound_file import MAGIC, CompoundFile
from converters.readers.encoded_tiles import MAX_ASSOCIATED_BYTES, associated_picture, check_ranges
from converters.readers.left_out import unless_damaged
from converters.readers.motic_words import MAX_XML_BYTES, Layer, levels, motic_words
from converters.slide import AssociatedImage, GatherMap, Role, Scene, Slide, SourceFile, TileMap

IMAGE = "MoticDigitalSlideImage"
TILE = re.compile(r"(\d{1,7})_(\d{1,7})")
PICTURES = (("Label", Role.LABEL), ("Macro", Role.OVERVIEW))


class MoticMdsReader:
    """See :class:`converters.registry.Reader`."""

    format = "motic-mds"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        if not probe.head.startswith(MAGIC):
            return "not a compound file (OLE2)"
        try:
            names = CompoundFile(probe.path, probe.size_bytes).children()
        except (DamagedSlide, OSError):
            # a damaged one is ours by its name only: others are Office documents and ZVI slides
            return None if probe.path.suffix.lower() == ".mds" else "a compound file that is damaged"
        return None if "DSI0" in names else "a compound file without the storage DSI0"

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression."""
        return _slide(probe, CompoundFile(probe.path, probe.size_bytes))


def _slide(probe: Probe, file: CompoundFile) -> Slide:
    root = file.children()
    if "DSI0" not in root or not file.is_storage(root["DSI0"]):
        raise DamagedSlide("the compound file has no storage DSI0")
    inner = file.children(root["DSI0"])
    if IMAGE not in inner or not file.is_stream(inner[IMAGE]):
        raise DamagedSlide(f"the compound file has no stream {IMAGE}")
    words = motic_words(
        file.read(inner[IMAGE], MAX_XML_BYTES),
        file.read(root["Property"], MAX_XML_BYTES) if "Property" in root else b"",
    )
    findings: list[str] = []
    maps: dict[int, TileMap | GatherMap] = {}
    for number, layer in enumerate(words.layers):
        storage = _storage(inner, layer)
        if storage is not None and file.is_storage(storage):
            maps[number] = _tiles(file, storage, layer, number, findings)
    scene = Scene(0, levels(words, maps, probe.path, findings), (words.optical_path(),))
    return Slide(
        format=MoticMdsReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=(scene,),
        associated=_associated(file, root, findings),
        scan=words.scan(),
        findings=tuple(findings),
    )


def _storage(inner: dict[str, int], layer: Layer) -> int | None:
    """The layer's storage: named by the scale as written, or by the same number."""
    if layer.scale in inner:
        return inner[layer.scale]
    for name, number in inner.items():
        try:
            if float(name) == float(layer.scale):
                return number
        except ValueError:
            continue
    return None


def _tiles(
    file: CompoundFile, storage: int, layer: Layer, number: int, findings: list[str]
) -> TileMap | GatherMap:
    streams, places = [], []
    outside = 0
    for name, entry in file.children(storage).items():
        place = TILE.fullmatch(name)
        if place is None or not file.is_stream(entry):
            continue
        row, column = int(place[1]), int(place[2])
        if row >= layer.cell_rows or column >= layer.cell_columns:
            outside += 1
            continue
        streams.append(entry)
        places.append(row * layer.cell_columns + column)
    if len(set(places)) != len(places):
        raise DamagedSlide(f"layer {number} has two tiles at one place")
    if outside:
        findings.append(f"{outside} tiles of layer {number} lie outside of its rows and columns: left out")
    tiles = file.tiles(streams, layer.cells, places)
    check_ranges(tiles.offsets, tiles.lengths, file.size_bytes, f"layer {number}")
    return tiles


def _picture(role: Role, file: CompoundFile, number: int) -> AssociatedImage:
    return associated_picture(role, file.read(number, MAX_ASSOCIATED_BYTES))


def _associated(file: CompoundFile, root: dict[str, int], findings: list[str]) -> tuple[AssociatedImage, ...]:
    found: list[AssociatedImage] = []
    for name, role in PICTURES:
        if name in root and file.is_stream(root[name]) and file.sizes[root[name]]:
            picture = partial(_picture, role, file, root[name])
            found += unless_damaged(role, findings, picture)
    return tuple(found)
