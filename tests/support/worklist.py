# SPDX-License-Identifier: Apache-2.0
"""Worklist items as a laboratory would order them: slides of animals, with their preparation."""

import zlib
from typing import Any

from archive.access import EVERYTHING
from archive.index.matching import parse_match
from archive.index.worklist import WorklistQuery, vr_of_key
from archive.service import Archive
from archive.worklist import NewItem, Scheduled, WorklistItem
from tests.support.archives import ASK, TESTER

STATION = "SCANNER1"
STUDY = "2.25.1001"


def element(vr: str, *values: object) -> dict[str, Any]:
    """An attribute in the DICOM JSON model; without values it is empty."""
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def code(value: str, scheme: str, meaning: str) -> dict[str, Any]:
    return {
        "00080100": element("SH", value), "00080102": element("SH", scheme),
        "00080104": element("LO", meaning),
    }  # fmt: skip


def specimen(container: str, number: int = 1) -> dict[str, Any]:
    """An item of ScheduledSpecimenSequence: a glass slide with one stained section."""
    stain = {
        "0040A040": element("CS", "CODE"),
        "0040A043": element("SQ", code("424361007", "SCT", "Using substance")),
        "0040A168": element("SQ", code("12710003", "SCT", "hematoxylin stain")),
    }
    return {
        "00400512": element("LO", container),
        "00400513": element("SQ"),
        "00400518": element("SQ", code("433466003", "SCT", "Microscope slide")),
        "00400560": element(
            "SQ",
            {
                "00400551": element("LO", f"{container}-{number}"),
                "00400554": element("UI", f"2.25.77{number}{zlib.crc32(container.encode())}"),
                "00400562": element("SQ"),
                "00400600": element("LO", "Leber, Männchen"),
                "00400610": element("SQ", {"00400612": element("SQ", stain)}),
            },
        ),
    }


def item(number: int = 1, **changes: dict[str, Any]) -> dict[str, Any]:
    """A worklist item; ``changes`` by ``t`` and tag, of the step by ``s`` and tag."""
    step = {
        "00080060": element("CS", "SM"),
        "00400001": element("AE", STATION),
        "00400002": element("DA", "20261124"),
        "00400003": element("TM", f"{8 + number % 9:02d}0000"),
        "00400006": element("PN"),
        "00400007": element("LO", "H&E slide"),
        "00400008": element("SQ", code("SCAN20", "99LAB", "20x, one plane")),
        "00400009": element("SH", f"STEP{number}"),
    }
    found = {
        "00080050": element("SH", f"P26-{number}"),
        "00080051": element("SQ", {"00400031": element("UT", "LAB")}),
        "00080090": element("PN", {"Alphabetic": "Virchow^Rudolf"}),
        "00100010": element("PN", {"Alphabetic": f"Müller^Rat {number}"}),
        "00100020": element("LO", f"A-{number}"),
        "00100021": element("LO", "FARM"),
        "00100030": element("DA", "20260101"),
        "00100040": element("CS", "M"),
        "00102201": element("LO", "Rattus norvegicus"),
        "00100212": element("UC", "Sprague-Dawley"),
        "0020000D": element("UI", f"{STUDY}{number}"),
        "00321060": element("LO", "Histology"),
        "00401001": element("SH", f"RP{number}"),
        "00400500": element("SQ", specimen(f"S26-{number}-A")),
    }
    for name, value in changes.items():
        (step if name[0] == "s" else found)[name[1:]] = value
    found["00400100"] = element("SQ", step)
    return found


def schedule(archive: Archive, *items: dict[str, Any], **options: Any) -> list[Scheduled]:
    new = [NewItem(one) for one in items]
    return archive.schedule(new, **{"source": "test", **ASK, **options})


def query(stations: tuple[str, ...] | None = None, **keys: str) -> WorklistQuery:
    """Keys by ``k`` and dotted tags with an underscore for each dot."""
    matches = []
    for name, text in keys.items():
        path = name[1:].replace("_", ".")
        vr = vr_of_key(path)
        assert vr is not None, path
        matches.append(parse_match(path, vr, text))
    return WorklistQuery(tuple(matches), stations)


def found(archive: Archive, stations: tuple[str, ...] | None = None, **keys: str) -> list[WorklistItem]:
    return list(archive.worklist(query(stations, **keys), principal=TESTER, scope=EVERYTHING))


def steps(items: list[WorklistItem]) -> list[str]:
    """Their ScheduledProcedureStepIDs."""
    return [one.content["00400100"]["Value"][0]["00400009"]["Value"][0] for one in items]


def performed(*numbers: int, **changes: dict[str, Any]) -> dict[str, Any]:
    """What a scanner sends when it begins with items of :func:`item`; ``changes`` by ``t``
    and tag."""
    scheduled = [
        {
            "00080050": element("SH", f"P26-{number}"),
            "00081110": element("SQ"),
            "0020000D": element("UI", f"{STUDY}{number}"),
            "00321060": element("LO", "Histology"),
            "00400007": element("LO", "H&E slide"),
            "00400008": element("SQ"),
            "00400009": element("SH", f"STEP{number}"),
            "00401001": element("SH", f"RP{number}"),
        }
        for number in numbers
    ]
    found = {
        "00080060": element("CS", "SM"),
        "00081032": element("SQ"),
        "00100010": element("PN", {"Alphabetic": "Müller^Rat"}),
        "00100020": element("LO", f"A-{numbers[0]}"),
        "00400241": element("AE", STATION),
        "00400244": element("DA", "20261124"),
        "00400245": element("TM", "1030"),
        "00400250": element("DA"),
        "00400251": element("TM"),
        "00400252": element("CS", "IN PROGRESS"),
        "00400253": element("SH", "PPS1"),
        "00400270": element("SQ", *scheduled),
        "00400340": element("SQ"),
    }
    return found | {name[1:]: value for name, value in changes.items()}


def performed_end(status: str, **changes: dict[str, Any]) -> dict[str, Any]:
    """What it sends when it has ended."""
    series = {
        "0008103E": element("LO", "Whole slide"),
        "00081050": element("PN"),
        "00081070": element("PN"),
        "00081140": element("SQ"),
        "00181030": element("LO", "20x"),
        "0020000E": element("UI", "2.25.500"),
    }
    found = {
        "00400250": element("DA", "20261124"),
        "00400251": element("TM", "1040"),
        "00400252": element("CS", status),
        "00400340": element("SQ", series),
    }
    return found | {name[1:]: value for name, value in changes.items()}
