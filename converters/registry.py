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
from converters.probe import DAMAGED, Probe
from converters.readers.aperio import AperioReader
from converters.slide import Slide


class Reader(Protocol):
    """Reads one vendor's files. ``format`` names it in messages and in the index."""

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
    return (AperioReader, *(entry.load() for entry in others))


def refusals(probe: Probe) -> dict[str, str | None]:
    """Each reader's answer, by its format: None where it claims the file."""
    return {reader.format: reader.why_not(probe) for reader in readers()}


def open_slide(path: Path, *, modified: float | None = None) -> Slide:
    """The file (the main file where there are several) as a slide; the caller closes it.

    ``modified``: the time (seconds since the epoch) to take for the file's own, when
    ``path`` is a copy. Raises UnreadableSlide with every reader's reason,
    AmbiguousSlide, and what the claiming reader raises.
    """
    probe = Probe(path, modified=modified)
    try:
        if not probe.size_bytes:
            raise UnreadableSlide("the file is empty")
        answers = refusals(probe)
        claiming = [reader for reader in readers() if answers[reader.format] is None]
        if not claiming:
            damaged = next((why for why in answers.values() if why and why.startswith(DAMAGED)), None)
            if damaged is not None:
                raise DamagedSlide(f"this is {damaged}")
        if not claiming:
            raise UnreadableSlide("no reader knows this file", {k: why for k, why in answers.items() if why})
        if len(claiming) > 1:
            raise AmbiguousSlide([reader.format for reader in claiming])
        return claiming[0].open(probe)
    finally:
        probe.close()
