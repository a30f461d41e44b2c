# SPDX-License-Identifier: Apache-2.0
"""The text files that hold Hamamatsu's slides together (NDPIS, VMS, VMU): ``[section]``,
then ``key=value``. The files that they name lie beside them."""

from collections.abc import Mapping
from pathlib import Path

from converters.errors import DamagedSlide, MissingCompanion

MAX_INDEX_BYTES = 1 << 20


def section_of(head: bytes) -> str:
    """Name of the first section; empty when the file does not begin with one."""
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:200].split(b"\n", 1)[0].strip()
    if not (line.startswith(b"[") and line.endswith(b"]")):
        return ""
    return line[1:-1].decode("latin-1").strip()


def read_index(path: Path) -> Mapping[str, str]:
    """Keys of the first section in lower case, the first of equal ones wins."""
    with path.open("rb") as file:
        data = file.read(MAX_INDEX_BYTES + 1)
    if len(data) > MAX_INDEX_BYTES:
        raise DamagedSlide("the index file is too long")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    values: dict[str, str] = {}
    sections = 0
    for line in text.splitlines():
        sections += line.startswith("[")
        key, equals, value = line.partition("=")
        if equals and sections < 2:
            values.setdefault(key.strip().lower(), value.strip(" \t;\0"))
    return values


def index_number(index: Mapping[str, str], key: str) -> float | None:
    try:
        value = float(index.get(key, ""))
    except ValueError:
        return None
    return value if abs(value) < 1e12 else None


def index_count(index: Mapping[str, str], key: str, most: int) -> int:
    """A count from 1. Raises DamagedSlide."""
    text = index.get(key, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise DamagedSlide("the index file does not say how many images there are, or too many")
    return int(text)


def bare_name(value: str) -> str:
    """The file's name without folders: scanners may write where it lay on their own disk.
    Raises DamagedSlide for what is no name."""
    name = value.replace("\\", "/").rsplit("/", 1)[-1].strip()
    if name in ("", ".", "..") or "\0" in name or len(name) > 255:
        raise DamagedSlide("the index file names no file where one is due")
    return name


def companion(folder: Path, name: str, what: str) -> Path:
    """A named file beside the index. Raises MissingCompanion, ``what`` naming it."""
    path = folder / name
    if not path.is_file():
        raise MissingCompanion(what)
    return path
