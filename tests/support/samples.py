# SPDX-License-Identifier: Apache-2.0
"""``tests/corpus/samples.toml``: what must become of every slide that tests have.

``[[sample]]`` is a file below ``slides`` of the test data, ``[[generated]]`` a slide that
:mod:`tests.support.slides.variants` draws. Both have

    row       a name of :data:`ROWS`
    origin    "real" (of a scanner or a microscope), "vendor-written" (by the vendor's
              own library), "other software" or "synthetic" (drawn for tests)
    holds     in a few words, what is particular

and either ``refused``, the whole message, or what comes out: ``levels`` (``copied``,
``encoded`` again, ``computed``), ``scenes``, ``paths`` and ``planes`` where they are more
than one, ``images`` (label, overview, thumbnail). ``asks`` is the message without the
metadata ``given``. ``arranged`` maps the names that files must have to the samples that
they are; then ``path`` is the main file's.
"""

import shutil
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.slide import Role
from converters.writer.born import DicomInstance
from tests.support.require import DATA, ROOT, require_data
from tests.support.slides.variants import VARIANTS

ROWS = (
    "Aperio SVS",
    "Leica SCN",
    "Hamamatsu NDPI",
    "Hamamatsu NDPIS",
    "Hamamatsu VMS and VMU",
    "Philips TIFF",
    "Philips iSyntax",
    "3DHISTECH MRXS",
    "Ventana BIF and TIFF",
    "Zeiss CZI",
    "Olympus VSI and ETS",
    "Nikon ND2",
    "Motic MDS",
    "Motic MDSX",
    "Motic SVS and TIFF",
    "Sakura SVSLIDE",
    "Akoya and PerkinElmer QPTIFF",
    "Lunaphore OME-TIFF",
    "OME-TIFF",
    "Trestle",
    "Generic pyramidal TIFF",
    "DICOM from scanners",
)
ORIGINS = ("real", "vendor-written", "other software", "synthetic")
TABLE = ROOT / "tests" / "corpus" / "samples.toml"
SLIDES = "slides"
FILE_PARTS = frozenset({".dat", ".ini", ".ets", ".opt"})
"""Endings of files that are parts of a slide and never its main file."""


@dataclass(frozen=True)
class Expected:
    """One entry. ``path`` is below the test data's slides; ``base`` names a variant."""

    row: str
    origin: str
    holds: str = ""
    path: str = ""
    base: str = ""
    arranged: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    asks: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)
    scenes: int = 1
    paths: int = 1
    planes: int = 1
    images: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path or self.base

    def main_file(self, folder: Path) -> Path:
        """The main file, written into ``folder`` where it is none of the samples. Skips, or
        fails, where the samples are absent."""
        if self.base:
            return VARIANTS[self.base](folder)
        if not self.arranged:
            return require_data(f"{SLIDES}/{self.path}")
        for name, source in self.arranged.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(require_data(f"{SLIDES}/{source}"), folder / name)
        return folder / self.path


def expectations() -> tuple[Expected, ...]:
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(
        Expected(**{**entry, "images": tuple(entry.get("images", ()))})
        for entry in (*table["sample"], *table["generated"])
    )


def outcome(instances: tuple[DicomInstance, ...]) -> dict[str, Any]:
    """What came out, in the words of the table, but for ``paths`` and ``planes``."""
    volumes = [one for one in instances if one.role is Role.VOLUME]
    kinds = ["computed" if one.computed else "copied" if one.born else "encoded" for one in volumes]
    return {
        "levels": {kind: kinds.count(kind) for kind in ("copied", "encoded", "computed") if kind in kinds},
        "scenes": len({one.scene for one in volumes}),
        "images": tuple(sorted(one.role.value.lower() for one in instances if one.role is not Role.VOLUME)),
    }


def sample_files() -> set[str]:
    """Every file below the test data's slides that could be a main file, relative to them."""
    root = DATA / SLIDES
    indexes = [path.with_suffix("") for path in root.rglob("*.vms")]
    found = set()
    for path in root.rglob("*"):
        name = path.relative_to(root)
        of_vms = path.suffix == ".jpg" and any(str(path).startswith(str(index)) for index in indexes)
        part = path.suffix.lower() in FILE_PARTS or of_vms
        if path.is_file() and not part and name.parts[0] != "generators" and name.suffix != ".md":
            found.add(name.as_posix())
    return found
