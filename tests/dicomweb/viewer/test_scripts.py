# SPDX-License-Identifier: Apache-2.0
"""The pure modules, in the browser that runs them, against independent answers."""

import base64
import io
import json
import re

import numpy as np
import pytest
from highdicom.spatial import iter_tiled_full_frame_data
from PIL import Image
from playwright.sync_api import Page
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.support.instances import make_dataset

pytestmark = pytest.mark.xdist_group("viewer")


def module(page: Page, name: str, expression: str, argument: object = None) -> object:
    """Evaluate ``expression`` with ``m`` the module and ``a`` the argument."""
    page.goto("")
    return page.evaluate(
        f"async a => {{ const m = await import('/static/js/{name}.js'); return {expression}; }}", argument
    )


def test_frame_numbers_follow_the_standard_for_paths_and_planes(page: Page):
    """Against highdicom's own walk through a TILED_FULL image."""

    image = wsi_header(columns=70, rows=50, tile=32, paths=("R", "G"), planes=3)
    positions = [
        (int(channel or 1) - 1, int(plane) - 1, (int(row) - 1) // 32, (int(column) - 1) // 32)
        for channel, plane, column, row, *_ in iter_tiled_full_frame_data(image)
    ]

    found = module(
        page,
        "slide",
        """(() => {
            const level = new m.Slide([a.header]).pyramids[0].base;
            const path = index => ["R", "G"][index];
            const at = ([p, z, row, column]) => level.frameAt(column, row, path(p), z);
            return a.positions.map(position => at(position).frameNumber);
        })()""",
        {"header": json.loads(image.to_json()), "positions": positions},
    )

    assert len(positions) == 2 * 3 * 2 * 3
    assert found == list(range(1, len(positions) + 1))


def test_sparse_frames_are_found_by_their_stated_positions(page: Page):

    image = wsi_header(columns=96, rows=96, tile=32, paths=("1",), planes=1)
    image.DimensionOrganizationType = "TILED_SPARSE"
    places = [(64, 32), (0, 0), (32, 64)]
    groups = []
    for column, row in places:
        position = Dataset()
        position.ColumnPositionInTotalImagePixelMatrix = column + 1
        position.RowPositionInTotalImagePixelMatrix = row + 1
        position.ZOffsetInSlideCoordinateSystem = 0
        group = Dataset()
        group.PlanePositionSlideSequence = Sequence([position])
        groups.append(group)
    image.PerFrameFunctionalGroupsSequence = Sequence(groups)
    image.NumberOfFrames = len(groups)

    found = module(
        page,
        "slide",
        """(() => {
            const level = new m.Slide([a]).pyramids[0].base;
            const at = (column, row) => level.frameAt(column, row, "1", 0)?.frameNumber ?? null;
            return [at(2, 1), at(0, 0), at(1, 2), at(1, 1)];
        })()""",
        json.loads(image.to_json()),
    )

    assert found == [1, 2, 3, None]


def test_levels_are_sorted_and_magnification_is_the_objectives_where_it_agrees(page: Page):
    headers = []
    for factor in (16, 1, 4):
        image = wsi_header(columns=4096 // factor, rows=2048 // factor, tile=256, paths=("1",), planes=1)
        image.OpticalPathSequence[0].ObjectiveLensPower = 40
        measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.PixelSpacing = [0.0002526 * factor, 0.0002526 * factor]
        headers.append(json.loads(image.to_json()))

    found = module(
        page,
        "slide",
        """(() => {
            const [pyramid] = new m.Slide(a).pyramids;
            return [pyramid.levels.map(level => level.resolution), pyramid.nativeMagnification,
                    pyramid.micrometresPerPixel];
        })()""",
        headers,
    )

    assert found == [[1, 4, 16], 40, pytest.approx(0.2526)]


@pytest.mark.parametrize("size", [600, 65_519, 65_520, 200_000])
def test_a_profile_of_any_size_is_found_in_the_spliced_jpeg(page: Page, size: int):
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 61, 120)).save(out, "JPEG")
    profile = size.to_bytes(4, "big") + bytes(32) + b"acsp" + bytes(index % 251 for index in range(size - 40))

    encoded = module(
        page,
        "icc",
        """await (async () => {
            const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
            const segments = m.app2Segments(m.checkedProfile(bytes(a.profile + '').buffer));
            const made = new Blob(m.splice(bytes(a.jpeg), segments));
            const again = new Blob(m.splice(new Uint8Array(await made.arrayBuffer()), segments));
            if (again.size !== made.size) throw new Error('a second profile was spliced in');
            let text = '';
            for (const byte of new Uint8Array(await made.arrayBuffer())) text += String.fromCharCode(byte);
            return btoa(text);
        })()""",
        {
            "jpeg": base64.b64encode(out.getvalue()).decode(),
            "profile": base64.b64encode(profile + b"\0").decode(),
        },
    )

    made = base64.b64decode(str(encoded))
    parts = [made[at + 12 : at + 14] for at in positions_of(made, b"ICC_PROFILE\0")]
    image = Image.open(io.BytesIO(made))
    assert parts == [bytes((number, len(parts))) for number in range(1, len(parts) + 1)]
    assert image.info["icc_profile"] == profile
    assert np.abs(np.asarray(image)[0, 0].astype(int) - (200, 61, 120)).max() < 4


def positions_of(data: bytes, wanted: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(wanted), data)]


@pytest.mark.parametrize(
    ("micrometres_per_pixel", "micrometres"),
    [(0.25, 20), (0.5, 50), (1, 100), (4, 500), (16, 2000), (0.06, 10)],
)
def test_the_scale_bar_is_a_round_length_of_the_right_size(
    page: Page, micrometres_per_pixel: float, micrometres: float
):
    bar = module(page, "hud", "m.scaleBar(a)", micrometres_per_pixel)

    assert isinstance(bar, dict)
    assert bar["micrometres"] == pytest.approx(micrometres)
    assert bar["pixels"] == pytest.approx(micrometres / micrometres_per_pixel)
    assert 60 < bar["pixels"] <= 168


@pytest.mark.parametrize(
    ("hash_", "expected"),
    [
        ("#x=1&y=2&z=0.5&r=-90", {"x": 1, "y": 2, "z": 0.5, "r": 270, "p": 0, "o": "", "f": 0}),
        ("#x=1&y=2&z=3&p=1&o=DAPI&f=2", {"x": 1, "y": 2, "z": 3, "r": 0, "p": 1, "o": "DAPI", "f": 2}),
        ("", None),
        ("#x=1&y=2", None),
        ("#x=1&y=2&z=0", None),
        ("#x=a&y=2&z=1", None),
    ],
)
def test_an_address_is_read_or_left_alone(page: Page, hash_: str, expected: object):
    assert module(page, "link", "m.parsePlace(a)", hash_) == expected


def test_values_are_written_as_people_read_them(page: Page):
    written = module(
        page,
        "format",
        """[m.bytes(999), m.bytes(1300000000), m.length(250), m.length(2000), m.length(0.5),
            m.dicomDate("20260102"), m.magnification(40), m.magnification(0.307), m.magnification(2.5),
            m.ago("2026-01-01T00:00:00Z", Date.parse("2026-01-01T00:03:00Z")),
            m.stated("UNKNOWN-1234abcd")]""",
    )

    assert written == [
        "999 B", "1.3 GB", "250 µm", "2 mm", "500 nm", "2026-01-02", "40×", "0.31×", "2.5×", "3 min ago", "",
    ]  # fmt: skip


def wsi_header(*, columns: int, rows: int, tile: int, paths: tuple[str, ...], planes: int):  # type: ignore[no-untyped-def]
    """A TILED_FULL header without pixels."""

    image = make_dataset(tile=tile, series="1.2.3")
    image.TotalPixelMatrixColumns, image.TotalPixelMatrixRows = columns, rows
    image.Columns = image.Rows = tile
    image.TotalPixelMatrixFocalPlanes = planes
    image.NumberOfFrames = -(-columns // tile) * -(-rows // tile) * len(paths) * planes
    image.OpticalPathSequence = Sequence()
    for identifier in paths:
        item = Dataset()
        item.OpticalPathIdentifier = identifier
        image.OpticalPathSequence.append(item)
    measures = Dataset()
    measures.PixelSpacing = [0.0005, 0.0005]
    measures.SliceThickness = 0.001
    measures.SpacingBetweenSlices = 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    image.TotalPixelMatrixOriginSequence = Sequence([origin])
    image.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    return image


def test_the_window_of_a_channel_covers_all_its_planes_without_single_hot_pixels(page: Page):
    image = wsi_header(columns=64, rows=64, tile=32, paths=("R", "G"), planes=5)
    frames = module(
        page,
        "contrast",
        """await (async () => {
            const {Slide} = await import('/static/js/slide.js');
            return m.sampledFrames(new Slide([a]).pyramids[0], "G").map(frame => frame.frameNumber);
        })()""",
        json.loads(image.to_json()),
    )
    assert frames == [20 + plane * 4 + tile for plane in (0, 2, 4) for tile in (1, 2, 3, 4)]

    window = module(
        page,
        "contrast",
        "m.windowOver([m.storedValues(new Uint16Array(a).buffer, 16, false), [60000]])",
        list(range(1000, 9001)),
    )
    assert isinstance(window, str)
    centre, width, function = window.split(",")
    assert function == "linear-exact"
    assert float(centre) == pytest.approx(5000, abs=10)
    assert float(width) == pytest.approx(8000, abs=20)
    assert module(page, "contrast", "m.windowOver([])") is None
