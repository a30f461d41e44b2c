# SPDX-License-Identifier: Apache-2.0
"""Pictures of frames and of whole slides: which tiles of which level, in which colours.

A picture is drawn from the coarsest level of the pyramid that is still fine enough, and
averaged by area from there. What is decoded for one is bounded (``Limits``), and it is
decoded in the codec's processes.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from archive.access import Action, Principal, Scope
from archive.blobs import JPEG_BASELINE, describe_pixels
from archive.channels import PROFILE_PATH
from archive.core import Core
from archive.errors import (
    BadQuery,
    CannotDecode,
    CannotTranscode,
    NoSuchFrame,
    NoSuchInstance,
    NoSuchSeries,
    TooLarge,
)
from archive.handle import Handle, read_frame
from archive.matrix import Matrix
from archive.palette import MAX_OCTETS, PALETTE_COLOR, palette_of
from archive.part10.codestream import sniff
from archive.pyramid import Level, Pyramids, Recent, imaged_volume_mm
from archive.retrieve import Retriever
from archive.values import (
    Fit,
    FrameCodec,
    Instance,
    Layer,
    PixelDescription,
    Pyramid,
    PyramidLevel,
    Rendering,
)

MOST_CHANNELS = 8
"""Optical paths that are shown together: more colours tell nothing apart."""

_FINE_ENOUGH = 1.02  # a level this much too coarse is not seen to be
_WINDOW_TILES = 48
_WINDOW_PIXELS = 16 << 20
_HEAD_BYTES = 4096


class BadView(BadQuery):
    """No such optical path or focal plane in the instance."""


class Drawing:
    """The pictures of one archive; see the verbs of ``Archive``."""

    def __init__(self, core: Core, retriever: Retriever) -> None:
        self._core = core
        self._retriever = retriever
        self._pyramids = Pyramids(core, retriever)
        self._limits = Recent(1024)

    # ---- verbs -----------------------------------------------------------------

    def rendered(
        self,
        instance: Instance,
        frame_number: int,
        rendering: Rendering,
        *,
        principal: Principal,
        scope: Scope,
    ) -> bytes:
        """See ``Archive.rendered``."""
        handle = self._handle(instance, principal, scope)
        table = handle.table
        count = 0 if table is None else table.count
        if not 0 <= frame_number <= count or not count:
            raise NoSuchFrame(frame_number, count)
        self._core.access.note("rendered", principal, instance.study_instance_uid, instance.sop_instance_uid)
        if frame_number:
            return self.draw_frame(handle, frame_number - 1, rendering)
        return self.draw(handle, rendering)

    def pyramid(self, study: str, uid: str, *, principal: Principal, scope: Scope) -> Pyramid:
        """See ``Archive.pyramid``."""
        self._core.check(principal, Action.READ)
        levels = self._find(uid)
        handle = self._pyramids.handle(levels[0].sop_instance_uid)
        row = handle.row
        if study not in ("", row.study_instance_uid):
            raise NoSuchSeries(uid)
        try:
            found = self._retriever.instance(
                row.study_instance_uid,
                row.series_instance_uid,
                row.sop_instance_uid,
                principal=principal,
                scope=scope,
            )
        except NoSuchInstance:  # hidden: told as if it were absent
            raise NoSuchSeries(uid) from None
        matrix = levels[0].matrix
        return Pyramid(
            found.study_instance_uid,
            found.series_instance_uid,
            tuple(
                PyramidLevel(
                    level.sop_instance_uid, level.rows, level.columns,
                    level.matrix.tile_rows, level.matrix.tile_columns,
                )
                for level in levels
            ),
            imaged_volume_mm(matrix),
            tuple(channel.identifier for channel in matrix.channels),
            matrix.planes,
            "+".join(level.etag for level in levels),
        )  # fmt: skip

    def tile(
        self,
        instance: Instance,
        row: int,
        column: int,
        *,
        principal: Principal,
        scope: Scope,
    ) -> bytes | None:
        """See ``Archive.tile``."""
        handle = self._handle(instance, principal, scope)
        level = self._pyramids.level(handle)
        data = self._stored_tile(level, row, column)
        if data is not None:
            study, sop = instance.study_instance_uid, instance.sop_instance_uid
            self._core.access.note("frames", principal, study, sop)
        return data

    def _handle(self, instance: Instance, principal: Principal, scope: Scope) -> Handle:
        self._retriever.instance(
            instance.study_instance_uid,
            instance.series_instance_uid,
            instance.sop_instance_uid,
            principal=principal,
            scope=scope,
        )
        return self._pyramids.handle(instance.sop_instance_uid)

    def _find(self, uid: str) -> tuple[Level, ...]:
        """The levels of a series' largest image, or of the image that an instance is of."""
        handle = self._retriever.handles.get(uid)
        if handle is None:
            found = self._pyramids.of_series(uid)
            if not found:
                raise NoSuchSeries(uid)
            return found[0]
        for levels in self._pyramids.of_series(handle.row.series_instance_uid):
            if any(sop == uid for level in levels for sop, _ in level.parts):
                return levels
        raise NoSuchSeries(uid)

    # ---- drawing ---------------------------------------------------------------

    def draw_frame(self, handle: Handle, index: int, rendering: Rendering) -> bytes:
        """One frame by itself; grey ones in the window of their optical path."""
        matrix = self._pyramids.matrix(handle)
        _plane(matrix, rendering.focal_plane)
        _channels(matrix, _in_colour(handle), rendering.optical_path)
        canvas = (handle.row.rows, handle.row.columns)
        channel = matrix.channel_of(index)
        assert handle.table is not None
        tiles = [(0, 0, read_frame(handle, handle.table, index))]
        wanted = self._windowed(matrix, _sized(rendering, *canvas))
        layers = [Layer(1, None, self._limits_of(handle, channel, wanted))]
        return self._codec.render(tiles, self._pixels(handle, matrix, channel), wanted, canvas, layers)

    def draw(self, handle: Handle, rendering: Rendering) -> bytes:
        """The total pixel matrix, or the rendering's region of it. Raises TooLarge, BadView."""
        levels = self._pyramids.coarser(handle)
        target = levels[0]
        region = rendering.region or (0.0, 0.0, float(target.rows), float(target.columns))
        sized = _sized(rendering, target.rows, target.columns)
        level = _fine_enough(levels, region, sized.rows, sized.columns)
        area, inside = _cover(level, target, region)
        canvas = (area[2] - area[0], area[3] - area[1])
        matrix = level.matrix
        plane = _plane(matrix, rendering.focal_plane)
        channels = _channels(matrix, _in_colour(handle), rendering.optical_path)
        self._check_size(len(channels), canvas)
        wanted = self._windowed(matrix, replace(sized, region=inside))
        tiles: list[tuple[int, int, bytes]] = []
        layers = []
        first = self._pyramids.handle(level.sop_instance_uid)
        for channel in channels:
            places = list(level.tiles(channel, plane, area))
            if len(tiles) + len(places) > self._core.limits.render_tiles:
                raise TooLarge(f"more than {self._core.limits.render_tiles} frames in one picture")
            tiles += [
                (row - area[0], column - area[1], self._frame(sop, i)) for sop, i, row, column in places
            ]
            colour = matrix.channels[channel].colour if len(channels) > 1 else None
            layers.append(Layer(len(places), colour, self._limits_of(handle, channel, wanted)))
        pixels = self._pixels(first, matrix, channels[0])
        return self._codec.render(tiles, pixels, wanted, canvas, layers)

    def _check_size(self, layers: int, canvas: tuple[int, int]) -> None:
        limit = self._core.limits.render_pixels
        if layers * canvas[0] * canvas[1] > limit:
            raise TooLarge(f"{canvas[0]} x {canvas[1]} pixels to be decoded for one picture")

    def _frame(self, sop: str, index: int) -> bytes:
        handle = self._pyramids.handle(sop)
        assert handle.table is not None
        return read_frame(handle, handle.table, index)

    @property
    def _codec(self) -> FrameCodec:
        if self._core.codec is None:
            raise CannotTranscode("no codec is configured")
        return self._core.codec

    def _pixels(self, handle: Handle, matrix: Matrix, channel: int) -> PixelDescription:
        """How to decode, with the ICC profile of the optical path and the image's palette."""
        planar = int(matrix.head.get("PlanarConfiguration", 0) or 0)
        palette = palette_of(matrix.head, partial(_octets, handle, matrix)) if _has_palette(handle) else None
        return describe_pixels(
            handle.row,
            planar_configuration=planar,
            icc_profile=_profile(handle, matrix, channel),
            palette=palette,
        )

    def _windowed(self, matrix: Matrix, rendering: Rendering) -> Rendering:
        if rendering.window is None and matrix.window is not None:
            return replace(rendering, window=matrix.window)
        return rendering

    def _limits_of(self, handle: Handle, channel: int, rendering: Rendering) -> tuple[float, float] | None:
        """The window that all tiles of a pyramid share where nothing else says one: taken
        from its coarsest level, once."""
        row = handle.row
        eight_bits = (row.bits_allocated, row.bits_stored, row.pixel_representation) == (8, 8, 0)
        if _in_colour(handle) or row.bits_stored == 1 or eight_bits or rendering.window is not None:
            return None
        coarsest = self._pyramids.coarser(handle)[-1]
        try:
            return self._limits.get((coarsest.etag, channel), lambda: self._value_limits(coarsest, channel))
        except CannotDecode:  # a damaged tile there is no reason to show no other
            return None

    def _value_limits(self, level: Level, channel: int) -> tuple[float, float]:
        matrix = level.matrix
        whole = (0, 0, level.rows, level.columns)
        places = list(level.tiles(channel, matrix.middle_plane, whole))
        most = max(1, min(_WINDOW_TILES, _WINDOW_PIXELS // (matrix.tile_rows * matrix.tile_columns)))
        chosen = places[:: max(1, math.ceil(len(places) / most))]
        tiles = [(row, column, self._frame(sop, index)) for sop, index, row, column in chosen]
        handle = self._pyramids.handle(level.sop_instance_uid)
        return self._codec.value_limits(
            tiles, self._pixels(handle, matrix, channel), (level.rows, level.columns)
        )

    # ---- stored tiles ------------------------------------------------------------

    def _stored_tile(self, level: Level, row: int, column: int) -> bytes | None:
        matrix = level.matrix
        top, left = row * matrix.tile_rows, column * matrix.tile_columns
        bottom, right = top + matrix.tile_rows, left + matrix.tile_columns
        handle = self._pyramids.handle(level.sop_instance_uid)
        kind = handle.row
        plain = kind.transfer_syntax_uid == JPEG_BASELINE and matrix.window is None
        if not plain or min(row, column) < 0 or bottom > level.rows or right > level.columns:
            return None
        if kind.samples_per_pixel == 1 and (
            len(matrix.channels) > 1 or kind.photometric_interpretation != "MONOCHROME2"
        ):
            return None
        places = list(level.tiles(0, matrix.middle_plane, (top, left, bottom, right)))
        if len(places) != 1 or places[0][2:] != (top, left):
            return None
        data = self._frame(places[0][0], places[0][1])
        return data if _browsers_agree(data, kind.photometric_interpretation) else None


def _browsers_agree(frame: bytes, photometric: str) -> bool:
    """Whether a browser sees the colours of a JPEG that we see: it knows no Photometric
    Interpretation, and takes a stream that says nothing for YCbCr."""
    found = sniff(frame[:_HEAD_BYTES])
    if found.format != "jpeg" or not found.head_complete or found.bits != 8 or not found.has_tables:
        return False
    if found.components == 1:
        return True
    told = found.adobe_transform is not None or found.subsampled or found.component_ids == (82, 71, 66)
    return found.components == 3 and (told or photometric != "RGB" or b"JFIF\0" in frame[:20])


def _profile(handle: Handle, matrix: Matrix, channel: int) -> bytes:
    known = matrix.channels[channel].icc_profile
    if known or not _in_colour(handle):
        return known
    paths = (PROFILE_PATH.format(channel), "00282000")
    for value in handle.row.bulk:
        if value.path in paths:
            return b"".join(handle.blobs[0].chunks(value.offset, value.length))
    return b""


def _has_palette(handle: Handle) -> bool:
    return handle.row.photometric_interpretation == PALETTE_COLOR


def _in_colour(handle: Handle) -> bool:
    """Whether its pixels are colours, not intensities of an optical path."""
    return handle.row.samples_per_pixel > 1 or _has_palette(handle)


def _octets(handle: Handle, matrix: Matrix, tag: int) -> bytes:
    """A value of the header, or the start of one that is kept apart; b"" where it is absent."""
    element = matrix.head.get(tag)
    if element is not None and isinstance(element.value, bytes) and element.value:
        return element.value
    for value in handle.row.bulk:
        if value.path == f"{tag:08X}":
            return b"".join(handle.blobs[0].chunks(value.offset, min(value.length, MAX_OCTETS + 2)))
    return b""


def _sized(rendering: Rendering, rows: int, columns: int) -> Rendering:
    """With the exact size of the picture, of a source of so many rows and columns."""
    _, _, height, width = rendering.region or (0, 0, rows, columns)
    if rendering.fit is Fit.EXACT:
        return rendering
    bounds = ((rendering.rows, height), (rendering.columns, width))
    scale = min((wanted / length for wanted, length in bounds if wanted), default=1.0)
    if rendering.fit is Fit.SHRINK:
        scale = min(1.0, scale)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return replace(rendering, rows=size[0], columns=size[1], fit=Fit.EXACT)


def _fine_enough(
    levels: Sequence[Level], region: tuple[float, float, float, float], rows: int, columns: int
) -> Level:
    """The coarsest level that has a pixel for every pixel of the picture; else the first."""
    target = levels[0]
    reduction = min(region[2] / rows, region[3] / columns) * _FINE_ENOUGH
    return next((level for level in reversed(levels) if target.columns / level.columns <= reduction), target)


def _cover(
    level: Level, target: Level, region: tuple[float, float, float, float]
) -> tuple[tuple[int, int, int, int], tuple[float, float, float, float]]:
    """The area (top, left, bottom, right) of whole pixels of ``level`` that a region of the
    target covers, and the region within that area."""
    down, across = level.rows / target.rows, level.columns / target.columns
    top, left = region[0] * down, region[1] * across
    bottom = min(float(level.rows), top + region[2] * down)
    right = min(float(level.columns), left + region[3] * across)
    first_row, first_column = math.floor(top + 1e-6), math.floor(left + 1e-6)
    area = (
        min(first_row, level.rows - 1),
        min(first_column, level.columns - 1),
        max(first_row + 1, math.ceil(bottom - 1e-6)),
        max(first_column + 1, math.ceil(right - 1e-6)),
    )
    inside_top, inside_left = max(0.0, top - area[0]), max(0.0, left - area[1])
    return area, (
        inside_top,
        inside_left,
        min(bottom - top, area[2] - area[0] - inside_top),
        min(right - left, area[3] - area[1] - inside_left),
    )


def _plane(matrix: Matrix, number: int) -> int:
    if number > matrix.planes:
        raise BadView(f"no focal plane {number}: there are {matrix.planes}")
    return number - 1 if number else matrix.middle_plane


def _channels(matrix: Matrix, in_colour: bool, identifier: str) -> list[int]:
    """One optical path or segment by its name; else those that are shown together."""
    if identifier:
        for number, channel in enumerate(matrix.channels):
            if channel.identifier == identifier:
                return [number]
        raise BadView("no such optical path")
    return [0] if in_colour else list(range(min(MOST_CHANNELS, len(matrix.channels))))
