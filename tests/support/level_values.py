# SPDX-License-Identifier: Apache-2.0
"""A level's stored values put together from its tiles, of 8 or 16 bits."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import generate_frames

from converters.slide import Level, PixelTiles


def level_values(level: Level, path: int = 0, plane: int = 0) -> NDArray[Any]:
    """(rows, columns, samples) of one optical path and focal plane: tiles that are decoded
    as they are read, tiles that are copied by the reader's own decoder."""
    read = level.tiles.read if isinstance(level.tiles, PixelTiles) else level.reference
    assert read is not None
    bands = [
        np.concatenate(
            [read(level.frame_index(path, plane, row, column)) for column in range(level.tiles_across)],
            axis=1,
        )
        for row in range(level.tiles_down)
    ]
    return np.concatenate(bands)[: level.rows, : level.columns]


def written_values(path: Path, number: int = 0) -> NDArray[Any]:
    """Plane ``number`` (focal planes within optical paths) of a converted level whose frames
    are JPEG 2000, as a library decodes it that does not encode."""
    dataset = pydicom.dcmread(path)
    down = -(-dataset.TotalPixelMatrixRows // dataset.Rows)
    across = -(-dataset.TotalPixelMatrixColumns // dataset.Columns)
    coded = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))
    frames = [imagecodecs.jpeg2k_decode(frame) for frame in coded[number * down * across :][: down * across]]
    bands = [np.concatenate(frames[row * across :][:across], axis=1) for row in range(down)]
    return np.concatenate(bands)[: dataset.TotalPixelMatrixRows, : dataset.TotalPixelMatrixColumns]
