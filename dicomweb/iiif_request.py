# SPDX-License-Identifier: Apache-2.0
"""The parameters of an IIIF image request (Image API 3.0 Section 4), text to numbers."""

import math
import re
from dataclasses import dataclass

from dicomweb.errors import BadRequest, NotImplementedHere

_WHOLE = r"[0-9]{1,9}"
_DECIMAL = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_PIXELS = re.compile(rf"({_WHOLE}),({_WHOLE}),({_WHOLE}),({_WHOLE})")
_PERCENT = re.compile(rf"pct:({_DECIMAL}),({_DECIMAL}),({_DECIMAL}),({_DECIMAL})")
_SIZE_PERCENT = re.compile(rf"pct:({_DECIMAL})")
_SIZE = re.compile(rf"(!?)({_WHOLE})?,({_WHOLE})?")
_ROTATION = re.compile(rf"(!?)({_DECIMAL})")


@dataclass(frozen=True, slots=True)
class Asked:
    """``region`` is left, top, width, height within the image; ``size`` width, height."""

    region: tuple[int, int, int, int]
    size: tuple[int, int]
    mirrored: bool
    degrees: int


def parse_request(region: str, size: str, rotation: str, image: tuple[int, int], limit: int) -> Asked:
    """A request for an image of (width, height), of at most ``limit`` pixels each way.

    Raises BadRequest, NotImplementedHere for angles that are no right ones.
    """
    found = parse_region(region, image)
    mirrored, degrees = parse_rotation(rotation)
    return Asked(found, parse_size(size, found[2:], limit), mirrored, degrees)


def parse_region(text: str, image: tuple[int, int]) -> tuple[int, int, int, int]:
    """Cropped at the image's edges (4.1)."""
    across, down = image
    if text == "full":
        return 0, 0, across, down
    if text == "square":
        side = min(across, down)
        return (across - side) // 2, (down - side) // 2, side, side
    if pixels := _PIXELS.fullmatch(text):
        left, top, width, height = map(int, pixels.groups())
    elif percent := _PERCENT.fullmatch(text):
        x, y, w, h = (float(number) / 100 for number in percent.groups())
        left, top = round(x * across), round(y * down)
        width, height = round(w * across), round(h * down)
    else:
        raise BadRequest("region must be full, square, x,y,w,h or pct:x,y,w,h")
    width, height = min(width, across - left), min(height, down - top)
    if width <= 0 or height <= 0:
        raise BadRequest("the region is empty or outside of the image")
    return left, top, width, height


def parse_size(text: str, region: tuple[int, int], limit: int) -> tuple[int, int]:
    """What a region of (width, height) is scaled to (4.2); ``^`` allows it to grow."""
    grows = text.startswith("^")
    width, height = _sized(text.removeprefix("^"), region, limit, grows)
    if width < 1 or height < 1:
        raise BadRequest("the size is less than a pixel")
    if max(width, height) > limit:
        raise BadRequest(f"the size is above {limit} pixels")
    if not grows and (width > region[0] or height > region[1]):
        raise BadRequest("a size above the region's must begin with ^")
    return width, height


def _sized(text: str, region: tuple[int, int], limit: int, grows: bool) -> tuple[int, int]:
    across, down = region
    if text == "max":
        return _fitted(region, (limit, limit), grows)
    if percent := _SIZE_PERCENT.fullmatch(text):
        share = float(percent.group(1)) / 100
        return math.floor(across * share + 0.5), math.floor(down * share + 0.5)
    found = _SIZE.fullmatch(text)
    if found is None or found.group(2, 3) == (None, None):
        raise BadRequest("size must be max, w, or ,h or w,h or !w,h or pct:n, after ^ to grow")
    inside, width, height = found.group(1), *(int(n) if n else 0 for n in found.group(2, 3))
    if "0" in {str(int(n)) for n in found.group(2, 3) if n is not None}:
        raise BadRequest("the size is less than a pixel")
    if inside:
        if not width or not height:
            raise BadRequest("!w,h needs both")
        return _fitted(region, (min(width, limit), min(height, limit)), grows)
    if not height:
        return width, max(1, round(down * width / across))
    return width or max(1, round(across * height / down)), height


def _fitted(region: tuple[int, int], bounds: tuple[int, int], grows: bool) -> tuple[int, int]:
    scale = min(bounds[0] / region[0], bounds[1] / region[1])
    if not grows:
        scale = min(1.0, scale)
    return max(1, round(region[0] * scale)), max(1, round(region[1] * scale))


def parse_rotation(text: str) -> tuple[bool, int]:
    """(mirrored first, degrees clockwise) (4.3)."""
    found = _ROTATION.fullmatch(text)
    if found is None or float(found.group(2)) > 360:
        raise BadRequest("rotation must be degrees from 0 to 360, after ! to mirror")
    degrees = float(found.group(2)) % 360
    if degrees % 90:
        raise NotImplementedHere("images are turned by right angles only")
    return bool(found.group(1)), int(degrees)
