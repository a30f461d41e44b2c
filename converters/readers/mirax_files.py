# SPDX-License-Identifier: Apache-2.0
"""The files of an MRXS slide: the stub, and in the folder of its name Slidedat.ini, Index.dat
and the Data files."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from converters.errors import DamagedSlide, MissingCompanion
from converters.probe import Probe
from converters.readers.mirax_ini import MAX_BYTES, parse_slidedat
from converters.slide import SourceFile

FIRST_DATA_FILE = 3
"""Number of Data0000.dat in :attr:`MiraxFiles.sources`."""


class MiraxFiles:
    """The slide's files. Raises MissingCompanion for the first that is not there."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.folder = probe.path.with_suffix("")
        self.ini_path = self._path("Slidedat.ini", "Slidedat.ini")
        with self.ini_path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DamagedSlide("Slidedat.ini is larger than any slide's")
        self.ini = parse_slidedat(content)
        self.index_path = self._path(self.ini.index_name(), "Index.dat")
        self.data_paths = [
            self._path(name, f"data file {number}") for number, name in enumerate(self.ini.data_file_names())
        ]

    @property
    def names(self) -> Sequence[str]:
        paths = (self.ini_path, self.index_path, *self.data_paths)
        return list(dict.fromkeys(f"{self.folder.name}/{path.name}" for path in paths))

    @cached_property
    def sources(self) -> Sequence[SourceFile]:
        """The stub, Slidedat.ini, Index.dat, then the Data files."""
        probe, found = self.probe, []
        for path in (self.ini_path, self.index_path, *self.data_paths):
            status = path.stat()
            name = f"{self.folder.name}/{path.name}"
            found.append(SourceFile(path, status.st_size, status.st_mtime, name))
        return (SourceFile(probe.path, probe.size_bytes, probe.modified), *found)

    def _path(self, name: str, role: str) -> Path:
        """A file of the folder; letters' case may have changed on its way here."""
        path = self.folder / name
        try:
            if path.is_file():
                return path
            others = [entry.name for entry in os.scandir(self.folder) if entry.name.lower() == name.lower()]
        except (OSError, ValueError):
            others = []
        if not others:
            raise MissingCompanion(role)
        return self.folder / min(others)

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Bytes of a Data file. Raises DamagedSlide."""
        try:
            with self.data_paths[file].open("rb") as data:
                data.seek(offset)
                content = data.read(length)
        except OSError as error:
            raise DamagedSlide("a Data file cannot be read") from error
        if len(content) != length:
            raise DamagedSlide("a Data file has become shorter")
        return content
