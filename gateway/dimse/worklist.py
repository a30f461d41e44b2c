# SPDX-License-Identifier: Apache-2.0
"""Modality Worklist SCP (PS3.4 Annex K): a slide scanner asks what it has to scan.

The query's keys become matches of the one engine, and the items that match are cut to
what was asked for. ScheduledSpecimenSequence stands at the top level (Table K.6-1);
scanners that ask for it inside ScheduledProcedureStepSequence, or for
ContainerIdentifier outside of it, are answered in kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset

from archive.errors import ArchiveError, BadQuery, Busy, NotAllowed
from archive.index.matching import Match, parse_match
from archive.index.worklist import SPECIMENS, STATION, WorklistQuery, vr_of_key
from gateway.dimse.find import refuse
from gateway.dimse.query_keys import BadIdentifier, character_set_of, text_of
from gateway.dimse.result_encoding import ResultEncoder
from gateway.dimse.rights import Right
from gateway.dimse.services import (
    NOT_AUTHORIZED,
    PENDING,
    PENDING_WITHOUT_OPTIONAL_KEYS,
    SUCCESS,
    Request,
    Service,
    UnreadableIdentifier,
)

MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"
OUT_OF_RESOURCES = 0xA700
UNABLE_TO_PROCESS = 0xC000
CANCELLED = 0xFE00
MAXIMUM_ITEMS = 10_000

_STEP = "00400100"
_CONTAINER = "00400512"
_BESIDE_KEYS = ("00080005", "00080201")  # say how to read the query; are no keys of it
_MOST_KEYS = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to return: VR by tag; of a sequence what of its items, None for all of them."""

    vrs: Mapping[str, str]
    within: Mapping[str, "Wanted | None"]


@dataclass(slots=True)
class _Keys:
    character_set: tuple[str, ...]
    matches: list[Match] = field(default_factory=list)
    unsupported: bool = False
    left: int = _MOST_KEYS


Stations = Callable[[str], tuple[str, ...] | None]
"""By the AE title of a peer: the stations whose items it sees; None: all."""


def service(stations: Stations = lambda _: None, maximum_items: int = MAXIMUM_ITEMS) -> Service:
    """``maximum_items``: of one answer; a query that has more is answered so far, then A700.
    Items for no station in particular are seen by all."""
    return Service(
        "Modality Worklist",
        frozenset({MODALITY_WORKLIST}),
        Right.WORKLIST,
        {"C_FIND": lambda request: on_c_find(request, maximum_items, stations)},
    )


def on_c_find(request: Request, maximum_items: int, stations: Stations) -> None:
    """Answer one query: items by scheduled start, one pending response each."""
    try:
        identifier = request.data_set()
        keys, wanted = read_query(identifier)
        query = WorklistQuery(tuple(keys.matches), stations(request.principal.actor))
        encoder = ResultEncoder(request.transfer_syntax, keys.character_set)
        found = request.archive.worklist(query, principal=request.principal, scope=request.scope)
        pending = PENDING_WITHOUT_OPTIONAL_KEYS if keys.unsupported else PENDING
        for sent, item in enumerate(found):
            if request.cancelled:
                request.respond(CANCELLED)
                return
            if sent == maximum_items:
                request.respond(OUT_OF_RESOURCES, ErrorComment=f"more than {maximum_items} items match")
                return
            answer = select(complete(item.content, request.principal.actor), wanted)
            request.respond(pending, encoder.encode(answer))
    except UnreadableIdentifier as error:
        request.respond(UNABLE_TO_PROCESS, ErrorComment=str(error))
    except BadIdentifier as error:
        refuse(request, error)
    except NotAllowed:
        request.respond(NOT_AUTHORIZED)
    except Busy as error:
        request.respond(OUT_OF_RESOURCES, ErrorComment=str(error))
    except ArchiveError as error:
        request.respond(UNABLE_TO_PROCESS, ErrorComment=str(error))
    else:
        request.respond(SUCCESS)


def read_query(identifier: Dataset) -> tuple[_Keys, Wanted]:
    """The matches of a query and what it wants returned. Raises BadIdentifier."""
    keys = _Keys(character_set_of(identifier))
    return keys, _read(identifier, "", keys)


def _read(data_set: Dataset, path: str, keys: _Keys) -> Wanted:
    vrs: dict[str, str] = {}
    within: dict[str, Wanted | None] = {}
    codecs = convert_encodings(list(keys.character_set) or [""])
    for number in sorted(data_set.keys()):
        tag = f"{int(number):08X}"
        if tag in _BESIDE_KEYS or number.element == 0:
            continue  # group lengths are no keys
        keys.left -= 1
        if keys.left < 0:
            raise BadIdentifier(f"more than {_MOST_KEYS} keys")
        here = f"{path}.{tag}" if path else tag
        try:
            vrs[tag], text = text_of(data_set, number, codecs)
            items = list(data_set[number].value or ()) if vrs[tag] == "SQ" else []
        except Exception as error:  # pydicom raises anything for a value that is not of its VR
            raise BadIdentifier("a value is not of the form of its VR", tag) from error
        if vrs[tag] != "SQ":
            _match(here, text, keys)
            continue
        if len(items) > 1:
            raise BadIdentifier("a sequence of more than one item", tag)
        # An empty item asks for the sequence as a whole, like no item (PS3.4 C.2.2.2.6).
        within[tag] = _read(items[0], here, keys) if items and len(items[0]) else None
    return Wanted(vrs, within)


def _match(path: str, text: str, keys: _Keys) -> None:
    if not text.strip(" *"):
        return
    path = canonical(path)
    vr = vr_of_key(path)
    if vr is None:
        keys.unsupported = True
        return
    try:
        keys.matches.append(parse_match(path, vr, text))
    except BadQuery as error:
        raise BadIdentifier(str(error), path.rpartition(".")[2]) from error


def canonical(path: str) -> str:
    """Where an attribute stands in our items, wherever a scanner expects it."""
    if path.startswith(f"{_STEP}.{SPECIMENS}"):
        return path.removeprefix(f"{_STEP}.")
    if path in (_CONTAINER, f"{_STEP}.{_CONTAINER}"):
        return f"{SPECIMENS}.{_CONTAINER}"
    return path


def complete(content: dict[str, Any], ae_title: str) -> dict[str, Any]:
    """An item with all forms in which it can be asked for: a step for no station in
    particular is for the one that asks; containers also where some scanners look."""
    step = dict(content[_STEP]["Value"][0])
    tag = STATION.rpartition(".")[2]
    if not step.get(tag, {}).get("Value"):
        step[tag] = {"vr": "AE", "Value": [ae_title]}
    found = dict(content)
    if SPECIMENS in content:
        step[SPECIMENS] = content[SPECIMENS]
        containers = [item[_CONTAINER] for item in content[SPECIMENS].get("Value", []) if _CONTAINER in item]
        if containers:
            found.setdefault(_CONTAINER, containers[0])
            step.setdefault(_CONTAINER, containers[0])
    found[_STEP] = {"vr": "SQ", "Value": [step]}
    return found


def select(content: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """The item, cut to what was asked for; what it does not have is there without a value."""
    answer: dict[str, Any] = {}
    for tag, vr in wanted.vrs.items():
        element = content.get(tag)
        if element is None:
            answer[tag] = {"vr": vr}
        elif (inner := wanted.within.get(tag)) is not None:
            items = [select(item, inner) for item in element.get("Value", [])]
            answer[tag] = {"vr": "SQ", "Value": items}
        elif tag == _STEP:  # as a whole: without what stands at the top level
            items = [{t: e for t, e in item.items() if t not in (SPECIMENS, _CONTAINER)}
                     for item in element.get("Value", [])]  # fmt: skip
            answer[tag] = {"vr": "SQ", "Value": items}
        else:
            answer[tag] = element
    return answer
