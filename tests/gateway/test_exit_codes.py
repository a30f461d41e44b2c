# SPDX-License-Identifier: Apache-2.0
"""Exit codes: one table, no gap, and the document that is made from it."""

import builtins
import importlib
from pathlib import Path

import pytest

import archive.errors
import converters.errors
from gateway.cli import exit_codes
from gateway.cli.exit_codes import EXIT_CODES, code_of
from gateway.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def subclasses(base: type[BaseException]) -> set[type[BaseException]]:
    return {base}.union(*(subclasses(child) for child in base.__subclasses__()))


def test_the_document_is_the_one_made_from_the_code() -> None:
    assert (ROOT / "docs/errors.md").read_text() == exit_codes.markdown()


def test_codes_are_unique_and_from_0_to_63() -> None:
    codes = [row.code for row in EXIT_CODES]
    assert sorted(set(codes)) == sorted(codes)
    assert set(codes) <= set(range(64))


@pytest.mark.parametrize("name", [name for row in EXIT_CODES for name in row.classes])
def test_every_class_of_the_table_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = getattr(builtins if module == "builtins" else importlib.import_module(module), attribute)
    assert f"{found.__module__}.{found.__qualname__}" == name


@pytest.mark.parametrize(
    "refusal",
    sorted(subclasses(archive.errors.ArchiveError) | subclasses(converters.errors.ConversionError), key=str),
    ids=lambda refusal: refusal.__qualname__,
)
def test_every_refusal_has_a_code_of_its_own_kind(refusal: type[BaseException]) -> None:
    code = code_of(refusal.__new__(refusal))
    assert code is not None
    assert code > exit_codes.USAGE
    ours = refusal.__module__ in ("archive.errors", "converters.errors")
    if ours and refusal.__base__ in (archive.errors.ArchiveError, converters.errors.ConversionError):
        assert code not in (25, 36), "a refusal of our own tables needs a row"


def test_a_fault_of_ours_has_no_row() -> None:
    assert code_of(ZeroDivisionError()) is None


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    from click.testing import CliRunner

    from gateway.cli.main import coverslip

    shown = CliRunner().invoke(coverslip, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: coverslip {command}" in shown.output
