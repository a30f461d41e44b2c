# SPDX-License-Identifier: Apache-2.0
"""Olympus VSI: a TIFF that holds tags, and the image stacks in .ets files beside it."""

import struct
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from tests.support.make_slide import picture
from tests.support.slides.olympus_stacks import CY5, DAPI, FITC, DrawnStack, write_ets
from tests.support.slides.olympus_tags import image, inside, text, volume
from tests.support.slides.tiles import Pixels

LABEL = DrawnStack("Label", 256, rows=200, columns=180, levels=1, power=1.0, aperture=0.03, seed=21)
OVERVIEW = DrawnStack("Overview", 1, rows=300, columns=700, levels=2, power=2.0, aperture=0.08, seed=22)
FLUORESCENCE = DrawnStack(
    "20x_FL", rows=600, columns=500, coding="raw", channels=(DAPI, FITC, CY5), planes=2, bits=16, axes="cz",
    levels=2, background=b"\x05\x00",
)  # fmt: skip


def write_olympus_vsi(
    folder: Path,
    stacks: Sequence[DrawnStack] = (DrawnStack(),),
    *,
    without: Collection[int] = (),
    orphan: DrawnStack | None = None,
    pages: Sequence[Pixels] | None = None,
    page_stacks: Sequence[DrawnStack] = (),
    barcode: str = "S26-123",
    name: str = "olympus",
) -> Path:
    """``without`` are stacks whose .ets is not written; ``orphan`` is one that the .vsi does
    not describe. ``pages`` are pictures of the TIFF (one of the first stack's shape unless
    given), ``page_stacks`` describe them from the first on."""
    home = folder / f"_{name}_"
    for number, stack in enumerate(stacks):
        for file in range(stack.files if number not in without else 0):
            write_ets(home / f"stack{10001 + number}" / f"frame_t_{file}.ets", stack, file)
    if orphan is not None:
        write_ets(home / "stack1" / "frame_t_0.ets", orphan)
    images = [image(stack, number) for number, stack in enumerate(stacks)]
    images += [image(stack, len(images) + page, page) for page, stack in enumerate(page_stacks)]
    document = inside(2, text(17, "VS-ASW"), text(24, "OLYMPUS VS-ASW"), text(25, "4.1.1"))
    tags = volume(document, inside(2062, text(120635, barcode)), inside(2000, *images))
    if pages is None:
        pages = [picture(stacks[0].rows // 8, stacks[0].columns // 8, stacks[0].seed)]
    path = folder / f"{name}.vsi"
    path.write_bytes(_tiff(tags, pages))
    return path


def _tiff(tags: bytes, pages: Sequence[Pixels]) -> bytes:
    """Uncompressed pages of one strip each, after ``tags`` at byte 8."""
    body = bytearray(b"II*\0" + bytes(4) + tags)
    link = 4
    for pixels in pages:
        body += bytes(-len(body) % 4)
        software = len(body)
        body += b"OLYMPUS\0"
        bits = len(body)
        body += struct.pack("<3H", 8, 8, 8) + bytes(2)
        strip = len(body)
        body += pixels.tobytes() + bytes(-pixels.size % 4)
        rows, columns = pixels.shape[:2]
        entries = [
            (256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 1, strip), (277, 3, 1, 3), (278, 4, 1, rows), (279, 4, 1, pixels.size),
            (305, 2, 8, software),
        ]  # fmt: skip
        struct.pack_into("<I", body, link, len(body))
        body += struct.pack("<H", len(entries))
        body += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
        link = len(body) - 4
    return bytes(body)


def write_brightfield(folder: Path) -> Path:
    """Label, overview and two regions."""
    region = replace(DrawnStack(), name="20x_02", rows=500, columns=620, seed=9)
    return write_olympus_vsi(folder, (LABEL, OVERVIEW, DrawnStack(), region))


def write_fluorescence(folder: Path) -> Path:
    return write_olympus_vsi(folder, (FLUORESCENCE,))


def write_jpeg_2000(folder: Path) -> Path:
    return write_olympus_vsi(folder, (DrawnStack(coding="j2k"),))
