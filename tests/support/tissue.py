# SPDX-License-Identifier: Apache-2.0
"""Received slides whose JPEG tiles have the entropy of tissue, and archives of them."""

import io
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import dcmread

from archive.service import Archive
from archive.values import Recompressed, Stored
from tests.support.archives import ASK
from tests.support.instances import make_instance
from tests.support.make_slide import noisy_tile

TILE = 96


def tissue(seed: int, *, mode: str = "RGB", parity: int = 0, quality: int = 85, size: int = TILE) -> bytes:
    """A baseline JPEG with the entropy of tissue. ``parity`` of its length: 0 hides no
    padding, 1 has some."""
    pixels = Image.fromarray(noisy_tile(np.random.default_rng(seed), size)).convert(mode)
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=quality, subsampling=2 if mode == "RGB" else -1)
    data = out.getvalue()
    if len(data) % 2 == parity:
        return data
    return data[:2] + b"\xff\xfe\x00\x03\x20" + data[2:]


TILES = tuple(tissue(seed) for seed in range(4))
WITHOUT_END = TILES[2][:-2]  # libjpeg takes it, JPEG XL does not


def slide(tiles: Sequence[bytes] = TILES, **attributes: Any) -> bytes:
    """Part 10 bytes of these tiles."""
    edge = Image.open(io.BytesIO(tiles[0])).width
    return make_instance(tiles=tiles, tile=edge, frames=len(tiles), **attributes)


def rewritten(data: bytes, change: Callable[[Any], None]) -> bytes:
    """Part 10 bytes with something changed by pydicom."""
    dataset = dcmread(io.BytesIO(data))
    change(dataset)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def uids(stored: Stored) -> tuple[str, str, str]:
    return stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid


def recompress(archive: Archive, stored: Stored, **more: Any) -> list[Recompressed]:
    """What became of each instance of the study."""
    return list(archive.recompress(stored.study_instance_uid, **{"reason": "r", **ASK, **more}))


def only(archive: Archive, stored: Stored, **more: Any) -> tuple[str, str]:
    """The same of a study with one instance: outcome and reason."""
    (one,) = recompress(archive, stored, **more)
    return str(one.outcome), one.reason


def stream(archive: Archive, stored: Stored) -> bytes:
    return b"".join(archive.open(archive.instance(*uids(stored), **ASK), **ASK).chunks)


def blobs(folder: Path) -> set[str]:
    """Names of the blobs in the store below ``folder``."""
    return {p.name for p in (folder / "store" / "blob").rglob("*") if p.is_file()}


def blob_path(folder: Path, name: str) -> Path:
    return folder / "store" / "blob" / name[:2] / name[2:4] / name


def a_day_later(archive: Archive) -> None:
    """Set the archive's clock forward, so that garbage collection removes what is condemned."""
    later = archive._core.clock() + timedelta(hours=25)
    archive._core.clock = lambda: later
