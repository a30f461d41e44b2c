# SPDX-License-Identifier: Apache-2.0
"""ICC profiles, LZW, the registry: small things that fail loudly elsewhere."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from converters import registry
from converters.errors import AmbiguousSlide, DamagedSlide
from converters.probe import Probe
from converters.readers.aperio import AperioReader
from converters.readers.lzw import lzw_decode, undo_predictor
from converters.registry import open_slide
from converters.slide import Slide
from converters.writer.icc import srgb_profile, usable_profile
from converters.writer.uids import Names
from tests.support.make_slide import make_svs


def test_the_assumed_profile_is_srgb_of_class_input() -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
    assert profile.profile.device_class == "scnr"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    back = ImageCms.profileToProfile(Image.fromarray(pixels), profile, ImageCms.createProfile("sRGB"))
    assert back is not None
    assert np.abs(np.asarray(back).astype(int) - pixels).max() <= 1


def test_a_display_profile_becomes_an_input_profile_and_nothing_else_changes() -> None:
    display = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = usable_profile(display, 3)
    assert made[12:16] == b"scnr"
    assert made[128:] == display[128:]
    assert ImageCms.ImageCmsProfile(io.BytesIO(made)).profile.device_class == "scnr"


@pytest.mark.parametrize(
    "profile", [b"", b"x" * 400, srgb_profile()[:300], srgb_profile().replace(b"RGB ", b"CMYK")]
)
def test_what_is_no_profile_is_not_carried(profile: bytes) -> None:
    assert usable_profile(profile, 3) == b""


def test_an_rgb_profile_does_not_fit_grey_pixels() -> None:
    assert usable_profile(srgb_profile(), 1) == b""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 6000))
def test_lzw_gives_back_what_was_encoded(seed: int, colours: int, length: int) -> None:
    data = np.random.default_rng(seed).integers(0, colours, length, dtype=np.uint8).tobytes()
    assert lzw_decode(imagecodecs.lzw_encode(data), length) == data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600), st.integers(1, 100_000))
def test_lzw_of_anything_ends_in_bytes_or_a_refusal(data: bytes, length: int) -> None:
    try:
        found = len(lzw_decode(data, length))
    except DamagedSlide:
        return
    assert found == length


def test_the_predictor_is_undone_by_sample() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    differences = np.diff(pixels, axis=1, prepend=np.zeros((5, 1, 3), np.uint8))
    assert np.array_equal(undo_predictor(differences), pixels)


class _Greedy:
    format = "greedy"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        return None

    @staticmethod
    def open(probe: Probe) -> Slide:
        raise AssertionError("not reached")


def test_two_readers_that_claim_a_file_are_an_error_not_an_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "readers", lambda: (AperioReader, _Greedy))
    with pytest.raises(AmbiguousSlide, match="aperio-svs, greedy"):
        open_slide(make_svs(tmp_path / "a.svs"))


def test_names_cannot_be_confused_by_moving_a_border() -> None:
    names = Names(bytes(32), bytes(32))
    assert names.uid("image", "a", "bc") != names.uid("image", "ab", "c")
    assert names.uid("image", 1, 11) != names.uid("image", 11, 1)


@pytest.mark.parametrize(("secret", "digest"), [(b"short", bytes(32)), (bytes(32), b"short")])
def test_names_need_a_secret_and_a_digest(secret: bytes, digest: bytes) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        Names(secret, digest)
