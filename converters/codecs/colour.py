# SPDX-License-Identifier: Apache-2.0
"""ICC profiles of rendered pictures (PS3.18 8.3.5.1.5): embedded as they are, or the
pixels converted into a well-known space."""

import io
import struct
from functools import lru_cache

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from converters.codecs.errors import CodecError

SPACES = ("srgb", "adobergb", "rommrgb")

_D50 = (0.3457, 0.3585, 1.0)
_ROMM_PRIMARIES = (0.7347, 0.2653, 1.0, 0.1596, 0.8404, 1.0, 0.0366, 0.0001, 1.0)


@lru_cache(maxsize=len(SPACES))
def standard_profile(space: str) -> bytes:
    """An ICC profile of sRGB, Adobe RGB (1998) or ROMM RGB; its date is fixed, so that
    the same request gives the same bytes."""
    if space == "rommrgb":
        made = imagecodecs.cms_profile("rgb", whitepoint=_D50, primaries=_ROMM_PRIMARIES, gamma=1.8)
    else:
        made = imagecodecs.cms_profile(space)
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    return bytes(made[:24]) + date + bytes(made[36:])


def managed(pixels: NDArray[np.uint8], profile: bytes, wanted: str) -> tuple[NDArray[np.uint8], bytes]:
    """(RGB pixels, profile to embed) for ``wanted``: "no" leaves both out, "yes" embeds
    the source's own profile, a space's name converts into it and embeds that. Pixels
    without a profile count as sRGB."""
    if wanted == "no":
        return pixels, b""
    if wanted == "yes":
        return pixels, profile or standard_profile("srgb")
    if wanted not in SPACES:
        raise CodecError(f"no colour space {wanted!r}")
    if not profile and wanted == "srgb":
        return pixels, standard_profile("srgb")
    return convert(pixels, profile or standard_profile("srgb"), standard_profile(wanted)), standard_profile(
        wanted
    )


def convert(pixels: NDArray[np.uint8], source: bytes, target: bytes) -> NDArray[np.uint8]:
    """RGB pixels from one profile's space to another's, perceptual where the profile
    has such a table. Raises :class:`CodecError` for a profile that is none."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(source)),
            ImageCms.ImageCmsProfile(io.BytesIO(target)),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
        )
        image = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(pixels)), transform)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise CodecError("the ICC profile cannot be used") from error
    if image is None:
        raise CodecError("the ICC profile cannot be used")
    return np.asarray(image)
