# SPDX-License-Identifier: Apache-2.0
"""Codestreams held against their headers."""

import imagecodecs
import numpy as np
import pytest

from archive.part10.agreement import Announced, disagreements, stated_colours
from archive.part10.codestream import sniff

JPEG, J2K, J2K_LOSSY, JPEG_LS = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 90, 91, 80))
PIXELS = np.random.default_rng(1).integers(0, 255, (16, 24, 3), dtype=np.uint8)
COLOURS = "the frames are YBR_FULL_422, Photometric Interpretation says something else"


def announced(
    syntax: str, photometric: str, rows: int = 16, columns: int = 24, samples: int = 3
) -> Announced:
    return Announced(syntax, photometric, rows, columns, samples, 8)


def jpeg(subsampling: str = "444", marker: bool = True, inside: str = "YCBCR") -> bytes:
    frame = bytes(
        imagecodecs.jpeg8_encode(PIXELS, colorspace="RGB", outcolorspace=inside, subsampling=subsampling)
    )
    if marker:
        return frame
    at = frame.index(b"\xff\xe0")
    return frame[:at] + frame[at + 2 + int.from_bytes(frame[at + 2 : at + 4]) :]


def j2k(mct: bool = True, reversible: bool = True) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            PIXELS, codecformat="j2k", mct=mct, reversible=reversible, level=0 if reversible else 40
        )
    )


@pytest.mark.parametrize(
    ("frame", "header"),
    [
        (jpeg(), announced(JPEG, "YBR_FULL_422")),
        (jpeg(), announced(JPEG, "YBR_FULL")),
        (jpeg(marker=False), announced(JPEG, "RGB")),
        (jpeg("420", marker=False), announced(JPEG, "YBR_FULL_422")),
        (jpeg(inside="RGB"), announced(JPEG, "RGB")),
        (jpeg(), announced("1.2.840.10008.1.2.4.51", "YBR_FULL_422")),
        (j2k(), announced(J2K, "YBR_RCT")),
        (j2k(), announced(J2K_LOSSY, "YBR_RCT")),
        (j2k(mct=False), announced(J2K, "RGB")),
        (j2k(mct=False), announced(J2K, "YBR_FULL")),
        (bytes(imagecodecs.jpegls_encode(PIXELS)), announced(JPEG_LS, "RGB")),
        (bytes(imagecodecs.jpegls_encode(PIXELS)), announced(JPEG_LS, "YBR_FULL")),
        (jpeg()[:30], announced(J2K, "RGB")),  # the head does not say enough
        (b"nothing that is known", announced(J2K, "RGB")),
    ],
)
def test_what_fits_or_cannot_be_told_is_let_pass(frame: bytes, header: Announced) -> None:
    assert disagreements(frame, header) == []


@pytest.mark.parametrize(
    ("frame", "header", "line"),
    [
        (jpeg(), announced(JPEG, "RGB"), COLOURS),
        (jpeg("420", marker=False), announced(JPEG, "RGB"), COLOURS),
        (jpeg(inside="RGB"), announced(JPEG, "YBR_FULL_422"), COLOURS.replace("YBR_FULL_422", "RGB")),
        (j2k(), announced(J2K, "RGB"), COLOURS.replace("YBR_FULL_422", "YBR_RCT")),
        (
            j2k(mct=False, reversible=False),
            announced(J2K_LOSSY, "YBR_ICT"),
            "the frames have no component transformation, Photometric Interpretation says that they have",
        ),
        (
            j2k(reversible=False),
            announced(J2K, "YBR_ICT"),
            "the frames are of another transfer syntax than the header says",
        ),
        (j2k(), announced(JPEG, "YBR_RCT"), "the frames are of another transfer syntax than the header says"),
        (
            jpeg().replace(b"\xff\xc0", b"\xff\xc2", 1),
            announced(JPEG, "YBR_FULL_422"),
            "the frames are of a kind that no transfer syntax in use carries",
        ),
        (jpeg(), announced(JPEG, "YBR_FULL_422", rows=17), "the frames are not as large as the header says"),
        (
            bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(PIXELS[..., 0]))),
            announced(JPEG, "MONOCHROME2"),
            "the frames have other samples per pixel than the header says",
        ),
    ],
)
def test_a_contradiction_is_one_line(frame: bytes, header: Announced, line: str) -> None:
    assert disagreements(frame, header) == [line]


def test_colours_that_a_jpeg_states_are_those_of_its_markers_and_sampling() -> None:
    for frame, expected in (
        (jpeg(), "YBR_FULL_422"),
        (jpeg(inside="RGB"), "RGB"),
        (jpeg("420", marker=False), "YBR_FULL_422"),
        (jpeg(marker=False), ""),
    ):
        assert stated_colours(frame, sniff(frame)) == expected
