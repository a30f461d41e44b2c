# SPDX-License-Identifier: Apache-2.0
"""IIIF, DeepZoom and QuPath's routes: what their viewers compute addresses from, and pixels."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from defusedxml import ElementTree
from flask import Flask
from PIL import Image
from werkzeug.test import Client

from archive.service import Archive
from dicomweb.app import create_app
from dicomweb.errors import BadRequest, NotImplementedHere
from dicomweb.iiif_request import parse_region, parse_rotation, parse_size
from dicomweb.settings import WebSettings
from gateway.codec_pool import CodecPool
from tests.dicomweb import samples
from tests.dicomweb.conftest import open_archive, parts_of, store

TILE = samples.TILE
SERIES = samples.SERIES
IIIF = f"/iiif/3/{SERIES}"
COLUMNS, ROWS = 10 * TILE - 5, 6 * TILE - 3  # of the finest level; the last tiles are cut
LEVEL = f"/dicom-web/studies/{samples.STUDY}/series/{SERIES}/instances"


def level(number: int, pixels: np.ndarray) -> bytes:
    """A level of JPEG tiles of its own pixels."""
    made = samples.header(number)
    rows, columns = pixels.shape[:2]
    down, across = -(-rows // TILE), -(-columns // TILE)
    padded = np.pad(pixels, ((0, down * TILE - rows), (0, across * TILE - columns), (0, 0)), "edge")
    made.PhotometricInterpretation = "YBR_FULL_422"
    made.LossyImageCompression = "01"
    made.PyramidUID = f"{samples.STUDY}.77"
    samples.size(made, across, down)
    made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows = columns, rows
    made.ImagedVolumeWidth, made.ImagedVolumeHeight = COLUMNS / 1000, ROWS / 1000
    tiles = []
    for n in range(across * down):
        top, left = n // across * TILE, n % across * TILE
        buffer = io.BytesIO()
        Image.fromarray(padded[top : top + TILE, left : left + TILE]).save(buffer, "JPEG", quality=95)
        tiles.append(buffer.getvalue() + b"\0" * (buffer.tell() % 2))
    made.PixelData = samples.encapsulate(tiles, has_bot=True)
    made["PixelData"].VR = "OB"
    return samples.written(made, samples.JPEGBaseline8Bit)


def drawing() -> np.ndarray:
    coarse = np.random.default_rng(3).integers(30, 220, (5, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((COLUMNS, ROWS), Image.Resampling.BICUBIC))


WHOLE = drawing()
HALF = np.asarray(Image.fromarray(WHOLE).resize((-(-COLUMNS // 2), -(-ROWS // 2)), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, codec: CodecPool) -> Iterator[Archive]:
    made = open_archive(tmp_path_factory.mktemp("doors") / "data", codec)
    client = create_app(made, WebSettings()).test_client()
    response = store(
        client, level(1, WHOLE), level(2, HALF), samples.label(), samples.label(4, kind="OVERVIEW")
    )
    assert response.status_code == 200, response.get_data()
    yield made
    made.close()


@pytest.fixture
def app(slides: Archive) -> Flask:
    return create_app(slides, WebSettings())


@pytest.fixture
def client(app: Flask) -> Client:
    return app.test_client()


def shown(client: Client, url: str) -> np.ndarray:
    response = client.get(url)
    assert response.status_code == 200, (url, response.get_data())
    return np.asarray(Image.open(io.BytesIO(response.get_data())).convert("RGB")).astype(int)


def frame(client: Client, number: int, index: int) -> bytes:
    response = client.get(
        f"{LEVEL}/{SERIES}.{number}/frames/{index}",
        headers={"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'},
    )
    return parts_of(response)[0].data


def near(found: np.ndarray, expected: np.ndarray, most: float = 4) -> None:
    assert found.shape == expected.shape

    assert np.abs(found - expected).mean() < most


# ---- IIIF ----------------------------------------------------------------------------


def test_info_json_says_what_the_image_is(client: Client) -> None:
    response = client.get(f"{IIIF}/info.json")
    info = response.get_json()
    assert response.headers["Content-Type"] == "application/json"
    assert info["@context"] == "http://iiif.io/api/image/3/context.json"
    assert info["id"] == f"http://localhost{IIIF}"
    assert (info["type"], info["protocol"]) == ("ImageService3", "http://iiif.io/api/image")
    assert info["profile"] == "level2"
    assert (info["width"], info["height"]) == (COLUMNS, ROWS)
    assert info["tiles"] == [{"width": TILE, "height": TILE, "scaleFactors": [1, 2, 4, 8, 16]}]
    assert info["sizes"] == [
        {"width": HALF.shape[1], "height": HALF.shape[0]},
        {"width": COLUMNS, "height": ROWS},
    ]
    linked = client.get(f"{IIIF}/info.json", headers={"Accept": "application/ld+json"})
    assert linked.headers["Content-Type"].startswith("application/ld+json;profile=")
    assert "Accept" in linked.headers["Vary"]
    assert 'rel="profile"' in response.headers["Link"]


def test_the_image_itself_leads_to_its_description_and_never_elsewhere(client: Client) -> None:
    response = client.get(IIIF)
    assert response.status_code == 303
    assert response.headers["Location"] == f"http://localhost{IIIF}/info.json"
    assert client.get("/iiif/3/1.2.3.4.5").status_code == 404
    assert client.get("/iiif/3/1.2.3.4.5/info.json").status_code == 404
    assert client.get("/iiif/3/a%2Fb/info.json").status_code == 404
    assert client.get(IIIF, headers={"Host": "evil.example"}).status_code == 403


def test_every_tile_of_every_scale_shows_its_part_of_the_slide(client: Client) -> None:
    """The addresses are computed as the specification's implementation notes say."""
    for factor in (1, 2, 4, 8, 16):
        step = TILE * factor
        smaller = np.asarray(
            Image.fromarray(WHOLE).resize((-(-COLUMNS // factor), -(-ROWS // factor)), Image.Resampling.BOX)
        )
        for top in range(0, ROWS, step):
            for left in range(0, COLUMNS, step):
                width, height = min(step, COLUMNS - left), min(step, ROWS - top)
                size = f"{-(-width // factor)},{-(-height // factor)}"
                found = shown(client, f"{IIIF}/{left},{top},{width},{height}/{size}/0/default.png")
                y, x = top // factor, left // factor
                near(found, smaller[y : y + TILE, x : x + TILE], 8)


def test_aligned_tiles_are_the_stored_jpeg(client: Client) -> None:
    first = client.get(f"{IIIF}/16,32,16,16/16,16/0/default.jpg")
    assert first.get_data() == frame(client, 1, 2 * 10 + 1 + 1)
    half = client.get(f"{IIIF}/32,0,32,32/16,16/0/default.jpg")
    assert half.get_data() == frame(client, 2, 2)
    for other in (
        "16,32,16,16/16,16/90/default.jpg",
        "16,32,16,16/16,16/!0/default.jpg",
        "16,32,16,16/16,16/0/gray.jpg",
        "16,32,16,16/15,15/0/default.jpg",
        "17,32,16,16/16,16/0/default.jpg",
        "16,32,16,16/16,16/0/default.jpg?quality=50",
    ):
        assert client.get(f"{IIIF}/{other}").get_data() not in (first.get_data(), half.get_data()), other


def test_regions_sizes_rotations_qualities_and_formats_are_drawn(client: Client) -> None:
    part = WHOLE[10:50, 20:100]
    near(shown(client, f"{IIIF}/20,10,80,40/max/0/default.png"), part)
    near(shown(client, f"{IIIF}/20,10,80,40/max/90/default.png"), np.rot90(part, -1))
    near(shown(client, f"{IIIF}/20,10,80,40/max/!0/default.png"), part[:, ::-1])
    near(shown(client, f"{IIIF}/20,10,80,40/max/!180/default.png"), part[::-1])
    side = ROWS
    left = (COLUMNS - side) // 2
    near(shown(client, f"{IIIF}/square/max/0/color.png"), WHOLE[:, left : left + side])
    assert shown(client, f"{IIIF}/full/^400,/0/default.jpg").shape == (round(ROWS * 400 / COLUMNS), 400, 3)
    assert shown(client, f"{IIIF}/pct:50,50,50,50/40,20/0/default.gif").shape == (20, 40, 3)
    grey = np.asarray(Image.open(io.BytesIO(client.get(f"{IIIF}/full/max/0/gray.png").get_data())))
    assert grey.ndim == 2
    bitonal = shown(client, f"{IIIF}/full/max/0/bitonal.png")
    assert set(np.unique(bitonal)) == {0, 255}
    assert client.get(f"{IIIF}/full/max/0/default.webp").headers["Content-Type"] == "image/webp"


def test_the_canonical_address_is_told(client: Client) -> None:
    for asked, canonical in {
        f"0,0,{COLUMNS},{ROWS}/max/0/default.jpg": "full/max/0/default.jpg",
        "pct:0,0,100,100/100,/360/default.jpg": f"full/100,{round(ROWS * 100 / COLUMNS)}/0/default.jpg",
        "0,0,20,20/^40,/!90/gray.png": "0,0,20,20/^40,40/!90/gray.png",
    }.items():
        link = client.get(f"{IIIF}/{asked}").headers["Link"]
        assert f'<http://localhost{IIIF}/{canonical}>;rel="canonical"' in link
        assert client.get(f"{IIIF}/{canonical}").status_code == 200


OUTSIDE = ("-1,0,5,5", "9999,0,5,5", "0,0,0,5", "a", "pct:0,0,0,1")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((f"full/max/{wrong}", 400) for wrong in ("0/sepia.jpg", "0/default.tif", "0/default")),
        *((f"full/max/{wrong}/default.jpg", 400) for wrong in ("361", "-90", "x", "!")),
        *((f"full/{wrong}/0/default.jpg", 400) for wrong in ("0,0", ",", "9999,", "^9999,", "full", "!5,")),
        *((f"full/pct:{wrong}/0/default.jpg", 400) for wrong in ("120", "0.001", "-5", "")),
        *((f"{wrong}/max/0/default.jpg", 400) for wrong in OUTSIDE),
        ("full/max/45/default.jpg", 501),
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, path: str, status: int) -> None:
    assert client.get(f"{IIIF}/{path}").status_code == status


def test_sizes_are_those_of_the_specification() -> None:
    region = (400, 200)
    for text, size in {
        "max": (400, 200), "^max": (1000, 500), "100,": (100, 50), ",100": (200, 100), "pct:50": (200, 100),
        "30,90": (30, 90), "!100,100": (100, 50), "!900,900": (400, 200), "^!900,900": (900, 450),
        "^800,": (800, 400), "^pct:200": (800, 400), "^500,500": (500, 500),
    }.items():  # fmt: skip
        assert parse_size(text, region, 1000) == size, text
    assert parse_size("max", (4000, 100), 1000) == (1000, 25)
    for text in ("500,", ",201", "401,200", "pct:101", "^1001,", "", "^", "!,5", "0,", "5,0", "pct:", "1e2,"):
        with pytest.raises(BadRequest):
            parse_size(text, region, 1000)


def test_regions_are_cropped_at_the_edges() -> None:
    assert parse_region("full", (40, 20)) == (0, 0, 40, 20)
    assert parse_region("square", (40, 20)) == (10, 0, 20, 20)
    assert parse_region("30,10,99,99", (40, 20)) == (30, 10, 10, 10)
    assert parse_region("pct:25,50,50,25.5", (40, 20)) == (10, 10, 20, 5)


def test_rotations_are_right_angles() -> None:
    assert [parse_rotation(text) for text in ("0", "90", "!180.0", "360")] == [
        (False, 0), (False, 90), (True, 180), (False, 0),
    ]  # fmt: skip
    with pytest.raises(NotImplementedHere):
        parse_rotation("22.5")


def test_an_instance_names_the_image_that_it_is_part_of_and_a_label_none(client: Client) -> None:
    assert client.get(f"/iiif/3/{SERIES}.2/info.json").get_json()["width"] == COLUMNS
    for hidden in (f"{SERIES}.3", f"{SERIES}.4"):
        assert client.get(f"/iiif/3/{hidden}/info.json").status_code == 404
        assert client.get(f"/iiif/3/{hidden}/full/max/0/default.jpg").status_code == 404
        assert client.get(f"/deepzoom/{hidden}.dzi").status_code == 404
        assert client.get(f"/wsi/pyramids/{hidden}").status_code == 404
        assert client.get(f"/instances/{hidden}/rendered").status_code == 404


def test_tiles_are_cached_and_known_again(client: Client) -> None:
    for url in (
        f"{IIIF}/16,32,16,16/16,16/0/default.jpg",
        f"{IIIF}/full/99,/0/default.jpg",
        f"{IIIF}/info.json",
    ):
        first = client.get(url)
        assert first.headers["Cache-Control"] == "private, max-age=3600"
        again = client.get(url, headers={"If-None-Match": first.headers["ETag"]})
        assert again.status_code == 304


def test_who_may_read_nothing_sees_nothing(slides: Archive) -> None:
    stranger = create_app(slides, WebSettings(), authenticate=lambda environ: None).test_client()
    for url in (
        f"{IIIF}/info.json",
        f"/deepzoom/{SERIES}.dzi",
        f"/wsi/tiles/{SERIES}/0/0/0",
        "/studies",
        "/system",
    ):
        assert stranger.get(url).status_code == 401, url


def test_every_tile_leaves_a_line_of_who_saw_it(slides: Archive, client: Client, tmp_path: Path) -> None:
    def lines() -> int:
        return sum(path.read_bytes().count(b"\n") for path in slides._core.access.files())

    before = lines()
    client.get(f"{IIIF}/16,32,16,16/16,16/0/default.jpg")
    client.get(f"{IIIF}/full/50,/0/default.jpg")
    assert lines() == before + 2


# ---- DeepZoom --------------------------------------------------------------------------


def test_the_descriptor_and_every_tile_of_deepzoom(client: Client) -> None:
    root = ElementTree.fromstring(client.get(f"/deepzoom/{SERIES}.dzi").get_data())
    name = "{http://schemas.microsoft.com/deepzoom/2008}"
    assert root.tag == f"{name}Image"
    assert root.attrib == {"Format": "jpg", "Overlap": "0", "TileSize": str(TILE)}
    assert root.find(f"{name}Size").attrib == {"Width": str(COLUMNS), "Height": str(ROWS)}
    for number in range(9):
        scale = 2 ** (8 - number)
        columns, rows = -(-COLUMNS // scale), -(-ROWS // scale)
        smaller = np.asarray(Image.fromarray(WHOLE).resize((columns, rows), Image.Resampling.BOX))
        for row in range(-(-rows // TILE)):
            for column in range(-(-columns // TILE)):
                found = shown(client, f"/deepzoom/{SERIES}_files/{number}/{column}_{row}.png")
                part = smaller[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
                near(found, part, 10)
    for outside in ("9/0_0", "8/10_0", "8/0_6", "0/1_0"):
        assert client.get(f"/deepzoom/{SERIES}_files/{outside}.jpg").status_code == 404


def test_deepzoom_hands_out_stored_tiles(client: Client) -> None:
    assert client.get(f"/deepzoom/{SERIES}_files/8/2_1.jpg").get_data() == frame(client, 1, 13)
    assert client.get(f"/deepzoom/{SERIES}_files/7/2_1.jpg").get_data() == frame(client, 2, 8)
    assert client.get(f"/deepzoom/{SERIES}_files/8/2_1.png").headers["Content-Type"] == "image/png"


# ---- QuPath ----------------------------------------------------------------------------


def test_qupath_finds_what_it_reads_of_a_pyramid(client: Client) -> None:
    """The members that the extension's OrthancClient takes, and how it uses them."""
    found = client.get(f"/wsi/pyramids/{SERIES}").get_json()
    assert len(found["Resolutions"]) == 2
    assert found["TilesSizes"][0] == [TILE, TILE]
    assert found["Sizes"] == [[COLUMNS, ROWS], [HALF.shape[1], HALF.shape[0]]]
    microns = found["ImagedVolumeWidth"] / found["TotalWidth"] * 1000
    assert microns == pytest.approx(1.0)
    assert found["ImagedVolumeHeight"] / found["TotalHeight"] * 1000 == pytest.approx(1.0)


def test_qupath_reads_every_tile(client: Client) -> None:
    for number, pixels in enumerate((WHOLE, HALF)):
        rows, columns = pixels.shape[:2]
        for row in range(-(-rows // TILE)):
            for column in range(-(-columns // TILE)):
                found = shown(client, f"/wsi/tiles/{SERIES}/{number}/{column}/{row}")
                near(found, pixels[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE])
    assert client.get(f"/wsi/tiles/{SERIES}/1/2/1").get_data() == frame(client, 2, 8)
    for outside in ("2/0/0", "0/10/0", "0/0/6"):
        assert client.get(f"/wsi/tiles/{SERIES}/{outside}").status_code == 404


def test_qupaths_dialog_finds_studies_series_and_a_preview(client: Client) -> None:
    assert client.get("/system").status_code == 200
    assert client.get("/studies").get_json() == [samples.STUDY]
    study = client.get(f"/studies/{samples.STUDY}").get_json()
    assert study["MainDicomTags"]["PatientName"] == "Müller^Jörg"
    assert study["MainDicomTags"]["StudyDate"] == "20260101"
    assert study["Series"] == [SERIES]
    series = client.get(f"/series/{SERIES}").get_json()
    assert series["MainDicomTags"]["Modality"] == "SM"
    assert sorted(series["Instances"]) == [f"{SERIES}.{n}" for n in (1, 2, 3, 4)]
    near(shown(client, f"/instances/{SERIES}.1/rendered"), WHOLE)
    file = client.get(f"/instances/{SERIES}.1/file").get_data()
    assert file[128:132] == b"DICM"
    for absent in ("/studies/1.9", "/series/1.9", "/instances/1.9/file", "/instances/1.9/rendered"):
        assert client.get(absent).status_code == 404, absent
