# SPDX-License-Identifier: Apache-2.0
"""Tiles to one picture for a screen (PS3.18 8.3.5): put together, scaled, windowed,
with the colours that the caller asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.codecs import colour
from converters.codecs.decoders import decode
from converters.codecs.errors import CodecError, FrameTooLarge, UnsupportedCodec
from converters.codecs.picture import MEDIA_TYPES, encode_picture

Pixels = NDArray[Any]

MAX_CANVAS_PIXELS = 64 << 20
"""Most pixels of a canvas: 8k x 8k. A caller that needs more takes a coarser level."""

TONES = ("colour", "grey", "bitonal")
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
_SAMPLED_VALUES = 1 << 20
_TAILS_PERCENT = (0.1, 99.9)


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What a decoder must know of a frame; the fields are those of PS3.3 C.7.6.3."""

    transfer_syntax_uid: str
    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    planar_configuration: int = 0
    icc_profile: bytes = b""
    palette: bytes = b""  # red, green and blue of each entry
    palette_first: int = 0  # the pixel value that has the first entry

    @property
    def is_colour(self) -> bool:
        """Whether it is shown in colours of its own."""
        return self.samples_per_pixel > 1 or bool(self.palette)


@dataclass(frozen=True, slots=True)
class Layer:
    """One optical path of a composite: the next ``tiles`` of the tiles are its. Grey
    values between the two ends of ``limits`` (None: the layer's own least and greatest)
    become shades of ``colour``, and layers add up."""

    tiles: int
    colour: tuple[int, int, int] | None = None
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class View:
    """How to show it.

    ``region`` is (row, column, rows, columns) of the canvas, in pixels. ``rows`` and
    ``columns`` bound the result, 0 means no bound, and nothing is enlarged; with
    ``exact`` they are its size. Then it is flipped and turned by ``rotation`` degrees
    clockwise. ``window`` is (centre, width, function) of PS3.3 C.11.2.1.2, "linear",
    "linear-exact" or "sigmoid", and counts for grey only. ``icc_profile`` is "no",
    "yes", "srgb", "adobergb" or "rommrgb" (PS3.18 8.3.5.1.5), ``tone`` one of ``TONES``.
    """

    media_type: str = "image/jpeg"
    quality: int = 85
    rows: int = 0
    columns: int = 0
    icc_profile: str = "no"
    window: tuple[float, float, str] | None = None
    region: tuple[float, float, float, float] | None = None
    exact: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    rotation: int = 0
    tone: str = "colour"
    layers: tuple[Layer, ...] = ()


def decode_frame(frame: bytes, form: FrameFormat) -> Pixels:
    """:func:`converters.codecs.decode` of a frame in this format."""
    return decode(
        frame,
        form.transfer_syntax_uid,
        form.rows,
        form.columns,
        form.samples_per_pixel,
        form.bits_allocated,
        form.photometric_interpretation,
        form.planar_configuration,
        form.pixel_representation,
    )


def _seen(frame: bytes, form: FrameFormat) -> Pixels:
    """The pixels of a frame as they are shown: of a palette, its colours."""
    pixels = decode_frame(frame, form)
    if not form.palette:
        return pixels
    entries = np.frombuffer(form.palette, np.uint8).reshape(-1, 3)
    places = np.clip(pixels[..., 0].astype(np.int64) - form.palette_first, 0, len(entries) - 1)
    return entries[places]


def render(
    tiles: Sequence[tuple[int, int, bytes]], form: FrameFormat, view: View, canvas: tuple[int, int]
) -> bytes:
    """Tiles, each with the (row, column) of its first pixel, on a canvas of (rows,
    columns) pixels, scaled to the view and encoded as its media type.

    Where no tile lies, or an empty one, the canvas is white (black for grey). Tiles may
    reach beyond any edge. Raises :class:`CodecError`; :class:`FrameTooLarge` above
    ``MAX_CANVAS_PIXELS``.
    """
    if view.media_type not in MEDIA_TYPES:
        raise UnsupportedCodec(f"no encoder for {view.media_type}")
    if view.tone not in TONES or view.rotation not in (0, 90, 180, 270):
        raise CodecError(f"no tone {view.tone!r} turned by {view.rotation} degrees")
    pixels = shown(tiles, form, view, canvas)
    profile = b""
    if pixels.ndim == 3 or view.icc_profile != "no":
        own = form.icc_profile if form.is_colour else b""
        if pixels.ndim == 2:  # grey has no profile of ours: it is neutral in every space
            pixels = np.repeat(pixels[..., np.newaxis], 3, axis=2)
        pixels, profile = colour.managed(pixels, own, view.icc_profile)
    if view.tone != "colour":
        pixels, profile = toned(pixels, view.tone), b""
    return encode_picture(turned(pixels, view), view.media_type, view.quality, profile)


def shown(
    tiles: Sequence[tuple[int, int, bytes]], form: FrameFormat, view: View, canvas: tuple[int, int]
) -> NDArray[np.uint8]:
    """The scaled picture of 8 bits: (rows, columns) of grey, or (rows, columns, 3)."""
    if form.is_colour:
        return np.ascontiguousarray(scaled(compose(tiles, form, canvas), view)[..., :3]).astype(np.uint8)
    sum_of_layers: Pixels | None = None
    start = 0
    for layer in view.layers or (Layer(len(tiles)),):
        values = compose(tiles[start : start + layer.tiles], form, canvas)
        start += layer.tiles
        if form.bits_stored == 1:
            values = values * np.uint8(255)
        levels = grey_levels(scaled(values, view)[..., 0], form, view.window, layer.limits)
        if layer.colour is None:
            return levels
        share = levels[..., np.newaxis] * (np.array(layer.colour, np.float32) / 255)
        sum_of_layers = share if sum_of_layers is None else sum_of_layers + share
    assert sum_of_layers is not None
    return np.rint(np.minimum(sum_of_layers, 255)).astype(np.uint8)


def compose(tiles: Sequence[tuple[int, int, bytes]], form: FrameFormat, canvas: tuple[int, int]) -> Pixels:
    """The canvas at full size, (rows, columns, samples)."""
    rows, columns = canvas
    if rows < 1 or columns < 1 or rows * columns > MAX_CANVAS_PIXELS:
        raise FrameTooLarge(f"a canvas of {rows} x {columns} pixels is beyond the limit")
    given = [tile for tile in tiles if tile[2]]
    if len(given) == 1 and given[0][:2] == (0, 0) and canvas == (form.rows, form.columns):
        return _seen(given[0][2], form)
    whole: Pixels | None = None
    for top, left, frame in given:
        tile = _seen(frame, form)
        if whole is None:
            whole = _empty(rows, columns, form, tile.dtype)
        upper, lower = max(0, top), min(rows, top + form.rows)
        start, end = max(0, left), min(columns, left + form.columns)
        if upper < lower and start < end:
            whole[upper:lower, start:end] = tile[upper - top : lower - top, start - left : end - left]
    return whole if whole is not None else _empty(rows, columns, form, np.dtype(np.uint8))


def _empty(rows: int, columns: int, form: FrameFormat, kind: np.dtype[Any]) -> Pixels:
    white = np.iinfo(kind).max if form.is_colour else 0
    samples = 3 if form.palette else form.samples_per_pixel
    return np.full((rows, columns, samples), white, kind)


def scaled(pixels: Pixels, view: View) -> Pixels:
    """The view's region in its size: averaged by area, or interpolated where it grows."""
    height, width = pixels.shape[:2]
    top, left, rows, columns = view.region or (0, 0, height, width)
    if not (0 <= top < top + rows <= height + 0.01 and 0 <= left < left + columns <= width + 0.01):
        raise CodecError("the region is not within the picture")
    rows, columns = min(rows, height - top), min(columns, width - left)
    if view.exact:
        size = (view.rows, view.columns)
    else:
        size = within(rows, columns, view.rows, view.columns)
    if min(size) < 1 or size[0] * size[1] > MAX_CANVAS_PIXELS:
        raise FrameTooLarge(f"a picture of {size[0]} x {size[1]} pixels is beyond the limit")
    whole = tuple(map(round, (top, left, rows, columns)))
    if (
        size == whole[2:]
        and max(abs(a - b) for a, b in zip(whole, (top, left, rows, columns), strict=True)) < 0.01
    ):
        return pixels[whole[0] : whole[0] + whole[2], whole[1] : whole[1] + whole[3]]
    box = (left, top, min(left + columns, width), min(top + rows, height))
    return _resized(pixels, size, box)


def _resized(pixels: Pixels, size: tuple[int, int], box: tuple[float, float, float, float]) -> Pixels:
    """The box (left, top, right, bottom) in ``size``. Pillow's box filter takes whole pixels
    only, which moves edges where they do not divide evenly; Hamming's weighs them."""
    across, down = (box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0]
    if across <= 1 and down <= 1:
        method = Image.Resampling.BICUBIC
    elif all(abs(number - round(number)) < 1e-3 for number in (across, down, box[0], box[1])):
        method = Image.Resampling.BOX
    else:
        method = Image.Resampling.HAMMING
    target = (size[1], size[0])
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(target, method, box))
    planes = [
        np.asarray(Image.fromarray(pixels[..., n].astype(np.float32)).resize(target, method, box))
        for n in range(pixels.shape[2])
    ]
    ends = np.iinfo(pixels.dtype)
    return np.asarray(np.rint(np.clip(np.stack(planes, axis=-1), ends.min, ends.max)), pixels.dtype)


def within(height: float, width: float, rows: int, columns: int) -> tuple[int, int]:
    """The size of a picture that fits (rows, columns), its aspect kept; 0 is no bound, and
    nothing grows."""
    scale = min(1.0, rows / height if rows else 1.0, columns / width if columns else 1.0)
    return max(1, round(height * scale)), max(1, round(width * scale))


def turned(pixels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Flipped, then turned clockwise."""
    if view.flip_rows:
        pixels = pixels[::-1]
    if view.flip_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, -view.rotation // 90))


def toned(pixels: NDArray[np.uint8], tone: str) -> NDArray[np.uint8]:
    """Grey by BT.601, or black and white."""
    grey = pixels @ _LUMA if pixels.ndim == 3 else pixels
    if tone == "bitonal":
        return np.where(grey < 128, 0, 255).astype(np.uint8)
    return np.rint(grey).astype(np.uint8)


def grey_levels(
    values: Pixels,
    form: FrameFormat,
    window: tuple[float, float, str] | None,
    limits: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Stored values as 0 to 255. Without a window 8-bit values stay, bits (here 0 and 255)
    too, and deeper ones are stretched between ``limits``, or from their least to their
    greatest, since fluorescence uses little of its range. MONOCHROME1 is inverted."""
    if window is not None:
        levels = windowed(values.astype(np.float64), *window)
    elif not is_stretched(form):
        levels = values.astype(np.float64)
    else:
        least, greatest = limits or (float(values.min()), float(values.max()))
        levels = (values.astype(np.float64) - least) * (255.0 / max(1.0, greatest - least))
    if form.photometric_interpretation == "MONOCHROME1":
        levels = 255.0 - levels
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def windowed(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    """VOI LUT functions, PS3.3 C.11.2.1.2.1 and C.11.2.1.3, output 0 to 255."""
    if function == "sigmoid" and width > 0:
        return 255.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700, 700)))
    if function == "linear-exact" and width > 0:
        return ((values - centre) / width + 0.5) * 255.0
    if function == "linear" and width >= 1:
        if width == 1:
            return np.where(values > centre - 0.5, 255.0, 0.0)
        return ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255.0
    raise CodecError(f"no window function {function!r} of width {width:g}")


def is_stretched(form: FrameFormat) -> bool:
    """Whether values need a window to be seen: more than 8 bits, or signed."""
    if form.samples_per_pixel > 1 or form.bits_stored == 1:
        return False
    return (form.bits_allocated, form.bits_stored, form.pixel_representation) != (8, 8, 0)


def value_limits(
    tiles: Sequence[tuple[int, int, bytes]], form: FrameFormat, canvas: tuple[int, int]
) -> tuple[float, float]:
    """Between which values nearly all pixels of the tiles lie: for one window that serves
    a whole pyramid. The 0.1 % at either end are left out: dust, and dead or hot pixels."""
    seen = [values.ravel() for values in _inside(tiles, form, canvas)]
    if not seen:
        return 0.0, 1.0
    every = max(1, sum(map(len, seen)) // _SAMPLED_VALUES)
    low, high = np.percentile(np.concatenate([values[::every] for values in seen]), _TAILS_PERCENT)
    return float(low), float(high)


def _inside(
    tiles: Sequence[tuple[int, int, bytes]], form: FrameFormat, canvas: tuple[int, int]
) -> Iterator[Pixels]:
    """The pixels of each tile that lie on the canvas: not the filling of the last ones."""
    for top, left, frame in tiles:
        if frame and top < canvas[0] and left < canvas[1]:
            yield decode_frame(frame, form)[: canvas[0] - top, : canvas[1] - left]
