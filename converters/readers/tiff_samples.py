# SPDX-License-Identifier: Apache-2.0
"""Samples of a TIFF page made those of DICOM's whole slide images: 8 bits of RGB, or 8
or 16 bits of grey. What DICOM cannot hold is mapped, and the mapping declared.

- int8 and int16 are shifted to unsigned ones; wider integers and floats are scaled to
  16 bits between their least and greatest value, after one pass through the level
  (whole numbers that span no more than 16 bits keep their steps). NaN becomes the least.
- A palette becomes RGB, MINISWHITE is inverted, 1 to 7 bits are stretched to 8.
- Alpha is left out, with a finding.

Sources: TIFF 6.0 Sections 3-5, 18, 19, 21; PS3.3 C.7.6.3, C.7.6.16.2.11.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.tiff_pages import is_ycbcr_jpeg_2000
from converters.readers.tiff_segments import JPEG, Samples, SegmentCache, Segments
from converters.slide import Pixels, RealWorldMapping

if TYPE_CHECKING:
    import tifffile

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, YCBCR = 0, 1, 2, 3, 4, 6


@dataclass(frozen=True, eq=False)
class Plane:
    """The page that shows one focal plane of one optical path: all of its samples, or
    number ``sample`` alone as grey. ``source`` is its file in :attr:`Slide.sources`.
    ``palette`` False takes a palette's numbers for grey values (a look-up table)."""

    page: "tifffile.TiffPage"
    source: int = 0
    sample: int | None = None
    palette: bool = True


@dataclass(frozen=True, eq=False)
class PlaneReader:
    """One plane, to be cut and converted."""

    segments: Segments
    sample: int | None
    form: str  # "rgb", "palette" or "grey"
    findings: tuple[str, ...] = ()

    def pixels(self, top: int, left: int, size: tuple[int, int], mapping: RealWorldMapping | None) -> Pixels:
        """(rows, columns, samples) in uint8 or uint16; white (or 0) beyond the image."""
        segments = self.segments
        fill = 255 if self.form == "rgb" else 0
        if segments.page.is_tiled and size == (segments.segment_rows, segments.segment_columns):
            raw = segments.region(top, left, *size, fill=fill)  # the file's own tile, whole
        else:
            rows = min(size[0], segments.rows - top)
            columns = min(size[1], segments.columns - left)
            raw = segments.region(top, left, rows, columns, fill=fill)
        pixels = self._converted(raw, mapping)
        if pixels.shape[:2] == size:
            return pixels
        whole = np.full((*size, pixels.shape[2]), 255 if pixels.shape[2] == 3 else 0, pixels.dtype)
        whole[: pixels.shape[0], : pixels.shape[1]] = pixels
        return whole

    def _converted(self, raw: Samples, mapping: RealWorldMapping | None) -> Pixels:
        page = self.segments.page
        if self.form == "rgb":
            return np.ascontiguousarray(raw[..., :3])
        if self.form == "palette":
            colours = (np.asarray(page.colormap) >> 8).astype(np.uint8)
            last = colours.shape[1] - 1
            return np.ascontiguousarray(colours.T[np.minimum(raw[..., 0], last)])
        grey = raw[..., (self.sample or 0) : (self.sample or 0) + 1]
        if mapping is not None:
            return _mapped(grey, mapping)
        bits = int(page.bitspersample)
        unsigned = grey.astype(np.uint8 if bits <= 8 else np.uint16)
        if int(page.photometric) == WHITE_IS_ZERO:
            unsigned = ((1 << bits) - 1 - unsigned).astype(unsigned.dtype)
        if bits < 8:
            unsigned = (unsigned.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
        return np.ascontiguousarray(unsigned)


def plane_reader(plane: Plane, cache: SegmentCache) -> PlaneReader:
    page = plane.page
    segments = Segments(page, cache)
    where = f"page {page.index}"
    photometric, samples, dtype = int(page.photometric), segments.samples, segments.dtype
    findings: tuple[str, ...] = ()
    if photometric == PALETTE and plane.palette and samples == 1:
        if page.colormap is None or dtype.kind != "u":
            raise DamagedSlide(f"{where} has a palette image without palette")
        return PlaneReader(segments, None, "palette")
    if plane.sample is None and photometric in (RGB, YCBCR) and samples >= 3:
        if dtype != np.uint8 or page.bitspersample != 8:
            raise UnsupportedPixels(f"{where} has colours of more or less than 8 bits")
        ycbcr = photometric == YCBCR or is_ycbcr_jpeg_2000(page)
        if ycbcr and (int(page.compression) != JPEG or segments.apart):
            raise UnsupportedPixels(f"{where} has YCbCr colours without JPEG")
        if samples > 3:
            findings = (f"{where}: {samples - 3} samples beyond the colours (alpha) are left out",)
        return PlaneReader(segments, None, "rgb", findings)
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK) or dtype.kind not in "buif":
        raise UnsupportedPixels(f"{where} has colours or samples that are not read")
    if plane.sample is None and samples > 1:
        if len(page.extrasamples) < samples - 1:
            raise UnsupportedPixels(f"{where} has {samples} samples of unknown meaning")
        findings = (f"{where}: {samples - 1} samples beyond the grey (alpha) are left out",)
    elif plane.sample is not None and not 0 <= plane.sample < samples:
        raise DamagedSlide(f"{where} has fewer samples than the file says")
    return PlaneReader(segments, plane.sample, "grey", findings)


def value_mapping(readers: Sequence[PlaneReader], scan: bool) -> RealWorldMapping | None:
    """How values of one optical path become unsigned; None where they are. ``scan`` allows
    to decode all of them for it."""
    if not readers or readers[0].form != "grey":
        return None
    dtypes = {reader.segments.dtype for reader in readers}
    if len(dtypes) > 1:
        raise UnsupportedPixels("the planes of a channel differ in type")
    (dtype,) = dtypes
    if dtype.kind in "bu" and dtype.itemsize <= 2:
        return None
    if dtype.kind == "i" and dtype.itemsize <= 2:
        shift = 1 << (dtype.itemsize * 8 - 1)
        return RealWorldMapping(1.0, -float(shift), f"signed values, stored with {shift} added")
    if not scan:
        raise UnsupportedPixels(f"{dtype.name} values are not read in this format")
    least, greatest, whole = _extent(readers)
    if whole and least >= 0 and greatest <= 65535:
        return RealWorldMapping(1.0, 0.0, f"{dtype.name} values, stored as they are")
    if whole and greatest - least <= 65535:
        return RealWorldMapping(1.0, least, f"{dtype.name} values, stored less the least one")
    slope = greatest / 65535 - least / 65535 or 1.0
    return RealWorldMapping(slope, least, f"{dtype.name} values, scaled to 16 bits from least to greatest")


def _extent(readers: Sequence[PlaneReader]) -> tuple[float, float, bool]:
    """Least and greatest finite value, and whether all are whole numbers."""
    least, greatest, whole = np.inf, -np.inf, True
    for reader in readers:
        segments = reader.segments
        colour = (reader.sample or 0) if segments.apart else 0
        for row in range(segments.down):
            for column in range(segments.across):
                pixels = segments.segment(colour, row, column, keep=False)
                if pixels is None:
                    continue
                rows = segments.rows - row * segments.segment_rows
                columns = segments.columns - column * segments.segment_columns
                values = pixels[:rows, :columns, 0 if segments.apart else reader.sample or 0]
                finite = values[np.isfinite(values)]
                if finite.size:
                    least = min(least, float(finite.min()))
                    greatest = max(greatest, float(finite.max()))
                    whole = whole and bool((finite == np.rint(finite)).all())
    if not np.isfinite(least):
        return 0.0, 0.0, True
    return least, greatest, whole


def _mapped(values: Samples, mapping: RealWorldMapping) -> Pixels:
    if values.dtype == np.int8:
        return (values.astype(np.int16) + 128).astype(np.uint8)
    least = mapping.intercept
    greatest = least + 65535 * mapping.slope
    finite = np.clip(np.nan_to_num(values.astype(np.float64), nan=least), least, greatest)
    return np.clip(np.rint((finite - least) / mapping.slope), 0, 65535).astype(np.uint16)
