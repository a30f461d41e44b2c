# SPDX-License-Identifier: Apache-2.0
"""The codecs in this process, where a test is not about the pool of processes."""

from collections.abc import Sequence

from archive.errors import CannotDecode, CannotTranscode
from archive.values import Fit, Layer, PixelDescription, Rendering
from converters.codecs.errors import CodecError, UnsupportedCodec
from converters.codecs.render import FrameFormat, View, render, value_limits
from converters.codecs.render import Layer as DrawnLayer
from converters.codecs.transcode import transcode
from converters.codecs.transfer_syntax import can_transcode


class DirectCodec:
    """A ``FrameCodec`` without processes."""

    def transcode(self, frame: bytes, source: PixelDescription, transfer_syntax_uid: str) -> bytes:
        try:
            return transcode(frame, form_of(source), transfer_syntax_uid)
        except UnsupportedCodec as error:
            raise CannotTranscode(str(error)) from error
        except CodecError as error:
            raise CannotDecode(str(error)) from error

    def render(
        self,
        tiles: Sequence[tuple[int, int, bytes]],
        source: PixelDescription,
        rendering: Rendering,
        canvas: tuple[int, int],
        layers: Sequence[Layer] = (),
    ) -> bytes:
        view = View(
            rendering.media_type,
            rendering.quality,
            rendering.rows,
            rendering.columns,
            rendering.icc_profile,
            rendering.window,
            rendering.region,
            rendering.fit is Fit.EXACT,
            rendering.flip_rows,
            rendering.flip_columns,
            rendering.rotation,
            rendering.tone,
            tuple(DrawnLayer(layer.tiles, layer.colour, layer.limits) for layer in layers),
        )
        return render(list(tiles), form_of(source), view, canvas)

    def value_limits(
        self, tiles: Sequence[tuple[int, int, bytes]], source: PixelDescription, canvas: tuple[int, int]
    ) -> tuple[float, float]:
        try:
            return value_limits(list(tiles), form_of(source), canvas)
        except CodecError as error:
            raise CannotDecode(str(error)) from error

    def can_transcode(self, source: PixelDescription, transfer_syntax_uid: str) -> bool:
        return can_transcode(
            source.transfer_syntax_uid,
            transfer_syntax_uid,
            source.bits_allocated,
            pixel_representation=source.pixel_representation,
            photometric=source.photometric_interpretation,
        )


def form_of(source: PixelDescription) -> FrameFormat:
    return FrameFormat(
        source.transfer_syntax_uid,
        source.rows,
        source.columns,
        source.samples_per_pixel,
        source.bits_allocated,
        source.bits_stored,
        source.pixel_representation,
        source.photometric_interpretation,
        source.planar_configuration,
        source.icc_profile,
    )
