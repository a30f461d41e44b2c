# SPDX-License-Identifier: Apache-2.0
"""Work on pixels, tile by tile: decode, encode, shrink. :class:`Bench` says what can be
asked, :class:`TileWork` does it in this process, ``converters.workshop`` in children.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from archive.part10.errors import Part10Error
from converters.codecs import CodecError, decode, encode
from converters.codecs.errors import as_refusal, ran_short
from converters.errors import ConversionError, DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.slide import Colour, GatherMap, Illumination, Level, Pixels, PixelTiles, Scene, Slide, TileMap
from converters.writer.blank import blank_tile
from converters.writer.coding import FrameCoding
from converters.writer.survey import Heads, Kind, gathered_piece

JPEG_UID, JPEG_2000_UID = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"
MAX_TILE_PIXELS = 1 << 26
BATCH_PIXELS = 1 << 21  # pixels of one request to a child: enough to make its price small
MAX_BATCH_QUADS = 16


class Half(bytes):
    """Pixels of a tile at half its size, as :func:`halved` gives them, row by row."""


@dataclass(frozen=True, slots=True)
class Quad:
    """Four tiles of a level, row by row, that make one of the next coarser: each is an
    index into the scanner's tiles, a frame of ours, or None where there is none; or all
    that are there are halves already.
    ``rows`` and ``columns`` of the four together lie within the level. Quads of a ``lane``
    are neighbours: who works on one should get the next."""

    tiles: tuple[int | bytes | None, ...]
    rows: int
    columns: int
    lane: int | None = None


class Bench(Protocol):
    """Who does the work. Levels are named by (scene, level), both from 0."""

    lanes: int
    """How many work beside each other."""

    def frames(
        self,
        scene: int,
        level: int,
        quads: Iterable[Quad],
        coding: FrameCoding,
        halves: list[Half] | None = None,
        *,
        coarser: bool = False,
    ) -> Iterator[list[bytes]]:
        """For each quad of the scanner's tiles, by their indexes: its four encoded, b"" for one
        that is not there; as a fifth, where ``coarser``, what :meth:`shrunk` makes of them, with
        its half in ``halves``. Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""

    def shrunk(
        self,
        scene: int,
        level: int,
        quads: Iterable[Quad],
        coding: FrameCoding,
        halves: list[Half] | None = None,
    ) -> Iterator[bytes]:
        """The next coarser tiles, averaged by area, encoded; b"" where all four are
        missing. ``level`` is the scanner's: it gives size, colours and numbered tiles.
        ``halves``, where given, gets those of the new tiles, whose edges must be even."""

    def image(self, number: int) -> NDArray[np.uint8]:
        """Pixels of the slide's associated image of this number, from 0."""

    def encoded_image(self, number: int, transfer_syntax_uid: str) -> bytes:
        """That image as a frame in a lossless transfer syntax."""

    def barcodes(self, number: int) -> str:
        """The symbols on that image, one a line (see :func:`converters.barcode.read_barcodes`)."""

    def image_agrees(self, number: int, frame: bytes, transfer_syntax_uid: str, photometric: str) -> bool:
        """Whether a written frame decodes to that image's pixels."""

    def blank(self, scene: int, level: int, coding: FrameCoding) -> bytes:
        """The frame of a tile that the scanner left out."""

    def blank_like(self, scene: int, level: int, index: int) -> bytes:
        """The same for a level whose tiles are copied, in the form of the tile of this index."""

    def agrees(
        self, scene: int, level: int, index: int, frame: bytes, transfer_syntax_uid: str, photometric: str
    ) -> bool:
        """Whether a written frame decodes to the pixels that the reader gives, its own
        way, for the tile of this index."""


class TileWork:
    """A :class:`Bench` in this process, on a slide that is open here."""

    lanes = 1

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._stack = ExitStack()
        self._fds = _OpenSources(slide, self._stack)
        self._heads: dict[tuple[int, int], Heads] = {}

    def close(self) -> None:
        self._stack.close()

    def frames(
        self,
        scene: int,
        level: int,
        quads: Iterable[Quad],
        coding: FrameCoding,
        halves: list[Half] | None = None,
        *,
        coarser: bool = False,
    ) -> Iterator[list[bytes]]:
        for quad in quads:
            made: list[bytes] = []

            def tiles(quad: Quad = quad, made: list[bytes] = made) -> Iterator[NDArray[Any] | None]:
                for tile in quad.tiles:
                    pixels = self._tile(scene, level, tile, coding)
                    made.append(b"" if pixels is None else self._encode(scene, level, pixels, coding))
                    yield pixels

            if coarser:
                small = self._joined(scene, level, tiles(), quad)
                made.append(self._shrunk(scene, level, small, coding, halves))
            else:
                deque(tiles(), maxlen=0)
            yield made

    def shrunk(
        self,
        scene: int,
        level: int,
        quads: Iterable[Quad],
        coding: FrameCoding,
        halves: list[Half] | None = None,
    ) -> Iterator[bytes]:
        for quad in quads:
            yield self._shrunk(scene, level, self._shrink(scene, level, quad, coding), coding, halves)

    def _shrunk(
        self,
        scene: int,
        level: int,
        pixels: NDArray[Any] | None,
        coding: FrameCoding,
        halves: list[Half] | None,
    ) -> bytes:
        if halves is not None:
            halves.append(Half() if pixels is None else Half(halved(pixels).tobytes()))
        return b"" if pixels is None else self._encode(scene, level, pixels, coding)

    def image(self, number: int) -> NDArray[np.uint8]:
        image = self._slide.associated[number]
        pixels = image.read()
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[:2] != (image.rows, image.columns):
            raise DamagedSlide(f"the {image.role.value.lower()} image is not as large as it says")
        return np.ascontiguousarray(pixels)

    def encoded_image(self, number: int, transfer_syntax_uid: str) -> bytes:
        return encode(self.image(number), transfer_syntax_uid)

    def barcodes(self, number: int) -> str:
        from converters.barcode import read_barcodes  # only who looks for them loads the library

        return read_barcodes(self.image(number))

    def image_agrees(self, number: int, frame: bytes, transfer_syntax_uid: str, photometric: str) -> bool:
        expected = self.image(number)
        return _decodes_to(expected, frame, transfer_syntax_uid, *expected.shape, 8, photometric)

    def blank_like(self, scene: int, level: int, index: int) -> bytes:
        kept = self._level(scene, level)
        if isinstance(kept.tiles, PixelTiles):
            raise UnsupportedPixels(f"tiles of level {level} are no codestreams")
        kind = self._kind(scene, level, self._bytes(kept.tiles, index), index)
        return blank_tile(kind, absent_colour(self._slide.scenes[scene], kept))

    def blank(self, scene: int, level: int, coding: FrameCoding) -> bytes:
        kept = self._level(scene, level)
        return self._encode(
            scene, level, self._filled(scene, kept, kept.tile_rows, kept.tile_columns), coding
        )

    def agrees(
        self, scene: int, level: int, index: int, frame: bytes, transfer_syntax_uid: str, photometric: str
    ) -> bool:
        kept = self._level(scene, level)
        expected = kept.reference(index) if kept.reference else self.pixels(scene, level, index)
        rows, columns, samples = kept.tile_rows, kept.tile_columns, kept.pixel_type.samples_per_pixel
        return _decodes_to(
            expected, frame, transfer_syntax_uid, rows, columns, samples, kept.pixel_type.bits_allocated,
            photometric,
        )  # fmt: skip

    def pixels(self, scene: int, level: int, index: int) -> Pixels:
        """A tile as (tile rows, tile columns, samples), RGB or grey."""
        kept = self._level(scene, level)
        if isinstance(kept.tiles, PixelTiles):
            try:
                pixels = kept.tiles.read(index)
            except ConversionError:
                raise
            except (MemoryError, KeyboardInterrupt):
                raise
            except Exception as error:  # whatever a library raises: all mean damaged data
                raise DamagedSlide(
                    f"tile {index + 1} of level {level} cannot be decoded ({type(error).__name__})"
                ) from error
        else:
            data = self._bytes(kept.tiles, index)
            pixels = decoded_tile(data, self._kind(scene, level, data, index), kept)
        shape = (kept.tile_rows, kept.tile_columns, kept.pixel_type.samples_per_pixel)
        if pixels.shape != shape or pixels.dtype.itemsize * 8 != kept.pixel_type.bits_allocated:
            raise DamagedSlide(f"tile {index + 1} of level {level} is not as large as the file says")
        return pixels

    def _level(self, scene: int, level: int) -> Level:
        return self._slide.scenes[scene].levels[level]

    def _encode(self, scene: int, level: int, pixels: NDArray[Any], coding: FrameCoding) -> bytes:
        bits = self._level(scene, level).pixel_type.bits_allocated
        return encode(pixels, coding.transfer_syntax_uid, coding.quality or 85, bits_stored=bits)

    def _bytes(self, tiles: TileMap | GatherMap, index: int) -> bytes:
        if isinstance(tiles, TileMap):
            fd = self._fds[int(tiles.files[index])]
            return os.pread(fd, int(tiles.lengths[index]), int(tiles.offsets[index]))
        return gathered(tiles, index, self._fds)

    def _kind(self, scene: int, level: int, data: bytes, index: int) -> Kind:
        heads = self._heads.setdefault((scene, level), Heads(self._level(scene, level)))
        kind_id = heads.find(data)
        if kind_id is None:
            try:
                learned = heads.learn(data)
            except Part10Error:
                learned = None
            if learned is None:
                raise DamagedSlide(f"tile {index + 1} of level {level} is damaged")
            kind_id = learned[0]
        return heads.kinds[kind_id]

    def _filled(self, scene: int, level: Level, rows: int, columns: int) -> NDArray[Any]:
        samples = level.pixel_type.samples_per_pixel
        kind = np.uint8 if level.pixel_type.bits_allocated == 8 else np.uint16
        pixels: NDArray[Any] = np.empty((rows, columns, samples), kind)
        colour = absent_colour(self._slide.scenes[scene], level)
        for sample in range(samples):  # many times as fast as all at once
            pixels[..., sample] = colour if isinstance(colour, int) else colour[sample]
        return pixels

    def _shrink(self, scene: int, level: int, quad: Quad, coding: FrameCoding) -> NDArray[Any] | None:
        kept = self._level(scene, level)
        if not any(isinstance(tile, Half) for tile in quad.tiles):
            tiles = (self._tile(scene, level, tile, coding) for tile in quad.tiles)
            return self._joined(scene, level, tiles, quad)
        rows, columns = kept.tile_rows, kept.tile_columns
        canvas = self._filled(scene, kept, rows, columns)
        for place, tile in enumerate(quad.tiles):
            if tile is not None:
                part = canvas[_part(place, rows // 2, columns // 2)]
                part[...] = np.frombuffer(tile, canvas.dtype).reshape(part.shape)  # type: ignore[arg-type]
        return _padded(canvas[: (quad.rows + 1) // 2, : (quad.columns + 1) // 2], rows, columns)

    def _joined(
        self, scene: int, level: int, tiles: Iterable[NDArray[Any] | None], quad: Quad
    ) -> NDArray[Any] | None:
        """Four tiles as one at half their size; None where there are none. Holds one at a time."""
        kept = self._level(scene, level)
        rows, columns = kept.tile_rows, kept.tile_columns
        canvas: NDArray[Any] | None = None
        for place, tile in enumerate(tiles):
            if tile is not None:
                if canvas is None:
                    canvas = self._filled(scene, kept, 2 * rows, 2 * columns)
                canvas[_part(place, rows, columns)] = tile
        if canvas is None:
            return None
        return _padded(halved(canvas[: quad.rows, : quad.columns]), rows, columns)

    def _tile(
        self, scene: int, level: int, tile: int | bytes | None, coding: FrameCoding
    ) -> NDArray[Any] | None:
        """Of the scanner's, by its index, or of a frame of ours."""
        if tile is None:
            return None
        if isinstance(tile, int):
            return self.pixels(scene, level, tile)
        kept = self._level(scene, level)
        samples = kept.pixel_type.samples_per_pixel
        return decode(
            tile, coding.transfer_syntax_uid, kept.tile_rows, kept.tile_columns, samples,
            kept.pixel_type.bits_allocated, coding.photometric(samples),
        )  # fmt: skip


def _decodes_to(expected: Pixels, frame: bytes, *form: Any) -> bool:
    """Whether a frame that was written, of this ``form`` (see :func:`decode`), has these pixels."""
    try:
        return bool(np.array_equal(decode(frame, *form), expected))
    except CodecError as error:
        if ran_short(error):
            raise
        return False


def batch_quads(level: Level) -> int:
    """Quads of a level that are asked for at once."""
    return max(1, min(MAX_BATCH_QUADS, BATCH_PIXELS // (4 * level.tile_rows * level.tile_columns)))


def _padded(small: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    if small.shape[:2] == (rows, columns):
        return small
    padding = ((0, rows - small.shape[0]), (0, columns - small.shape[1]), (0, 0))
    return np.pad(small, padding, mode="edge")


def _part(place: int, rows: int, columns: int) -> tuple[slice, slice]:
    """Where one of four lies."""
    top, left = place // 2 * rows, place % 2 * columns
    return slice(top, top + rows), slice(left, left + columns)


class _OpenSources(dict[int, int]):
    """Descriptors of a slide's source files by number, opened when first asked for."""

    def __init__(self, slide: Slide, stack: ExitStack) -> None:
        self._slide, self._stack = slide, stack

    def __missing__(self, number: int) -> int:
        file = self._stack.enter_context(self._slide.sources[number].path.open("rb"))
        self[number] = file.fileno()
        return self[number]


def gathered(tiles: GatherMap, index: int, fds: Mapping[int, int]) -> bytes:
    """A tile's pieces, joined; ``fds`` are open files by the number of their source."""
    pieces = range(int(tiles.index[index]), int(tiles.index[index + 1]))
    return b"".join(gathered_piece(tiles, piece, fds) for piece in pieces)


def absent_colour(scene: Scene, level: Level) -> Colour:
    """What fills tiles that the scanner left out: the format's colour, else white, or
    black where the tissue shines by itself."""
    if level.absent_colour is not None:
        return level.absent_colour
    lit = {path.illumination for path in scene.optical_paths}
    if lit <= {Illumination.EPIFLUORESCENCE, Illumination.DARKFIELD}:
        return 0
    return (1 << level.pixel_type.bits_stored) - 1


def halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """(rows, columns, samples) at half the size, rounded up: each pixel is the rounded
    mean of the (up to) four that it covers."""
    rows, columns = pixels.shape[:2]
    even = pixels
    if rows % 2 or columns % 2:
        even = np.pad(pixels, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge")
    deep = np.uint16 if pixels.dtype == np.uint8 else np.uint32
    wide: NDArray[Any] = even[0::2].astype(deep)
    wide += even[1::2]
    sums = np.empty((wide.shape[0], wide.shape[1] // 2, wide.shape[2]), deep)
    for sample in range(sums.shape[2]):  # many times as fast as all at once
        np.add(wide[:, 0::2, sample], wide[:, 1::2, sample], out=sums[..., sample])
    sums += deep(2)
    sums >>= deep(2)
    return sums.astype(pixels.dtype)


def decoded_tile(data: bytes, kind: Kind, level: Level) -> Pixels:
    """A codestream's pixels as (tile rows, tile columns, samples), RGB or grey."""
    stream = kind.codestream
    if stream.rows * stream.columns > MAX_TILE_PIXELS:
        raise UnsupportedPixels(f"tiles of {stream.rows} x {stream.columns} pixels are too large to decode")
    frame = kind.prefix + data[kind.skip :]
    try:
        if stream.format == "jpeg2000" and stream.subsampled:
            pixels = _subsampled_jpeg2000(frame, kind)
        else:
            uid = JPEG_2000_UID if stream.format == "jpeg2000" else JPEG_UID
            if stream.format in ("jpegls", "htj2k"):
                uid = kind.transfer_syntax_uid
            bits = level.pixel_type.bits_allocated
            pixels = decode(
                frame, uid, stream.rows, stream.columns, stream.components, bits, kind.photometric
            )
    except CodecError as error:
        raise as_refusal(error, f"a tile of level {level.index} cannot be decoded") from error
    samples = level.pixel_type.samples_per_pixel
    if pixels.shape[2] != samples:
        pixels = np.repeat(pixels[..., :1], samples, axis=2)
    return pixels


def _subsampled_jpeg2000(frame: bytes, kind: Kind) -> NDArray[np.uint8]:
    """YCbCr with half the chroma columns, as Aperio's 33003 has it, to RGB."""
    try:
        pixels = imagecodecs.jpeg2k_decode(frame, numthreads=1)
    except NotImplementedError:
        sampling = " ".join(f"{across}x{down}" for across, down in kind.codestream.sampling)
        raise UnsupportedCompression(f"JPEG 2000 sampled {sampling}", "a tile") from None
    except Exception as error:  # the codec library's own kinds
        raise CodecError("damaged codestream") from error
    return np.asarray(pixels, dtype=np.uint8)
