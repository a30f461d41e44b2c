# SPDX-License-Identifier: Apache-2.0
"""Tiles to one picture for a screen (PS3.18 8.3.5): put together, scaled, windowed,
with the colours that the caller asked for."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.codecs import colour
from converters.codecs.decoders import decode
from converters.codecs.errors import CodecError, FrameTooLarge, UnsupportedCodec

Pixels = NDArray[Any]

MEDIA_TYPES = ("image/jpeg", "image/png", "image/gif", "image/jp2")

MAX_CANVAS_PIXELS = 64 << 20
"""Most pixels of a canvas: 8k x 8k. A caller that needs more takes a coarser level."""


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


@dataclass(frozen=True, slots=True)
class View:
    """How to show it. ``rows`` and ``columns`` bound the result, 0 means no bound;
    nothing is enlarged. ``window`` is (centre, width, function) of PS3.3 C.11.2.1.2,
    "linear", "linear-exact" or "sigmoid", and counts for grey only. ``icc_profile`` is
    "no", "yes", "srgb", "adobergb" or "rommrgb" (PS3.18 8.3.5.1.5)."""

    media_type: str = "image/jpeg"
    quality: int = 85
    rows: int = 0
    columns: int = 0
    icc_profile: str = "no"
    window: tuple[float, float, str] | None = None


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


def render(
    tiles: Sequence[tuple[int, int, bytes]], form: FrameFormat, view: View, canvas: tuple[int, int]
) -> bytes:
    """Tiles, each with the (row, column) of its first pixel, on a canvas of (rows,
    columns) pixels, scaled to fit the view and encoded as its media type.

    Where no tile lies the canvas is white (black for grey). Tiles may reach beyond any
    edge. Raises :class:`CodecError`; :class:`FrameTooLarge` above ``MAX_CANVAS_PIXELS``.
    """
    if view.media_type not in MEDIA_TYPES:
        raise UnsupportedCodec(f"no encoder for {view.media_type}")
    pixels = compose(tiles, form, canvas)
    pixels = downscale(pixels, view.rows, view.columns)
    if pixels.shape[2] == 1:
        pixels = grey_levels(pixels[..., 0], form, view.window)
        return encode_picture(pixels, view.media_type, view.quality)
    pixels, profile = colour.managed(pixels[..., :3], form.icc_profile, view.icc_profile)
    return encode_picture(pixels, view.media_type, view.quality, profile)


def compose(tiles: Sequence[tuple[int, int, bytes]], form: FrameFormat, canvas: tuple[int, int]) -> Pixels:
    """The canvas at full size, (rows, columns, samples)."""
    rows, columns = canvas
    if rows < 1 or columns < 1 or rows * columns > MAX_CANVAS_PIXELS:
        raise FrameTooLarge(f"a canvas of {rows} x {columns} pixels is beyond the limit")
    if len(tiles) == 1 and tiles[0][:2] == (0, 0) and canvas == (form.rows, form.columns):
        return decode_frame(tiles[0][2], form)
    whole: Pixels | None = None
    for top, left, frame in tiles:
        tile = decode_frame(frame, form)
        if whole is None:
            whole = _empty(rows, columns, form, tile.dtype)
        upper, lower = max(0, top), min(rows, top + form.rows)
        start, end = max(0, left), min(columns, left + form.columns)
        if upper < lower and start < end:
            whole[upper:lower, start:end] = tile[upper - top : lower - top, start - left : end - left]
    return whole if whole is not None else _empty(rows, columns, form, np.dtype(np.uint8))


def _empty(rows: int, columns: int, form: FrameFormat, kind: np.dtype[Any]) -> Pixels:
    white = np.iinfo(kind).max if form.samples_per_pixel > 1 else 0
    return np.full((rows, columns, form.samples_per_pixel), white, kind)


def downscale(pixels: Pixels, rows: int, columns: int) -> Pixels:
    """The picture averaged by area to fit within (rows, columns), its aspect kept. 0 is
    no bound; a picture that fits already is returned as it is."""
    height, width = pixels.shape[:2]
    scale = min(1.0, rows / height if rows else 1.0, columns / width if columns else 1.0)
    if scale >= 1.0:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    planes = [
        np.asarray(Image.fromarray(pixels[..., n].astype(np.float32)).resize(size, Image.Resampling.BOX))
        for n in range(pixels.shape[2])
    ]
    stacked = np.stack(planes, axis=-1)
    return np.asarray(np.rint(stacked), pixels.dtype)


def grey_levels(
    values: Pixels, form: FrameFormat, window: tuple[float, float, str] | None
) -> NDArray[np.uint8]:
    """Stored values as 0 to 255. Without a window 8-bit values stay, 1-bit ones become
    black and white, and deeper ones are stretched from their least to their greatest,
    since fluorescence uses little of its range. MONOCHROME1 is inverted."""
    if window is not None:
        levels = windowed(values.astype(np.float64), *window)
    elif form.bits_allocated == 8 and form.pixel_representation == 0 and form.bits_stored == 8:
        levels = values.astype(np.float64)
    elif form.bits_stored == 1:
        levels = values * 255.0
    else:
        least, greatest = float(values.min()), float(values.max())
        levels = (values - least) * (255.0 / max(1.0, greatest - least))
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


def encode_picture(pixels: NDArray[np.uint8], media_type: str, quality: int, profile: bytes = b"") -> bytes:
    """RGB or grey pixels as a file for a browser; ``profile`` is embedded, but for GIF,
    which cannot hold one. Chroma is halved below a quality of 90."""
    image = Image.fromarray(pixels)
    icc = profile or None
    buffer = io.BytesIO()
    quality = max(1, min(100, quality))
    match media_type:
        case "image/jpeg":
            image.save(
                buffer, "JPEG", quality=quality, icc_profile=icc, subsampling=0 if quality >= 90 else 2
            )
        case "image/png":
            image.save(buffer, "PNG", compress_level=3, icc_profile=icc)
        case "image/gif":
            image.quantize(256, Image.Quantize.MEDIANCUT if image.mode == "RGB" else None).save(buffer, "GIF")
        case "image/jp2":
            rate = max(1.0, (101 - quality) / 2)
            image.save(buffer, "JPEG2000", irreversible=True, quality_layers=[rate], mct=1, icc_profile=icc)
        case _:
            raise UnsupportedCodec(f"no encoder for {media_type}")
    return buffer.getvalue()
