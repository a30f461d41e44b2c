# SPDX-License-Identifier: Apache-2.0
"""``coverslip worklist list``, ``add``, ``import`` and ``cancel``."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli import exit_codes
from gateway.cli.errors import CannotRead, Finished
from gateway.cli.options import Given, as_json, common, print_json

if TYPE_CHECKING:
    from archive.worklist import WorklistItem

_MOST_BYTES = 64 << 20  # of one JSON file
_MOST_ITEM_BYTES = 1 << 20  # of one DICOM worklist file
_BATCH = 200
_DICOM = (".wl", ".dcm")
_STEP = "00400100"

# Keys by the names that people use, beside any path of keywords or tags.
KEYS = {
    "barcode": "22000005",
    "container": "00400500.00400512",
    "specimen": "00400500.00400560.00400551",
    "accession": "00080050",
    "patient": "00100020",
    "name": "00100010",
    "station": "00400100.00400001",
    "date": "00400100.00400002",
    "modality": "00400100.00080060",
    "status": "00400100.00400020",
}


@click.group("worklist")
def command() -> None:
    """What is to be scanned: list, add and import items, or cancel one.

    Example: coverslip worklist list --data ./data barcode=S26-1234-A
    """


def _match(text: str) -> Any:
    from archive.errors import BadQuery
    from archive.index.attributes import tag_path
    from archive.index.query import parse_match
    from archive.index.worklist import vr_of_key

    name, equals, value = text.partition("=")
    try:
        path = KEYS.get(name) or tag_path(name)
    except BadQuery:
        path = ""
    vr = vr_of_key(path)
    if not equals or vr is None:
        raise click.BadParameter(
            f"{text!r} is not KEY=VALUE with a key of {', '.join(KEYS)} or a path of keywords",
            param_hint="KEY=VALUE",
        )
    return parse_match(path, vr, value)


@command.command("list")
@common
@as_json
@click.option("--all", "all_states", is_flag=True, help="Also what is completed, discontinued or cancelled.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most items to print.")
@click.argument("keys", metavar="[KEY=VALUE]...", nargs=-1)
def list_items(given: Given, as_json: bool, all_states: bool, limit: int, keys: tuple[str, ...]) -> None:
    """List items, the next to be scanned first; values may have * and ?, dates ranges.

    Prints tab-separated columns, or JSON: identifier, status, revision, and the item in the
    DICOM JSON model (PS3.18 Annex F).

    Example: coverslip worklist list --data ./data station=SCANNER1 date=20261124-
    """
    from itertools import islice

    from archive.index.worklist import WorklistQuery
    from gateway import compose

    query = WorklistQuery(tuple(map(_match, keys)), None, all_states)
    with compose.archive(given.settings(), codecs=False) as archive:
        found = list(islice(archive.worklist(query, **compose.operator(archive)), limit))
    if as_json:
        print_json([_as_object(one) for one in found])
        return
    for one in found:
        click.echo("\t".join(_columns(one)))


def _as_object(item: "WorklistItem") -> dict[str, object]:
    return {
        "identifier": item.identifier,
        "status": item.status,
        "revision": item.revision,
        "source": item.source,
        "updated": item.updated.isoformat(),
        "item": item.content,
    }


def _columns(item: "WorklistItem") -> list[str]:
    from archive.worklist_items import first

    step = item.content[_STEP]["Value"][0]
    return [
        item.status,
        f"{first(step, '00400002')} {first(step, '00400003')[:4]}",
        first(step, "00400001") or "-",
        first(item.content, "22000005") or "-",
        first(item.content, "00100020"),
        first(item.content, "00080050") or "-",
        first(item.content, "00321060") or first(step, "00400007") or "-",
        item.identifier,
    ]


@command.command("add")
@common
@as_json
@click.option("--identifier", default="", help="Names the item for later changes; made of it if not given.")
@click.option("--source", default="cli", show_default=True, help="Who orders; kept with the item.")
@click.argument("file", metavar="FILE|-", type=click.Path(path_type=Path, allow_dash=True))
def add(given: Given, as_json: bool, identifier: str, source: str, file: Path) -> None:
    """Add an item, or change it, from a file of DICOM JSON (an object), or standard input.

    Example: coverslip worklist add item.json --data ./data
    """
    items = _from_json(file)
    if len(items) != 1:
        raise click.BadParameter("not one item; see `coverslip worklist import`", param_hint="FILE")
    from archive.worklist import NewItem
    from gateway import compose

    with compose.archive(given.settings(), codecs=False) as archive:
        new = [NewItem(items[0], identifier)]
        (done,) = archive.schedule(new, source=source, **compose.operator(archive))
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(f"{done.outcome}\t{done.identifier}")


@command.command("import")
@common
@as_json
@click.option("--source", default="import", show_default=True, help="Who orders; kept with each item.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
def import_items(given: Given, as_json: bool, source: str, paths: tuple[Path, ...]) -> None:
    """Add or change many: DICOM worklist files (.wl, as wlmscpfs has them), JSON files (an
    object or a list), JSON Lines (.jsonl), and folders of these.

    What is there already and equal stays as it is. A file that is refused is listed, and the
    others are imported.

    Example: coverslip worklist import ./wlistdb/OFFIS --data ./data
    """
    _import(given, _all_items(paths), source, as_json)


@command.command("cancel")
@common
@click.option("--reason", required=True, help="Why; kept in the audit trail.")
@click.argument("identifier")
def cancel(given: Given, identifier: str, reason: str) -> None:
    """Cancel an item by its identifier. It stays, and adding it again brings it back.

    Example: coverslip worklist cancel "2.25.1|STEP1" --reason "slide broken" --data ./data
    """
    from gateway import compose

    with compose.archive(given.settings(), codecs=False) as archive:
        archive.unschedule(identifier, reason=reason, source="cli", **compose.operator(archive))
    click.echo(f"{identifier}: cancelled")


def _all_items(paths: tuple[Path, ...]) -> Iterator[tuple[str, Any]]:
    """(where, item, or what is wrong with the file)."""
    for path in paths:
        for file in _files(path):
            try:
                for item in [_from_dicom(file)] if file.suffix in _DICOM else _from_json(file):
                    yield str(file), item
            except (CannotRead, OSError) as refusal:
                yield str(file), refusal


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    known = (*_DICOM, ".json", ".jsonl")
    return sorted(one for one in path.rglob("*") if one.suffix in known and one.is_file())


def _read(path: Path, most: int) -> bytes:
    if str(path) == "-":
        data = sys.stdin.buffer.read(most + 1)
    else:
        with path.open("rb") as file:
            data = file.read(most + 1)
    if len(data) > most:
        raise CannotRead(f"{path}: larger than {most >> 20} MiB")
    return data


def _from_json(path: Path) -> list[Any]:
    data = _read(path, _MOST_BYTES)
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in data.splitlines() if line.strip()]
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise CannotRead(f"{path}: not JSON") from None
    return value if isinstance(value, list) else [value]


def _from_dicom(path: Path) -> Any:
    """A data set, with or without file meta information."""
    import io

    from pydicom import dcmread

    data = _read(path, _MOST_ITEM_BYTES)
    try:
        return dcmread(io.BytesIO(data), force=True).to_json_dict()
    except Exception:  # noqa: BLE001 - pydicom raises what it likes on damaged files
        raise CannotRead(f"{path}: not a DICOM data set") from None


def _import(given: Given, items: Iterator[tuple[str, Any]], source: str, as_json: bool) -> None:
    from archive.errors import BadOrder
    from archive.worklist import NewItem
    from gateway import compose

    done: list[dict[str, object]] = []
    failed = 0

    def tell(where: str, outcome: str, name: str = "", study: str = "") -> None:
        done.append({"source": where, "outcome": outcome, "identifier": name, "study_instance_uid": study})
        if not as_json:
            click.echo(f"{where}\t{outcome}" + (f"\t{name}" if name else ""))

    with compose.archive(given.settings(), codecs=False) as archive:
        who = compose.operator(archive)

        def put(part: list[tuple[str, Any]]) -> int:
            """Together, or one by one where one of them is refused."""
            try:
                new = [NewItem(item) for _, item in part]
                for (where, _), one in zip(part, archive.schedule(new, source=source, **who), strict=True):
                    tell(where, one.outcome, one.identifier, one.study_instance_uid)
                return 0
            except BadOrder as refusal:
                if len(part) > 1:
                    return sum(put([one]) for one in part)
                tell(part[0][0], f"refused: {refusal}")
                return 1

        part: list[tuple[str, Any]] = []
        for where, item in items:
            if isinstance(item, Exception):
                failed += 1
                tell(where, f"refused: {item if isinstance(item, CannotRead) else 'cannot be read'}")
                continue
            part.append((where, item))
            if len(part) == _BATCH:
                failed += put(part)
                part = []
        failed += put(part) if part else 0
    if as_json:
        print_json(done)
    if failed:
        raise Finished(exit_codes.SOME_FAILED)
