# SPDX-License-Identifier: Apache-2.0
"""Frame tables over the scanner's own files: copied tiles, wherever they lie."""

import numpy as np
from numpy.typing import NDArray

from archive.part10.frame_table import encode_direct, encode_gathered
from converters.slide import GatherMap, Slide, SourceFile, TileMap
from converters.writer.plan import PlannedLevel
from converters.writer.survey import Survey


def born_table(
    slide: Slide, one: PlannedLevel, kept: NDArray[np.int64], blank: bytes
) -> tuple[bytes, tuple[SourceFile | bytes, ...]]:
    """Frames as ranges of the source files that the level uses, each after its kind's
    prefix; absent ones are the blob after them. The table, and those blobs."""
    tiles, found = one.level.tiles, one.survey
    absent, kinds = tiles.absent[kept], found.kind_ids[kept]
    if isinstance(tiles, GatherMap):
        used, blob_of = np.unique(np.where(tiles.literal, tiles.files[0], tiles.files), return_inverse=True)
        table = _gathered(tiles, found, kept, blank, blob_of.astype(np.uint8))
        return table, tuple(slide.sources[number] for number in used.tolist())
    if not isinstance(tiles, TileMap):  # pragma: no cover - a level of pixels is never copied
        raise TypeError("pixels are not copied")
    used, blob_of = np.unique(tiles.files[kept], return_inverse=True)
    sources = tuple(slide.sources[number] for number in used.tolist())
    prefixes = [b"", *dict.fromkeys(kind.prefix for kind in found.kinds if kind.prefix)]
    prefix_of = np.array([prefixes.index(kind.prefix) for kind in found.kinds], dtype=np.uint16)
    skip_of = np.array([kind.skip for kind in found.kinds], dtype=np.uint16)
    table = encode_direct(
        np.where(absent, np.uint64(0), tiles.offsets[kept]),
        np.where(absent, np.uint64(len(blank)), found.lengths[kept]),
        blob_index=np.where(absent, len(sources), blob_of).astype(np.uint8),
        prefixes=prefixes,
        prefix_ids=np.where(absent, 0, prefix_of[kinds]),
        skips=np.where(absent, 0, skip_of[kinds]),
    )
    return table, ((*sources, blank) if blank else sources)


def _gathered(
    tiles: GatherMap, found: Survey, kept: NDArray[np.int64], blank: bytes, blob_of: NDArray[np.uint8]
) -> bytes:
    """Pieces as they are; absent tiles are one more literal."""
    counts = np.diff(tiles.index)[kept].astype(np.int64)
    first = np.repeat(tiles.index[:-1][kept].astype(np.int64), counts)
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    pieces = first + within
    offsets, lengths, literal = tiles.offsets[pieces], tiles.lengths[pieces], tiles.literal[pieces]
    blobs = blob_of[pieces]
    literals = tiles.literals
    prefixes = [kind.prefix for kind in found.kinds]
    starts = np.cumsum(counts) - counts
    if any(prefixes) or blank:
        places, values = [], []
        for at, index in enumerate(kept.tolist()):
            kind = found.kinds[found.kind_ids[index]]
            text = blank if tiles.absent[index] else kind.prefix
            if not text:
                continue
            if not tiles.absent[index]:
                offsets[starts[at]] += kind.skip
                lengths[starts[at]] -= kind.skip
            places.append(int(starts[at]))
            values.append(text)
            counts[at] += 1
        heap = dict.fromkeys(values, 0)
        for text in heap:
            heap[text] = len(literals)
            literals += text
        offsets = np.insert(offsets, places, [heap[text] for text in values])
        lengths = np.insert(lengths, places, [len(text) for text in values])
        literal = np.insert(literal, places, True)
        blobs = np.insert(blobs, places, 0)
    index = np.concatenate(([0], np.cumsum(counts))).astype(np.uint64)
    return encode_gathered(index, offsets, lengths, literal, literals, blob_index=blobs)
