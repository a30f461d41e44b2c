# SPDX-License-Identifier: Apache-2.0
"""The wavelet of iSyntax: YCoCg, and the reversible 5/3 of JPEG 2000 with its low band
on even samples. Band sample k of a low band is the picture's sample 2k + 2: each level
leaves the first one out, so a picture needs a margin, 3 pixels wide at the coarsest
level and doubled at each finer one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.int32]
WHITE = (255, 0, 0)  # Y, Co, Cg


@dataclass(frozen=True, eq=False)
class Bands:
    """One decomposition of a plane (2 rows, 2 columns): each band is (rows, columns).
    The first letter is the band along rows: ``hl`` is high across, low downwards."""

    ll: Plane
    hl: Plane
    lh: Plane
    hh: Plane

    @property
    def high(self) -> Sequence[Plane]:
        """As a codeblock holds them."""
        return self.hl, self.lh, self.hh


def to_ycocg(pixels: NDArray[np.uint8]) -> Plane:
    """RGB (rows, columns, 3) as three planes (3, rows, columns), reversibly."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    co = red - blue
    middle = blue + (co >> 1)
    cg = green - middle
    return np.stack((middle + (cg >> 1), co, cg))


def to_rgb(planes: Plane) -> NDArray[np.uint8]:
    """The way back. Coarse levels overshoot: |Y| is taken, and colours are clipped."""
    y, co, cg = np.abs(planes[0]), planes[1], planes[2]
    middle = y - (cg >> 1)
    blue = middle - (co >> 1)
    return np.clip(np.stack((blue + co, middle + cg, blue), axis=-1), 0, 255).astype(np.uint8)


def decompose(plane: Plane, outside: int) -> Bands:
    """One level; ``outside`` is the value of everything around the plane."""
    low, high = _split(plane, outside)
    ll, hl = (band.T for band in _split(low.T, outside))
    lh, hh = (band.T for band in _split(high.T, 0))
    return Bands(ll, hl, lh, hh)


def _split(samples: Plane, outside: int) -> tuple[Plane, Plane]:
    """Low and high band along the first axis."""
    last = np.full((1, samples.shape[1]), outside, dtype=np.int32)
    none = np.zeros_like(last)
    even, odd = np.concatenate((samples[0::2], last)), samples[1::2]
    high = odd - ((even[:-1] + even[1:]) >> 1)
    following = np.concatenate((high[1:], none))
    low = even[1:] + ((high + following + 2) >> 2)
    return low, high
