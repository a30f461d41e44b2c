# SPDX-License-Identifier: Apache-2.0
"""Which of a slide's files is the slide, and which arrive with it."""

import os
from pathlib import Path

import pytest

from converters.errors import MissingCompanion
from gateway.cli.paths import files_of
from gateway.ingest.belonging import arrived, belongs_to_another, may_belong_to_another
from gateway.ingest.pipeline import companion_names
from tests.support.slides.mrxs import write_mrxs
from tests.support.slides.ome_tiff import write_ome_files


@pytest.mark.parametrize("companion", [False, True])
def test_of_files_that_name_each_other_the_first_is_the_slide(tmp_path: Path, companion: bool) -> None:
    main = write_ome_files(tmp_path, companion=companion)
    assert files_of([tmp_path]) == [main]
    assert not belongs_to_another(main)


def test_a_file_that_is_named_by_nothing_present_is_its_own(tmp_path: Path) -> None:
    main = write_ome_files(tmp_path)
    for other in set(tmp_path.iterdir()) - {main}:
        other.unlink()
    assert not belongs_to_another(main)


def test_files_of_a_mirax_slide_are_worth_waiting_for(tmp_path: Path) -> None:
    write_mrxs(tmp_path)
    assert all(may_belong_to_another(file) for file in (tmp_path / "scan").iterdir())
    assert not may_belong_to_another(tmp_path / "scan.mrxs")


def test_what_arrives_in_the_folder_of_a_slide_is_seen(tmp_path: Path) -> None:
    main = write_mrxs(tmp_path)
    before = arrived(main)
    with (tmp_path / "scan" / "Data0001.dat").open("ab") as file:
        file.write(b"more")
    assert arrived(main) != before
    assert arrived(main) == arrived(main)


def test_files_behind_a_linked_folder_are_not_of_the_slide(tmp_path: Path) -> None:
    main = write_mrxs(tmp_path)
    assert companion_names(main)
    os.rename(tmp_path / "scan", tmp_path / "elsewhere")
    (tmp_path / "scan").symlink_to("elsewhere")
    with pytest.raises(MissingCompanion):
        companion_names(main)
