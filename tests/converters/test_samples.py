# SPDX-License-Identifier: Apache-2.0
"""The table of expected outcomes: every sample and every drawn slide, converted, verified,
and read by others."""

import io
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import wsidicom
from numpy.typing import NDArray

from archive.part10.frame_table import FrameTable
from archive.part10.scan import scan_file
from converters.codecs import decode
from converters.convert import Converted, ConvertOptions, convert
from converters.errors import ConversionError, UnreadableSlide
from converters.slide import Role
from converters.workshop import Limits, Workshop
from converters.writer.born import DicomInstance
from converters.writer.metadata import read_metadata
from tests.support import formats_doc
from tests.support.require import DATA, absent, require_tool
from tests.support.samples import ORIGINS, ROWS, SLIDES, Expected, expectations, outcome, sample_files
from tests.support.slides.variants import VARIANTS

TABLE = expectations()
COMMON_SYNTAXES = {
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
}  # fmt: skip
"""Those that dciodvfy and OpenSlide know."""
SPARSE = "Error - NumberOfFrames does not match expected value for tiled total pixel matrix"
"""What dciodvfy says of every TILED_SPARSE image."""
Pixels = NDArray[np.uint8 | np.uint16]


@dataclass
class Done:
    """A conversion. ``refusal`` is "" and ``made`` there, or the other way round;
    ``without`` is the refusal when nothing but the file is given."""

    expected: Expected
    made: Converted | None
    refusal: str
    without: str

    @property
    def files(self) -> Sequence[tuple[Path, DicomInstance]]:
        """Empty where the slide was refused."""
        return () if self.made is None else tuple(zip(self.made.files, self.made.instances, strict=True))

    @property
    def scenes(self) -> Sequence[Sequence[tuple[Path, DicomInstance]]]:
        """Levels of each scene, finest first."""
        volumes = sorted(
            (pair for pair in self.files if pair[1].role is Role.VOLUME), key=lambda pair: pair[1].level
        )
        numbers = sorted({one.scene for _, one in volumes})
        return [[pair for pair in volumes if pair[1].scene == number] for number in numbers]


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with Workshop(Limits(processes=2, timeout_s=120)) as made:
        yield made


@pytest.fixture(scope="module", params=TABLE, ids=lambda expected: expected.name)
def done(
    request: pytest.FixtureRequest, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Done]:
    expected: Expected = request.param
    folder = tmp_path_factory.mktemp("sample")
    (folder / "in").mkdir()
    source = expected.main_file(folder / "in")
    made, refusal = _convert(source, folder / "out", expected, workshop)
    without = refusal
    if expected.given:
        _, without = _convert(source, folder / "not", Expected(expected.row, expected.origin), workshop)
    yield Done(expected, made, refusal, without)
    shutil.rmtree(folder)


def _convert(source: Path, out: Path, expected: Expected, workshop: Workshop) -> tuple[Converted | None, str]:
    metadata = read_metadata(expected.given) if expected.given else None
    try:
        (made,) = convert([source], out, ConvertOptions(metadata=metadata, verify=True), workshop=workshop)
    except UnreadableSlide as error:
        return None, error.reason  # without what each reader says
    except ConversionError as error:
        return None, str(error)
    return made, ""


def test_the_outcome_is_that_of_the_table(done: Done) -> None:
    expected = done.expected
    assert (done.refusal, done.without) == (expected.refused, expected.asks or expected.refused)
    if done.made is None:
        return
    found = outcome(done.made.instances)
    assert found == {"levels": expected.levels, "scenes": expected.scenes, "images": expected.images}
    headers = [_header(path) for path, _ in done.scenes[0]]
    assert {len(header.OpticalPathSequence) for header in headers} == {expected.paths}
    for header, (_, instance) in zip(headers, done.scenes[0], strict=True):
        tiles = -(-header.TotalPixelMatrixRows // header.Rows)
        tiles *= -(-header.TotalPixelMatrixColumns // header.Columns)
        if header.DimensionOrganizationType == "TILED_FULL":
            assert header.TotalPixelMatrixFocalPlanes == expected.planes
            assert instance.number_of_frames == tiles * expected.paths * expected.planes


def test_dciodvfy_finds_no_error(done: Done) -> None:
    tool = require_tool("dciodvfy")
    for path, instance in done.files:
        if instance.transfer_syntax_uid not in COMMON_SYNTAXES:
            continue
        report = subprocess.run([tool, path], capture_output=True, text=True, check=False)
        lines = (report.stdout + report.stderr).splitlines()
        errors = [line for line in lines if line.startswith("Error")]
        header = _header(path)
        if header.DimensionOrganizationType == "TILED_SPARSE":
            errors = [line for line in errors if not line.startswith(SPARSE)]
        assert errors == [], path.name


def _ends(path: Path, instance: DicomInstance) -> Iterator[tuple[tuple[int, int], Pixels]]:
    """((top, left), pixels) of the first and the last frame, decoded here and cut off at
    the image's edge."""
    header = pydicom.dcmread(io.BytesIO(instance.header))
    tile_rows, tile_columns = int(header.Rows), int(header.Columns)
    down, across = -(-instance.rows // tile_rows), -(-instance.columns // tile_columns)
    table = FrameTable.from_bytes(scan_file(path).frame_table)
    data = path.read_bytes()
    indexes = instance.tile_indexes if instance.tile_indexes is not None else np.arange(table.count)
    for frame in (0, table.count - 1):
        stream = b"".join(
            part if isinstance(part, bytes) else data[part.offset : part.offset + part.length]
            for part in table.segments(frame)
        )
        pixels = decode(
            stream, instance.transfer_syntax_uid, tile_rows, tile_columns,
            int(header.SamplesPerPixel), int(header.BitsAllocated), instance.photometric,
        )  # fmt: skip
        row, column = divmod(int(indexes[frame]) % (down * across), across)
        rows = min(tile_rows, instance.rows - row * tile_rows)
        columns = min(tile_columns, instance.columns - column * tile_columns)
        yield (row * tile_rows, column * tile_columns), pixels[:rows, :columns]


def test_wsidicom_shows_our_pixels(done: Done) -> None:
    """Those of the first tile, and of the last on the last plane and optical path. (Copied
    levels may have tiles of their own size: then wsidicom must be told not to mind.)"""
    for levels in done.scenes:
        sizes = {(header.Rows, header.Columns) for header in (_header(path) for path, _ in levels)}
        settings = wsidicom.config.Settings(strict_tile_size_check=len(sizes) == 1)
        assert len(sizes) == 1 or all(one.born or one.computed for _, one in levels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own deprecations
            with wsidicom.WsiDicom.open([path for path, _ in levels], settings=settings) as slide:
                (pyramid,) = slide.pyramids
                by_size = {(level.size.height, level.size.width): level for level in pyramid}
                assert set(by_size) == {(one.rows, one.columns) for _, one in levels}
                for path, instance in levels:
                    level = by_size[instance.rows, instance.columns]
                    for end, ((top, left), pixels) in zip((0, -1), _ends(path, instance), strict=True):
                        shown = slide.read_tile(
                            level.level,
                            (left // level.tile_size.width, top // level.tile_size.height),
                            z=sorted(level.focal_planes)[end],
                            path=sorted(level.optical_paths, key=_number)[end],
                            as_array=True,
                        )
                        assert np.array_equal(shown.reshape(pixels.shape), pixels), path.name


def _header(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)


def _number(identifier: str) -> int:
    """Optical paths are numbered, or the only one has another name."""
    return int(identifier) if identifier.isdigit() else 0


def test_openslide_shows_our_pixels(done: Done, tmp_path: Path) -> None:
    """Of every scene that it reads: in colour, one focal plane, JPEG, JPEG 2000 or raw. (It
    takes all levels of a series for one pyramid: each scene goes into a folder of its own.)"""
    for number, levels in enumerate(done.scenes):
        headers = [_header(path) for path, _ in levels]
        syntaxes = {one.transfer_syntax_uid for _, one in levels}
        if headers[0].SamplesPerPixel != 3 or done.expected.planes > 1 or not syntaxes <= COMMON_SYNTAXES:
            continue
        folder = tmp_path / f"scene-{number}"
        folder.mkdir()
        for path, _ in levels:
            (folder / path.name).hardlink_to(path)
        with openslide.OpenSlide(folder / levels[0][0].name) as slide:
            assert slide.level_dimensions == tuple((one.columns, one.rows) for _, one in levels)
            for at, (path, instance) in enumerate(levels):
                shown = np.asarray(slide.read_region((0, 0), at, (instance.columns, instance.rows)))
                for (top, left), pixels in _ends(path, instance):
                    rows, columns = pixels.shape[:2]
                    assert np.array_equal(shown[top : top + rows, left : left + columns, :3], pixels), (
                        path.name
                    )


def test_every_sample_is_in_the_table() -> None:
    if not (DATA / SLIDES).is_dir():
        absent("the samples are absent")
    listed = {one.path for one in TABLE if one.path} | {
        source for one in TABLE for source in one.arranged.values()
    }
    assert sample_files() - listed == set()


def test_every_row_and_every_kind_of_drawn_slide_is_in_the_table() -> None:
    drawn = [one for one in TABLE if one.base]
    assert {one.base for one in drawn} == set(VARIANTS)
    assert {one.row for one in drawn} == set(ROWS)
    assert {one.row for one in TABLE} <= set(ROWS)
    assert {one.origin for one in TABLE} <= set(ORIGINS)
    assert len({one.name for one in TABLE}) == len(TABLE)


def test_the_document_says_what_the_table_says() -> None:
    text = formats_doc.DOC.read_text(encoding="utf-8")
    assert formats_doc.rows_in(text) == ["all", *ROWS]
    assert formats_doc.written(text) == text, "run python -m tests.support.formats_doc --write"
