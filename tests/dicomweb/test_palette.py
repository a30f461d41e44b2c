# SPDX-License-Identifier: Apache-2.0
"""PALETTE COLOR: pictures show its colours, frames keep its numbers."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from tests.dicomweb import samples
from tests.dicomweb.conftest import LEVEL, WEB, store

TILE = samples.TILE
COUNTS = {"plain": 256, "deep": 65536, "segmented": 256}


def palette_image(form, *, syntax=ExplicitVRLittleEndian):
    """Two tiles of indices, and what they look like: (file, indices, colours)."""
    made = samples.header(1)
    del made.PlanarConfiguration
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "PALETTE COLOR"
    samples.size(made, 2, 1)
    deep = form == "deep"
    rng = np.random.default_rng(5)
    indices = rng.integers(0, COUNTS[form] - 6, (2, TILE, TILE)).astype("<u2" if deep else "u1")
    if deep:
        made.BitsAllocated = made.BitsStored = 16
        made.HighBit = 15
    for n, name in enumerate(("Red", "Green", "Blue")):
        # three values lie below what is mapped first
        setattr(
            made,
            f"{name}PaletteColorLookupTableDescriptor",
            [COUNTS[form] % 65536, 3, 8 if form == "plain" else 16],
        )
        if form == "segmented":
            table = np.array([0, 2, 65535, 256 * n, 1, 200, 256 * 200, 0, 1, 9, 1, 53, 65535], "<u2")
        else:
            table = rng.integers(0, 65536 if deep else 256, COUNTS[form]).astype("<u2" if deep else "u1")
        keyword = f"{'Segmented' * (form == 'segmented')}{name}PaletteColorLookupTableData"
        setattr(made, keyword, table.tobytes())
        made[keyword].VR = "OW"
    made.set_original_encoding(False, True)
    colours = apply_color_lut(indices, made)
    colours = (colours >> (8 if colours.dtype == np.uint16 else 0)).astype(np.uint8)
    if syntax == RLELossless:
        described = {
            "rows": TILE, "columns": TILE, "samples_per_pixel": 1, "number_of_frames": 1,
            "bits_allocated": made.BitsAllocated, "bits_stored": made.BitsStored, "pixel_representation": 0,
            "photometric_interpretation": "PALETTE COLOR",
        }  # fmt: skip
        frames = [RLELosslessEncoder.encode(one.tobytes(), **described) for one in indices]
        made.PixelData = encapsulate(frames)
    else:
        made.PixelData = indices.tobytes()
    made["PixelData"].VR = "OW" if deep and syntax != RLELossless else "OB"
    return samples.written(made, syntax), indices, colours


def pixels(response):
    assert response.status_code == 200, response.get_data()
    return np.asarray(Image.open(io.BytesIO(response.get_data())).convert("RGB"))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("form", COUNTS)
def test_pictures_show_the_colours_of_the_palette(client, form, syntax):
    file, _, colours = palette_image(form, syntax=syntax)
    assert store(client, file).status_code == 200
    png = {"Accept": "image/png"}
    for number in (1, 2):
        shown = pixels(client.get(f"{LEVEL}/frames/{number}/rendered", headers=png))
        assert np.array_equal(shown, colours[number - 1])
    whole = pixels(client.get(f"{LEVEL}/rendered", headers=png))
    assert np.array_equal(whole, np.concatenate(list(colours), axis=1))
    windowed = pixels(client.get(f"{LEVEL}/frames/1/rendered?window=10,20,linear", headers=png))
    assert np.array_equal(windowed, colours[0])  # a window is for grey
    small = pixels(client.get(f"{LEVEL}/thumbnail?viewport=2,1", headers=png))
    for n in (0, 1):
        assert np.abs(small[0, n] - colours[n].mean((0, 1))).max() <= 2


@pytest.mark.parametrize("form", ["plain", "deep"])
def test_frames_in_another_syntax_keep_the_numbers(client, form):
    file, indices, _ = palette_image(form, syntax=RLELossless)
    store(client, file)
    url = f"{LEVEL}/frames/2"
    native = client.get(url, headers={"Accept": "application/octet-stream"})
    assert native.get_data() == indices[1].tobytes()
    for accept, decode in (
        ("image/jp2", imagecodecs.jpeg2k_decode),
        ("image/jls", imagecodecs.jpegls_decode),
        ("image/jxl", imagecodecs.jpegxl_decode),
    ):
        response = client.get(url, headers={"Accept": accept})
        assert response.status_code == 200, accept
        assert np.array_equal(decode(response.get_data()), indices[1]), accept
    for lossy in (
        "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50",
        "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91",
    ):
        assert client.get(url, headers={"Accept": lossy}).status_code == 406  # neighbours are no colours


def test_an_image_whose_palette_is_missing_has_no_picture_but_its_frames(client):
    made, indices, _ = palette_image("plain")
    broken = made.replace(b"\x28\x00\x02\x12OW", b"\x29\x00\x02\x12OW")
    assert broken != made
    assert store(client, broken).status_code == 200
    refused = client.get(f"{LEVEL}/frames/1/rendered", headers={"Accept": "image/png"})
    assert refused.status_code == 406
    assert "palette" in refused.get_json()["error"]["message"]
    assert client.get(f"{WEB}/studies", headers={"Accept": "*/*"}).status_code == 200
    frame = client.get(f"{LEVEL}/frames/1", headers={"Accept": "application/octet-stream"})
    assert frame.get_data() == indices[0].tobytes()
