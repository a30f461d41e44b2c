# SPDX-License-Identifier: Apache-2.0
"""A small writer of Zeiss CZI, for what ZEISS's own (pylibCZIrw) cannot write: attachments,
pyramids, JPEG and JPEG XR sub-blocks, rare dimensions. The layout is described in
``converters/readers/czi_segments.py``."""

import struct
from collections.abc import Mapping
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

UNCOMPRESSED, JPEG, JPEG_XR, ZSTD_0, ZSTD_1 = 0, 1, 4, 5, 6
GRAY8, GRAY16, GRAY_FLOAT, BGR24, BGR48 = 0, 1, 2, 3, 4
_KINDS = {("u1", 1): GRAY8, ("u2", 1): GRAY16, ("f4", 1): GRAY_FLOAT, ("u1", 3): BGR24, ("u2", 3): BGR48}
_ALIGNMENT = 32
_RGB24, _BGR24 = (bytes.fromhex("24c3dd6f034efe4bb1853d77768dc9" + last) for last in ("0d", "0c"))


def encoded(pixels: NDArray[np.generic], compression: int) -> bytes:
    """(rows, columns, samples), RGB or grey, as a sub-block holds it."""
    stored = np.ascontiguousarray(pixels[..., ::-1])
    picture = np.ascontiguousarray(np.squeeze(pixels))
    match compression:
        case 0:
            return stored.tobytes()
        case 1:
            return imagecodecs.jpeg8_encode(picture, level=95, subsampling="444")
        case 4:
            data = imagecodecs.jpegxr_encode(picture, level=0.9)
            return data.replace(_RGB24, _BGR24)
        case 5:
            return imagecodecs.zstd_encode(stored.tobytes(), level=1)
        case 6 if stored.dtype.itemsize == 2:
            halves = np.frombuffer(stored.tobytes(), np.uint8).reshape(-1, 2).T.tobytes()
            return b"\x03\x01\x01" + imagecodecs.zstd_encode(halves, level=1)
        case 6:
            return b"\x01" + imagecodecs.zstd_encode(stored.tobytes(), level=1)
    raise ValueError(f"no compression {compression}")


class CziWriter:
    """Sub-blocks, attachments and XML first, then :meth:`save`."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._entries: list[bytes] = []
        self._attachments: list[bytes] = []
        self._segment(b"ZISRAWFILE", bytes(512))

    def _segment(self, name: bytes, body: bytes) -> int:
        """Append a segment; its position."""
        position = len(self._data)
        allocated = -(-len(body) // _ALIGNMENT) * _ALIGNMENT
        self._data += struct.pack("<16sqq", name, allocated, len(body)) + body.ljust(allocated, b"\0")
        return position

    def add(
        self,
        pixels: NDArray[np.generic],
        x: int,
        y: int,
        *,
        covers: int = 1,
        compression: int = UNCOMPRESSED,
        data: bytes | None = None,
        size: tuple[int, int] | None = None,
        **places: int,
    ) -> None:
        """A sub-block of (rows, columns, samples) at (x, y); each of its pixels covers
        ``covers`` x ``covers`` of the finest level. ``places``: C, Z, T, S, M, ..."""
        rows, columns, samples = pixels.shape
        covered = size or (rows * covers, columns * covers)
        dimensions = [("X", x, covered[1], columns), ("Y", y, covered[0], rows)]
        dimensions += [(name, start, 1, 1) for name, start in places.items()]
        kind = _KINDS[pixels.dtype.str[1:], samples]
        packed = b"".join(
            struct.pack("<4siifi", name.encode(), start, size, 0.0, stored)
            for name, start, size, stored in dimensions
        )
        content = encoded(pixels, compression) if data is None else data
        position = len(self._data)
        entry = struct.pack(
            "<2siqiiB5xi", b"DV", kind, position, 0, compression, 0 if covers == 1 else 2, len(dimensions)
        )
        head = (struct.pack("<iiq", 0, 0, len(content)) + entry + packed).ljust(256, b"\0")
        self._segment(b"ZISRAWSUBBLOCK", head + content)
        self._entries.append(entry + packed)

    def attach(self, name: str, content_type: str, content: bytes) -> None:
        position = len(self._data)
        entry = struct.pack("<2s10xqi16x8s80s", b"A1", position, 0, content_type.encode(), name.encode())
        self._segment(
            b"ZISRAWATTACH", (struct.pack("<q8x", len(content)) + entry).ljust(256, b"\0") + content
        )
        self._attachments.append(entry)

    def to_bytes(self, xml: str) -> bytes:
        directory = self._segment(
            b"ZISRAWDIRECTORY", struct.pack("<i124x", len(self._entries)) + b"".join(self._entries)
        )
        text = xml.encode()
        metadata = self._segment(b"ZISRAWMETADATA", struct.pack("<ii248x", len(text), 0) + text)
        attachments = 0
        if self._attachments:
            listed = struct.pack("<i252x", len(self._attachments)) + b"".join(self._attachments)
            attachments = self._segment(b"ZISRAWATTDIR", listed)
        struct.pack_into(
            "<iiii16s16siqqiq", self._data, 32,
            1, 0, 0, 0, b"p" * 16, b"p" * 16, 0, directory, metadata, 0, attachments,
        )  # fmt: skip
        return bytes(self._data)

    def save(self, path: Path, xml: str) -> Path:
        path.write_bytes(self.to_bytes(xml))
        return path


def metadata_xml(
    *,
    image: str = "",
    instrument: str = "",
    spacing_um: tuple[float, float] | None = (0.44, 0.44),
    z_um: float | None = None,
    rest: str = "",
    attributes: Mapping[str, str] | None = None,
) -> str:
    """The XML of a CZI around what a test says of its image and instrument."""
    axes = dict(zip("XY", spacing_um, strict=True)) if spacing_um else {}
    if z_um is not None:
        axes["Z"] = z_um
    scaling = "".join(
        f'<Distance Id="{axis}"><Value>{value * 1e-6!r}</Value></Distance>' for axis, value in axes.items()
    )
    custom = "".join(f"<{name}>{value}</{name}>" for name, value in (attributes or {}).items())
    return (
        '<?xml version="1.0" encoding="utf-8"?><ImageDocument><Metadata>'
        f"<CustomAttributes>{custom}</CustomAttributes>"
        f"<Information><Image>{image}</Image><Instrument>{instrument}</Instrument>"
        "<Application><Name>ZEN (blue edition)</Name><Version>3.7.97</Version></Application></Information>"
        f"<Scaling><Items>{scaling}</Items></Scaling>{rest}</Metadata></ImageDocument>"
    )
