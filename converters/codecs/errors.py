# SPDX-License-Identifier: Apache-2.0
"""Why a frame could not be decoded or encoded. Messages hold sizes and UIDs, no pixels."""

from converters.errors import ConversionError


class CodecError(ConversionError):
    """The codestream is damaged, or says something else than its header."""


class UnsupportedCodec(CodecError):
    """No decoder or encoder here for the transfer syntax or the kind of pixels."""


class FrameTooLarge(CodecError):
    """Decoding would take more memory than a frame may."""
