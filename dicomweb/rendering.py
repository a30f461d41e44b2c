# SPDX-License-Identifier: Apache-2.0
"""The query parameters of a rendered picture (PS3.18 8.3.5) as a Rendering.

``opticalpath`` and ``focalplane`` are ours, for slides that have several.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from archive.errors import TooLarge
from archive.values import Fit, Rendering
from dicomweb.errors import BadRequest

_SIZE = re.compile(r"[0-9]{1,6}")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,9}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})")
_WINDOW_FUNCTIONS = ("linear", "linear-exact", "sigmoid")
_ICC_PROFILES = ("no", "yes", "srgb", "adobergb", "rommrgb")
_MAX_IDENTIFIER = 64

CARRY_ICC = frozenset({"image/jpeg", "image/png", "image/webp", "image/avif"})
"""Types that we embed a profile in; GIF has no place for one, JPEG XL a way of its own."""


@dataclass(frozen=True, slots=True)
class Viewport:
    """``vw,vh[,sx,sy,sw,sh]``: what was given; None is the standard's default."""

    columns: int
    rows: int
    left: float = 0.0
    top: float = 0.0
    width: float | None = None
    height: float | None = None


def parse_rendering(
    parameters: Mapping[str, str], media_type: str, limit: int, source: tuple[int, int]
) -> Rendering:
    """A Rendering of at most ``limit`` rows and columns of a source of (rows, columns).

    Raises BadRequest for a value out of form, TooLarge where no viewport is given and the
    source is larger than the limit. Unknown parameters are ignored (8.3).
    """
    text = parameters.get("viewport", "")
    if text:
        how = _placed(parse_viewport(text, limit), source)
    elif max(source) > limit:
        raise TooLarge(
            f"a picture of {source[0]} x {source[1]} pixels: ask for a viewport of at most {limit}"
        )
    else:
        how = {}
    window = _window(parameters["window"]) if "window" in parameters else None
    path = parameters.get("opticalpath", "")
    if "opticalpath" in parameters and not 0 < len(path) <= _MAX_IDENTIFIER:
        raise BadRequest("opticalpath must be the identifier of an optical path")
    return Rendering(
        media_type,
        _quality(parameters.get("quality", "85")),
        icc_profile=_icc_profile(parameters.get("iccprofile", "no"), media_type),
        window=window,
        optical_path=path,
        focal_plane=_focal_plane(parameters.get("focalplane")),
        **how,  # type: ignore[arg-type]
    )


def parse_viewport(text: str, limit: int) -> Viewport:
    """Raises BadRequest (8.3.5.1.3)."""
    width, *rest = text.split(",")
    if len(rest) not in (1, 5) or not _SIZE.fullmatch(width) or not _SIZE.fullmatch(rest[0]):
        raise BadRequest("viewport must be vw,vh or vw,vh,sx,sy,sw,sh in pixels")
    columns, rows = int(width), int(rest[0])
    if not 0 < rows <= limit or not 0 < columns <= limit:
        raise BadRequest(f"viewport must be between 1 and {limit} pixels")
    if any(number and not _DECIMAL.fullmatch(number) for number in rest[1:]):
        raise BadRequest("the viewport's source region must be decimal numbers")
    left, top, across, down = (float(number) if number else None for number in rest[1:] or [""] * 4)
    if across == 0 or down == 0 or (left or 0) < 0 or (top or 0) < 0:
        raise BadRequest("the viewport's source region is empty or starts outside of the image")
    return Viewport(columns, rows, left or 0.0, top or 0.0, across, down)


def _placed(viewport: Viewport, source: tuple[int, int]) -> dict[str, object]:
    """The region is cropped at the image's edges; a negative width or height flips."""
    rows, columns = source
    left, top = viewport.left, viewport.top
    width = columns - left if viewport.width is None else abs(viewport.width)
    height = rows - top if viewport.height is None else abs(viewport.height)
    width, height = min(width, columns - left), min(height, rows - top)
    if width <= 0 or height <= 0:
        raise BadRequest("the viewport's source region is outside of the image")
    is_whole = (left, top, width, height) == (0, 0, columns, rows)
    return {
        "rows": viewport.rows,
        "columns": viewport.columns,
        "fit": Fit.CONTAIN,
        "region": None if is_whole else (top, left, height, width),
        "flip_columns": viewport.width is not None and viewport.width < 0,
        "flip_rows": viewport.height is not None and viewport.height < 0,
    }


def parse_thumbnail(
    parameters: Mapping[str, str], media_type: str, limit: int, default_pixels: int
) -> Rendering | None:
    """What a client asks of a thumbnail, which has bounds only; None for nothing special."""
    text = parameters.get("viewport", "")
    viewport = parse_viewport(text, limit) if text else Viewport(default_pixels, default_pixels)
    if text.count(",") > 1:
        raise BadRequest("viewport must be vw,vh in pixels")
    made = Rendering(
        media_type,
        _quality(parameters.get("quality", "85")),
        viewport.rows,
        viewport.columns,
        _icc_profile(parameters.get("iccprofile", "no"), media_type),
        _window(parameters["window"]) if "window" in parameters else None,
    )
    plain = Rendering(rows=default_pixels, columns=default_pixels)
    return None if made == plain else made


def _quality(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 100:
        raise BadRequest("quality must be a whole number from 1 to 100")
    return int(text)


def _icc_profile(text: str, media_type: str) -> str:
    if text not in _ICC_PROFILES:
        raise BadRequest("iccprofile must be one of " + ", ".join(_ICC_PROFILES))
    if text != "no" and media_type not in CARRY_ICC:
        raise BadRequest(f"{media_type} carries no ICC profile here")
    return text


def _focal_plane(text: str | None) -> int:
    if text is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) < 1:
        raise BadRequest("focalplane must be a whole number from 1, the lowest plane")
    return int(text)


def _window(text: str) -> tuple[float, float, str]:
    try:
        center_text, width_text, *function = text.split(",")
        center, width = float(center_text), float(width_text)
        (shape,) = function or ["linear"]
    except ValueError:
        raise BadRequest("window must be center,width,function") from None
    if shape not in _WINDOW_FUNCTIONS or not (math.isfinite(center) and math.isfinite(width)) or width <= 0:
        raise BadRequest("window must be center,width,function with a width above 0")
    if shape == "linear" and width < 1:
        raise BadRequest("the width of a linear window must be at least 1")
    return center, width, shape
