# SPDX-License-Identifier: Apache-2.0
"""The workshop: C libraries work on bytes from outside in child processes, never here."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zxingcpp
from PIL import Image

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide, NotEnoughMemory, UnsupportedPixels
from converters.inspection import inspect
from converters.slide import Role
from converters.workshop import Limits, Workshop
from converters.writer import born
from converters.writer.coding import FrameCoding
from converters.writer.tilework import Quad
from tests.support.make_slide import make_svs
from tests.support.server import wait_for
from tests.support.slides import BASES

JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
LABEL_WITH_A_CODE = np.kron(
    np.array(
        zxingcpp.create_barcode("S26-0042", zxingcpp.BarcodeFormat.DataMatrix).to_image(add_quiet_zones=True)
    ),
    np.ones((8, 8), np.uint8),
)
MAKERS: dict[str, Callable[[Path], Path]] = {
    "aperio": lambda folder: make_svs(
        folder / "slide.svs", missing_tiles=(2,), label=np.stack([LABEL_WITH_A_CODE] * 3, axis=-1)
    ),
    **BASES,
}


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with Workshop(Limits(processes=1, timeout_s=30)) as made:
        yield made


@pytest.fixture
def no_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every codec and the barcode reader fail in this process, not in its children."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a C library was called outside of a child")

    for name in dir(imagecodecs):
        if name.endswith(("_decode", "_encode")):
            monkeypatch.setattr(imagecodecs, name, forbidden)
    monkeypatch.setattr(zxingcpp, "read_barcodes", forbidden)
    monkeypatch.setattr(Image.Image, "load", forbidden)
    monkeypatch.setattr(Image.Image, "save", forbidden)


@pytest.mark.parametrize("base", MAKERS)
def test_the_process_that_converts_and_verifies_calls_no_codec(
    base: str,
    tmp_path: Path,
    workshop: Workshop,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = MAKERS[base](tmp_path)
    monkeypatch.setattr(born, "NATIVE_BYTES", 0)  # as for a large overview: it is encoded
    request.getfixturevalue("no_codecs")
    (made,) = convert([path], tmp_path / "out", ConvertOptions(verify=True), workshop=workshop)
    assert made.files


def test_the_process_that_inspects_calls_no_codec(
    tmp_path: Path, workshop: Workshop, request: pytest.FixtureRequest
) -> None:
    path = MAKERS["aperio"](tmp_path)
    request.getfixturevalue("no_codecs")
    assert inspect(path, workshop=workshop).problem == ""


def test_a_barcode_is_read_in_a_child(tmp_path: Path, workshop: Workshop) -> None:
    path = MAKERS["aperio"](tmp_path)
    with workshop.open(path) as opened:
        (label,) = [n for n, image in enumerate(opened.slide.associated) if image.role is Role.LABEL]
        assert opened.bench.barcodes(label) == "S26-0042"


def test_an_image_agrees_with_its_own_pixels_only(tmp_path: Path, workshop: Workshop) -> None:
    path = MAKERS["aperio"](tmp_path)
    with workshop.open(path) as opened:
        pixels = opened.bench.image(0)
        frame = opened.bench.encoded_image(0, "1.2.840.10008.1.2.4.90")
        assert np.array_equal(imagecodecs.jpeg2k_decode(frame), pixels)
        form = ("1.2.840.10008.1.2.1", "RGB")
        other = pixels.copy()
        other[0, 0] ^= 1
        assert opened.bench.image_agrees(0, pixels.tobytes(), *form)
        assert not opened.bench.image_agrees(0, other.tobytes(), *form)


def test_a_barcode_that_no_reader_gives_is_not_believed(
    tmp_path: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = MAKERS["aperio"](tmp_path)
    with workshop.open(path) as opened:
        monkeypatch.setattr(workshop, "ask", lambda order, blobs: b"\x1b[2J")
        with pytest.raises(DamagedSlide, match="no valid answer"):
            opened.bench.barcodes(0)


def test_a_shortage_of_memory_is_not_called_damage(tmp_path: Path) -> None:
    path = make_svs(
        tmp_path / "large.svs", rows=4096, columns=4096, tile=4096, compression=33005, levels=(1,)
    )
    coding, quad = FrameCoding(JPEG_2000_LOSSLESS), Quad((0, None, None, None), 4096, 4096)
    with Workshop(Limits(processes=1, memory_bytes=120 << 20)) as small, small.open(path) as opened:
        with pytest.raises(NotEnoughMemory, match=r"^a tile of level 0 cannot be decoded: more memory"):
            list(opened.bench.frames(0, 0, [quad], coding))
    with Workshop(Limits(processes=1)) as large, large.open(path) as opened:
        assert list(opened.bench.frames(0, 0, [quad], coding))


def test_a_codecs_refusal_is_one_clear_line_without_the_name_of_a_class(
    tmp_path: Path, workshop: Workshop
) -> None:
    with workshop.open(MAKERS["aperio"](tmp_path)) as opened:
        with pytest.raises(UnsupportedPixels, match=r"^the slide's pixels cannot be [^\n]*: no encoder for"):
            opened.bench.encoded_image(0, "1.2.3")


def test_what_was_written_wrong_does_not_agree_instead_of_being_called_damage(
    tmp_path: Path, workshop: Workshop
) -> None:
    path = MAKERS["aperio"](tmp_path)
    with workshop.open(path) as opened:
        assert not opened.bench.agrees(0, 0, 0, b"\xff\xd8 no frame", JPEG_2000_LOSSLESS, "RGB")
        assert not opened.bench.image_agrees(0, b"\xff\xd8 no frame", JPEG_2000_LOSSLESS, "RGB")


def test_a_child_without_work_lets_go_of_its_slide(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs")
    with Workshop(Limits(processes=1)) as workshop, workshop.open(path) as opened:
        opened.bench.image(0)
        (child,) = workshop._children

        def is_open() -> bool:
            links = Path(f"/proc/{child.pid}/fd").iterdir()
            return any(os.readlink(link) == str(path) for link in links)

        assert is_open()
        wait_for(lambda: not is_open(), 30)
        assert opened.bench.image(0).size  # and opens it again
