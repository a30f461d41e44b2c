# SPDX-License-Identifier: Apache-2.0
"""Which reader takes a file: all are asked, exactly one must claim it.

Third parties join by the entry-point group ``coverslip.readers``: each entry is a class
of the shape of :class:`Reader`.
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from converters.errors import AmbiguousSlide, DamagedSlide, UnreadableSlide
from converters.even_tiles import with_even_tiles
from converters.probe import DAMAGED, TIFF_FAULTS, Probe
from converters.readers.akoya_qptiff import AkoyaQptiffReader
from converters.readers.aperio import AperioReader
from converters.readers.dicom_series import OTHER_DICOM
from converters.readers.dicom_wsi import DicomWsiReader
from converters.readers.generic_tiff import GenericTiffReader
from converters.readers.hamamatsu_ndpi import HamamatsuNdpiReader, HamamatsuNdpisReader
from converters.readers.hamamatsu_vms import HamamatsuVmsReader
from converters.readers.leica_scn import LeicaScnReader
from converters.readers.mirax import MiraxReader
from converters.readers.motic_mds import MoticMdsReader
from converters.readers.motic_mdsx import MoticMdsxReader
from converters.readers.motic_tiff import MoticTiffReader
from converters.readers.nikon_nd2 import NikonNd2Reader
from converters.readers.olympus_vsi import OlympusVsiReader
from converters.readers.ome_tiff import OmeTiffReader
from converters.readers.philips_isyntax import PhilipsIsyntaxReader
from converters.readers.philips_tiff import PhilipsTiffReader
from converters.readers.sakura_svslide import SakuraReader
from converters.readers.trestle import TrestleReader
from converters.readers.ventana_bif import VentanaBifReader
from converters.readers.zeiss_czi import ZeissCziReader
from converters.slide import Slide


class Reader(Protocol):
    """Reads one vendor's files. ``format`` names it in messages and in the index.

    Two more members are optional: ``isolated = True`` says that :meth:`open` itself needs a
    C library and is called in a child process only; ``companions(probe)``, a static method,
    names the other files of a slide of several (see :func:`companions`).
    """

    format: str

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        """None if the file is this reader's, else the reason, in a few words."""

    @staticmethod
    def open(probe: Probe) -> Slide:
        """The slide. Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""


@cache
def readers() -> Sequence[type[Reader]]:
    """Ours, then those of entry points, sorted by name."""
    others = sorted(entry_points(group="coverslip.readers"), key=lambda entry: entry.name)
    return (
        AperioReader,
        PhilipsTiffReader,
        PhilipsIsyntaxReader,
        LeicaScnReader,
        VentanaBifReader,
        ZeissCziReader,
        NikonNd2Reader,
        OlympusVsiReader,
        MoticMdsReader,
        MoticMdsxReader,
        MiraxReader,
        HamamatsuNdpiReader,
        HamamatsuNdpisReader,
        HamamatsuVmsReader,
        SakuraReader,
        AkoyaQptiffReader,
        OmeTiffReader,
        MoticTiffReader,
        TrestleReader,
        DicomWsiReader,
        GenericTiffReader,
        *(entry.load() for entry in others),
    )


def refusals(probe: Probe) -> dict[str, str | None]:
    """Each reader's answer, by its format: None where it claims the file."""
    return {reader.format: _answer(reader, probe) for reader in readers()}


def _answer(reader: type[Reader], probe: Probe) -> str | None:
    """A reader that stumbles over a file refuses it: the others must be asked too."""
    try:
        return reader.why_not(probe)
    except TIFF_FAULTS as error:  # tifffile keeps whatever a damaged directory says
        kind = DAMAGED if not isinstance(probe.tiff, str) else "the reader stumbled over it"
        return f"{kind} ({type(error).__name__})"


def open_slide(path: Path, *, modified: float | None = None) -> Slide:
    """The file (the main file where there are several) as a slide; the caller closes it.

    ``modified``: the time (seconds since the epoch) to take for the file's own, when
    ``path`` is a copy. Everything happens in this process: for files from outside see
    ``converters.workshop``. Raises UnreadableSlide with every reader's reason,
    AmbiguousSlide, and what the claiming reader raises.
    """
    probe = Probe(path, modified=modified)
    try:
        return with_even_tiles(_claiming(probe).open(probe))
    finally:
        probe.close()


def claiming(path: Path, *, modified: float | None = None) -> type[Reader]:
    """The one reader that claims the file. Raises UnreadableSlide, AmbiguousSlide,
    DamagedSlide."""
    probe = Probe(path, modified=modified)
    try:
        return _claiming(probe)
    finally:
        probe.close()


def companions(path: Path) -> Sequence[str]:
    """Names of the other files of the slide, relative to the folder of its main file, "/"
    between; none where it is one file. Raises MissingCompanion and as :func:`claiming`."""
    probe = Probe(path)
    try:
        ask = getattr(_claiming(probe), "companions", None)
        return () if ask is None else tuple(ask(probe))
    finally:
        probe.close()


def _claiming(probe: Probe) -> type[Reader]:
    answers = refusals(probe)
    named = [reader for reader in readers() if answers[reader.format] is None]
    if len(named) == 1:
        return named[0]
    if not probe.size_bytes:  # claimed by none: the stub of a slide in several files may be so
        raise UnreadableSlide("the file is empty")
    if named:
        raise AmbiguousSlide([reader.format for reader in named])
    damaged = next((why for why in answers.values() if why and why.startswith(DAMAGED)), None)
    if damaged is not None:
        raise DamagedSlide(f"this is {damaged}")
    other = next((why for why in answers.values() if why and why.startswith(OTHER_DICOM)), None)
    if other is not None:
        raise UnreadableSlide(f"this is {other}")
    raise UnreadableSlide("no reader knows this file", {k: why for k, why in answers.items() if why})
