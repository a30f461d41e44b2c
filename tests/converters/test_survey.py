# SPDX-License-Identifier: Apache-2.0
"""What the tiles really are: heads, tables, colours, ends."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from archive.part10.codestream import splice_tables
from converters.errors import DamagedSlide
from converters.registry import open_slide
from converters.writer.born import DicomInstance
from converters.writer.survey import Survey, survey
from gateway.demo.svs import RGB, YCBCR, Scan, SvsWriter, TileFormat, encode_tile, jpeg_tables
from tests.support.converted import born
from tests.support.make_slide import make_svs, picture

TILE = 64


def slide_of(path: Path, tiles: list[bytes], form: TileFormat, across: int = 2) -> Path:
    """One level of ``across`` by ``across`` tiles, given as they are."""
    with SvsWriter(path, Scan()) as svs:
        svs.level(across * TILE, across * TILE, TILE, form, tiles)
    return path


def tiles_of(form: TileFormat, count: int = 4) -> list[bytes]:
    return [encode_tile(picture(TILE, TILE, seed), form) for seed in range(count)]


def surveyed(path: Path) -> Survey:
    with open_slide(path) as slide:
        return survey(slide.scenes[0].levels[0], slide.sources)


def complete(tile: bytes, form: TileFormat, adobe: int | None = None) -> bytes:
    """An abbreviated tile as a JPEG of its own."""
    return splice_tables(jpeg_tables(form), adobe) + tile[2:]


def test_equal_heads_are_one_kind(tmp_path: Path) -> None:
    found = surveyed(make_svs(tmp_path / "a.svs"))
    assert len(found.kinds) == 1
    assert found.why_not_copied == ""
    assert not found.kind_ids.any()


def test_tiles_with_tables_of_their_own_are_left_as_they_are(tmp_path: Path) -> None:
    form = TileFormat(photometric=YCBCR)
    abbreviated = tiles_of(form)
    tiles = [complete(abbreviated[0], form), *abbreviated[1:]]
    found = surveyed(slide_of(tmp_path / "a.svs", tiles, form))
    assert found.why_not_copied == ""
    assert [(bool(kind.prefix), kind.skip) for kind in found.kinds] == [(False, 0), (True, 2)]
    assert found.kind_ids.tolist() == [0, 1, 1, 1]


def test_a_marker_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    form = TileFormat(photometric=RGB)
    tiles = [complete(tile, form, adobe=0) for tile in tiles_of(form)]
    found = surveyed(slide_of(tmp_path / "a.svs", tiles, form))
    assert [(kind.prefix, kind.skip, kind.photometric) for kind in found.kinds] == [(b"", 0, "RGB")]


def test_mixed_sampling_makes_a_level_recomposed(tmp_path: Path) -> None:
    form, other = TileFormat(photometric=YCBCR), TileFormat(photometric=YCBCR, subsampling="422")
    tiles = [*tiles_of(form)[:3], complete(tiles_of(other)[3], other)]
    path = slide_of(tmp_path / "a.svs", tiles, form)
    assert surveyed(path).why_not_copied == "tiles differ in sampling or colour"
    instance = born(path, scratch=tmp_path)[-1]
    assert (instance.born, instance.transfer_syntax_uid) == (False, "1.2.840.10008.1.2.4.90")
    assert instance.photometric == "YBR_RCT"


def test_mixed_colours_make_a_level_recomposed(tmp_path: Path) -> None:
    form = TileFormat(photometric=YCBCR)
    tiles = tiles_of(form)
    tiles[2] = complete(encode_tile(picture(TILE, TILE), TileFormat(photometric=RGB)), form, adobe=0)
    path = slide_of(tmp_path / "a.svs", tiles, form)
    assert surveyed(path).why_not_copied == "tiles differ in sampling or colour"


def test_fill_after_a_tiles_end_is_left_out(tmp_path: Path) -> None:
    form = TileFormat()
    tiles = tiles_of(form)
    padded = [tiles[0] + b"\0", tiles[1] + b"\0\0\0", tiles[2], tiles[3] + b"\xff"]
    found = surveyed(slide_of(tmp_path / "a.svs", padded, form))
    assert found.lengths.tolist() == [len(tile) for tile in tiles]
    assert found.findings == ("level 0: 3 tiles have fill after their end, not copied",)


def cut(tile: bytes) -> bytes:
    return tile[:-40]


def no_scan(tile: bytes) -> bytes:
    return tile.replace(b"\xff\xda", b"\xff\xdb")


def other_size(tile: bytes) -> bytes:
    return encode_tile(picture(TILE // 2, TILE), TileFormat())


def garbage(tile: bytes) -> bytes:
    return np.random.default_rng(3).bytes(len(tile))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (cut, "1 tiles of level 0 have no end marker"),
        (no_scan, "tile 3 of level 0 is damaged"),
        (garbage, "tile 3 of level 0 is damaged"),
        (other_size, "tiles of level 0 are not as large as the file says"),
    ],
)
def test_a_damaged_tile_is_named(tmp_path: Path, harm: Callable[[bytes], bytes], says: str) -> None:
    form = TileFormat()
    tiles = tiles_of(form)
    tiles[2] = harm(tiles[2])
    with pytest.raises(DamagedSlide, match=says):
        surveyed(slide_of(tmp_path / "a.svs", tiles, form))


def test_a_level_without_any_tile_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DamagedSlide, match="level 0 has no tiles"):
        surveyed(slide_of(tmp_path / "a.svs", [b""] * 4, TileFormat()))


def test_tiles_without_tables_anywhere_are_damaged(tmp_path: Path) -> None:
    path = slide_of(tmp_path / "a.svs", tiles_of(TileFormat()), TileFormat())
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags["JPEGTables"].offset
    data = bytearray(path.read_bytes())
    data[at : at + 2] = (65000).to_bytes(2, "little")  # another tag
    path.write_bytes(data)
    with pytest.raises(DamagedSlide, match="no quantisation or Huffman tables"):
        surveyed(path)


def test_recomposed_pixels_are_those_of_the_scanner(tmp_path: Path) -> None:
    from converters.codecs import decode

    form, other = TileFormat(photometric=YCBCR), TileFormat(photometric=YCBCR, subsampling="422")
    tiles = [*tiles_of(form)[:3], complete(tiles_of(other)[3], other)]
    path = slide_of(tmp_path / "a.svs", tiles, form)
    instance = born(path, scratch=tmp_path)[-1]
    with open_slide(path) as slide:
        reference = slide.scenes[0].levels[0].reference
        assert reference is not None
        for index, frame in enumerate(_frames(instance)):
            pixels = decode(frame, instance.transfer_syntax_uid, TILE, TILE, 3, 8, instance.photometric)
            assert np.array_equal(pixels, reference(index))


def _frames(instance: DicomInstance) -> list[bytes]:
    from tests.converters.test_born import frames

    return frames(instance)
