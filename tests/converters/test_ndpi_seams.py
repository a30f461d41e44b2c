# SPDX-License-Identifier: Apache-2.0
"""How far tiles of NDPI differ from the undivided JPEG: docs/formats.md states the figures."""

import numpy as np

from converters.registry import open_slide
from tests.converters.test_hamamatsu_ndpi import SAMPLE, as_ycbcr, level_jpeg
from tests.support.level_pixels import tile_bytes
from tests.support.require import require_data


def test_on_tissue_only_chroma_at_seams_differs() -> None:
    path = require_data(SAMPLE)
    whole = as_ycbcr(level_jpeg(path, 0))
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[0]
        mine = np.empty((level.tiles_down * 512, level.tiles_across * 512, 3), np.int64)
        for index in range(level.number_of_frames):
            top, left = index // level.tiles_across * 512, index % level.tiles_across * 512
            mine[top : top + 512, left : left + 512] = as_ycbcr(tile_bytes(slide, level, index))
    different = np.abs(mine[: level.rows, : level.columns] - whole)
    assert not different[..., 0].any()
    assert different.max() <= 25
    seams = np.zeros(different.shape[1], bool)
    seams[511::512] = seams[512::512] = True
    assert not different[:, ~seams].any()
    assert 0.002 < different.any(axis=-1).mean() < 0.0025
