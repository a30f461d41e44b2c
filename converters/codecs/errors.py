# SPDX-License-Identifier: Apache-2.0
"""Why a frame could not be decoded or encoded. Messages hold sizes and UIDs, no pixels."""

from converters.errors import ConversionError, DamagedSlide, NotEnoughMemory, UnsupportedPixels


class CodecError(ConversionError):
    """The codestream is damaged, or says something else than its header."""


class UnsupportedCodec(CodecError):
    """No decoder or encoder here for the transfer syntax or the kind of pixels."""


class FrameTooLarge(CodecError):
    """Decoding would take more memory than a frame may."""


def as_refusal(error: ConversionError, what: str) -> ConversionError:
    """What ``error`` means for a slide, in one line that begins with ``what``: a codec's
    refusal, or any other with a shortage of memory behind it; else ``error`` itself."""
    if isinstance(error, NotEnoughMemory):
        return error
    if ran_short(error):
        return NotEnoughMemory(what if isinstance(error, CodecError) else str(error))
    if isinstance(error, CodecError):
        unsupported = isinstance(error, (UnsupportedCodec, FrameTooLarge))
        return (UnsupportedPixels if unsupported else DamagedSlide)(f"{what}: {error}")
    return error


def ran_short(error: BaseException) -> bool:
    """Whether memory ran short, whatever was made of that on the way."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        if isinstance(at, MemoryError):
            return True
        seen.add(id(at))
        at = at.__cause__ or at.__context__
    return False
