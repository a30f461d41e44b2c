# SPDX-License-Identifier: Apache-2.0
"""A damaged label, overview or thumbnail: the levels are converted, and the loss is said."""

from pathlib import Path

import pytest

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide, NotEnoughMemory
from converters.inspection import inspect
from converters.slide import Role
from converters.workshop import Limits, Workshop
from converters.writer.born import images_of
from converters.writer.tilework import TileWork
from tests.support.converted import born
from tests.support.damaged_label import damage_label
from tests.support.make_slide import make_svs

SAYS = "the label image is left out: LZW data begin with an impossible code"


def test_a_damaged_label_is_left_out_with_a_finding_and_all_else_is_converted(tmp_path: Path) -> None:
    path = damage_label(make_svs(tmp_path / "slide.svs"))
    (made,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    assert SAYS in made.findings
    roles = {instance.role for instance in made.instances}
    assert roles == {Role.VOLUME, Role.THUMBNAIL, Role.OVERVIEW}
    assert sum(instance.role is Role.VOLUME for instance in made.instances) >= 2


def test_the_numbers_of_the_other_images_are_what_they_would_be(tmp_path: Path) -> None:
    whole = born(make_svs(tmp_path / "whole.svs"))
    other = born(damage_label(make_svs(tmp_path / "damaged.svs")))
    numbers = {(one.role, one.level): one.instance_number for one in whole if one.role is not Role.LABEL}
    assert {(one.role, one.level): one.instance_number for one in other} == numbers


def test_inspect_says_what_will_be_left_out_and_sees_no_problem(tmp_path: Path) -> None:
    found = inspect(damage_label(make_svs(tmp_path / "slide.svs")))
    assert found.problem == ""
    assert SAYS in found.findings
    assert {image.role: image.action for image in found.images}["LABEL"] == "left out"


def test_levels_without_label_say_nothing_of_it(tmp_path: Path) -> None:
    path = damage_label(make_svs(tmp_path / "slide.svs"))
    (made,) = convert([path], tmp_path / "out", ConvertOptions(levels=(0,)))
    assert SAYS not in made.findings


def test_a_damaged_tile_still_refuses_the_slide(tmp_path: Path) -> None:
    path = damage_label(make_svs(tmp_path / "slide.svs"))
    with Workshop(Limits(processes=1)) as workshop, workshop.open(path) as opened:
        offset = int(opened.slide.scenes[0].levels[0].tiles.offsets[1])  # type: ignore[union-attr]
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(DamagedSlide, match="level 0"):
        convert([path], tmp_path / "out")


def test_a_shortage_of_memory_leaves_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_svs(tmp_path / "slide.svs")

    def short(self: TileWork, number: int) -> None:
        raise NotEnoughMemory("the overview image cannot be decoded")

    monkeypatch.setattr(TileWork, "image", short)
    with Workshop(Limits(processes=1)) as workshop, workshop.open(path) as opened:
        with pytest.raises(NotEnoughMemory):
            images_of(opened.slide, TileWork(opened.slide))
