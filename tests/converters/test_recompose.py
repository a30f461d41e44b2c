# SPDX-License-Identifier: Apache-2.0
"""Aperio's 33003: YCbCr in JPEG 2000 without a component transformation."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters.codecs import decode
from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide, UnsupportedCompression
from gateway.demo.svs import JPEG2000_YCBCR, Scan, SvsWriter, TileFormat
from tests.converters.test_born import frames, header, volumes
from tests.support.converted import born, jpeg2000_of_components
from tests.support.make_slide import make_svs, picture

TILE = 128


def ycbcr_tile(rgb: NDArray[np.uint8], across: int, down: int) -> bytes:
    y, cb, cr = (np.asarray(band) for band in Image.fromarray(rgb).convert("YCbCr").split())
    return jpeg2000_of_components([y, cb[::down, ::across], cr[::down, ::across]], TILE, TILE)


def slide_33003(path: Path, across: int, down: int) -> Path:
    tiles = [ycbcr_tile(picture(TILE, TILE, seed), across, down) for seed in range(4)]
    with SvsWriter(path, Scan()) as svs:
        svs.level(2 * TILE, 2 * TILE, TILE, TileFormat(JPEG2000_YCBCR), tiles)
    return path


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2)])
def test_33003_becomes_lossless_rgb_with_right_colours(tmp_path: Path, across: int, down: int) -> None:
    path = slide_33003(tmp_path / "a.svs", across, down)
    (instance,) = volumes(born(path, scratch=tmp_path))
    assert not instance.born
    assert instance.transfer_syntax_uid == "1.2.840.10008.1.2.4.90"
    for seed, frame in enumerate(frames(instance)):
        pixels = decode(frame, instance.transfer_syntax_uid, TILE, TILE, 3, 8, instance.photometric)
        difference = np.abs(pixels.astype(int) - picture(TILE, TILE, seed))
        assert difference.max() <= (3 if across == 1 else 60)  # at edges, for halved chroma
        assert difference.mean() < (1 if across == 1 else 2)


def test_the_lossy_history_of_33003_is_kept(tmp_path: Path) -> None:
    for instance in volumes(born(make_svs(tmp_path / "a.svs", compression=33003), scratch=tmp_path)):
        h = header(instance)
        assert instance.why_not_born.startswith("no legal DICOM form for jpeg2000 of YBR_FULL samples")
        assert (h.LossyImageCompression, h.LossyImageCompressionMethod) == ("01", "ISO_15444_1")
        assert h.PhotometricInterpretation == "YBR_RCT"


def test_absent_tiles_of_a_recomposed_level_are_white(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", compression=33003, missing_tiles=(2,))
    finest = volumes(born(path, scratch=tmp_path))[0]
    pixels = decode(frames(finest)[2], finest.transfer_syntax_uid, 256, 256, 3, 8, finest.photometric)
    assert np.all(pixels == 255)
    assert finest.absent_tiles[0] == 0b00100000


def test_other_chroma_than_aperios_is_refused_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    path = slide_33003(tmp_path / "a.svs", 1, 2)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(UnsupportedCompression, match="unsupported compression JPEG 2000 sampled 1x2 1x1 1x1"):
        born(path, scratch=scratch)
    assert list(scratch.iterdir()) == []


def test_a_tile_that_no_decoder_takes_leaves_nothing(tmp_path: Path) -> None:
    tiles = [ycbcr_tile(picture(TILE, TILE, seed), 1, 1) for seed in range(4)]
    tiles[3] = tiles[3][:200] + b"\x00" * 30 + b"\xff\xd9"
    path = tmp_path / "a.svs"
    with SvsWriter(path, Scan()) as svs:
        svs.level(2 * TILE, 2 * TILE, TILE, TileFormat(JPEG2000_YCBCR), tiles)
    with pytest.raises(DamagedSlide, match="cannot be decoded"):
        convert([path], tmp_path / "out")
    assert sorted(tmp_path.rglob("*.dcm")) == []
    assert not (tmp_path / "out" / "a").exists()


def test_progress_counts_the_scanners_bytes(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", compression=33003, levels=(1,))
    steps: list[tuple[int, int]] = []
    born(path, scratch=tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert steps
    assert all(0 < done <= total for done, total in steps)


def test_converted_33003_can_be_verified(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", compression=33003)
    (made,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    assert made.verified_tiles == 0  # none is a copy
    assert len(made.files) == 5
