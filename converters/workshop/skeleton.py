# SPDX-License-Identifier: Apache-2.0
"""A slide without its functions, as bytes: what a child tells its parent of a slide that
only a C library can open. The parent builds nothing but the slide's own classes from it,
whatever the child sends: a child may be subverted by the file that it reads.
"""

import io
import pickle
from dataclasses import replace
from typing import Any

from converters.errors import DamagedSlide
from converters.slide import Level, PixelTiles, Scene, Slide

MAX_BYTES = 1 << 28
_ALLOWED = {
    "converters.slide": {
        "AssociatedImage", "GatherMap", "Illumination", "Level", "OpticalPath", "PixelTiles",
        "PixelType", "RealWorldMapping", "Role", "Scan", "Scene", "Slide", "SourceFile", "TileMap",
    },
    "converters.workshop.skeleton": {"elsewhere"},
    "datetime": {"datetime", "timedelta", "timezone"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct"},
    "numpy._core.numeric": {"_frombuffer"},
}  # fmt: skip


def elsewhere(*_: object) -> Any:
    """Stands for a function of a slide that is open in another process."""
    raise RuntimeError("this slide is open in another process: its bench does the work")


def pack(slide: Slide) -> bytes:
    """The slide as bytes, every function replaced."""
    return pickle.dumps(
        replace(
            slide,
            scenes=tuple(_scene(scene) for scene in slide.scenes),
            associated=tuple(replace(image, read=elsewhere) for image in slide.associated),
            closer=elsewhere,
        ),
        protocol=5,
    )


def _scene(scene: Scene) -> Scene:
    return replace(scene, levels=tuple(map(_level, scene.levels)), optical_paths=tuple(scene.optical_paths))


def _level(level: Level) -> Level:
    tiles = level.tiles
    if isinstance(tiles, PixelTiles):
        tiles = replace(tiles, read=elsewhere)
    return replace(level, tiles=tiles, reference=elsewhere if level.reference else None)


def unpack(data: bytes) -> Slide:
    """The slide again; closing it does nothing. Raises DamagedSlide for anything else."""
    try:
        slide = _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # pickle raises whatever its instructions lead to
        raise DamagedSlide("the file's reader gave no slide") from error
    if not isinstance(slide, Slide):
        raise DamagedSlide("the file's reader gave no slide")
    return replace(slide, closer=_nothing)


def _nothing() -> None:
    """There is nothing to close here."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a slide")
        return super().find_class(module, name)
