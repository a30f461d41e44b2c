# SPDX-License-Identifier: Apache-2.0
"""What a frame may show of a slide: an optical path, or a segment; and its colour.

A palette of the path itself (PS3.3 C.8.12.5, Palette Color Lookup Table Sequence) gives
the colour, a segment's Recommended Display CIELab Value, or the wave length of its light;
else a colour by position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

Colour = tuple[int, int, int]

BLUE, CYAN, GREEN, YELLOW = (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0)
ORANGE, RED, MAGENTA, WHITE = (255, 128, 0), (255, 0, 0), (255, 0, 255), (255, 255, 255)
_BY_POSITION = (BLUE, GREEN, RED, CYAN, MAGENTA, YELLOW, ORANGE, WHITE)
_BY_EMISSION_NM = ((475, BLUE), (500, CYAN), (550, GREEN), (590, YELLOW), (620, ORANGE), (650, RED))
_STOKES_SHIFT_NM = 30  # from what excites a usual dye to what it sends back
PROFILE_PATH = "00480105/{}/00282000"


@dataclass(frozen=True, slots=True)
class Channel:
    """One optical path or segment. ``icc_profile`` is empty where it is absent, or kept
    apart as a bulk value at ``PROFILE_PATH``."""

    identifier: str
    colour: Colour = WHITE
    icc_profile: bytes = b""


def channels_of(head: Dataset) -> tuple[Channel, ...]:
    """At least one; in the order of the header."""
    segments = head.get("SegmentSequence") or []
    if segments:
        return tuple(
            Channel(str(item.get("SegmentNumber", n + 1)), _of_lab(item) or _BY_POSITION[n % 8])
            for n, item in enumerate(segments)
        )
    paths = head.get("OpticalPathSequence") or []
    if not paths:
        return (Channel("", WHITE, _octets(head.get("ICCProfile"))),)
    return tuple(
        Channel(
            str(item.get("OpticalPathIdentifier") or ""),
            _of_palette(item) or _of_wave_length(item) or _BY_POSITION[n % 8],
            _octets(item.get("ICCProfile")),
        )
        for n, item in enumerate(paths)
    )


def _octets(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""


def _of_palette(item: Dataset) -> Colour | None:
    """The last, brightest entry of the path's palette."""
    palette = (item.get("PaletteColorLookupTableSequence") or [None])[0]
    if palette is None:
        return None
    found = []
    for name in ("Red", "Green", "Blue"):
        descriptor = palette.get(f"{name}PaletteColorLookupTableDescriptor")
        data = _octets(palette.get(f"{name}PaletteColorLookupTableData"))
        if not isinstance(descriptor, Sequence) or len(descriptor) != 3 or not data:
            return None
        entries, bits = (int(descriptor[0]) or 65536), int(descriptor[2])
        if len(data) >= 2 * entries:
            value = int.from_bytes(data[2 * entries - 2 : 2 * entries], "little")
        else:
            value = data[entries - 1] if len(data) >= entries else data[-1]
        found.append(min(255, value >> max(0, bits - 8)))
    made = (found[0], found[1], found[2])
    return made if any(made) else None


def _of_wave_length(item: Dataset) -> Colour | None:
    """By the light that reaches the camera, else by the light that excites."""
    try:
        emission = float(item.get("ImagePathFilterPassThroughWavelength") or 0)
        excitation = float(item.get("IlluminationWaveLength") or 0)
    except (TypeError, ValueError):
        return None
    nanometres = emission or (excitation and excitation + _STOKES_SHIFT_NM)
    if not nanometres:
        return None
    return next((colour for below, colour in _BY_EMISSION_NM if nanometres < below), MAGENTA)


def _of_lab(item: Dataset) -> Colour | None:
    """Recommended Display CIELab Value (PS3.3 C.10.7.1.1, white D50) as sRGB."""
    value = item.get("RecommendedDisplayCIELabValue")
    if not isinstance(value, Sequence) or len(value) != 3:
        return None
    lightness, a, b = (float(one) for one in value)
    lightness, a, b = lightness * 100 / 65535, a * 255 / 65535 - 128, b * 255 / 65535 - 128
    fy = (lightness + 16) / 116
    x, y, z = (
        white * (f**3 if f**3 > 0.008856 else (f - 16 / 116) / 7.787)
        for white, f in ((0.9642, fy + a / 500), (1.0, fy), (0.8251, fy - b / 200))
    )
    linear = (
        3.1339 * x - 1.6169 * y - 0.4906 * z,
        -0.9788 * x + 1.9161 * y + 0.0335 * z,
        0.0719 * x - 0.2290 * y + 1.4052 * z,
    )
    red, green, blue = (round(255 * _companded(min(1.0, max(0.0, one)))) for one in linear)
    return red, green, blue


def _companded(value: float) -> float:
    return float(12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055)
