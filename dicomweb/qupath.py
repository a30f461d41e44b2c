# SPDX-License-Identifier: Apache-2.0
"""What QuPath's extension for Orthanc asks: pyramids and tiles at Orthanc's addresses, and
the few lists that its dialog chooses from.

UIDs stand where Orthanc has identifiers of its own. Level 0 is the finest.
"""

from dataclasses import replace

from flask import Blueprint, Response, jsonify

from archive.errors import NoSuchInstance, NoSuchSeries, NoSuchStudy, NotFound
from archive.index.query import Level, Query, parse_match
from archive.values import Instance, Pyramid, Rendering
from dicomweb.context import archive, caller, web
from dicomweb.rendered import NEVER_SHOWN
from dicomweb.responses import REVALIDATE, etag_of, single_part
from dicomweb.tiles import Piece, find_pyramid, give, tile_pixels

qupath = Blueprint("qupath", __name__)

_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_SHOWN_OF_STUDY = {"PatientName": "00100010", "StudyDescription": "00081030", "StudyDate": "00080020"}
_SHOWN_OF_SERIES = {"SeriesDescription": "0008103E", "Modality": "00080060"}
_PREVIEW_PIXELS = 2048


@qupath.get("/wsi/pyramids/<uid:series>")
def describe_pyramid(series: str) -> Response:
    """Sizes of a slide's levels and tiles, and of what is imaged in millimetres."""
    pyramid = find_pyramid(series)
    finest = pyramid.levels[0]
    across, down = tile_pixels(pyramid)
    made: dict[str, object] = {
        "ID": series,
        "Resolutions": [finest.columns / level.columns for level in pyramid.levels],
        "Sizes": [[level.columns, level.rows] for level in pyramid.levels],
        "TilesCount": [[-(-level.columns // across), -(-level.rows // down)] for level in pyramid.levels],
        "TilesSizes": [[across, down] for _ in pyramid.levels],
        "TileWidth": across,
        "TileHeight": down,
        "TotalWidth": finest.columns,
        "TotalHeight": finest.rows,
    }
    height, width = pyramid.imaged_volume_mm
    if height and width:
        made |= {"ImagedVolumeWidth": width, "ImagedVolumeHeight": height}
    return jsonify(made)


@qupath.get("/wsi/tiles/<uid:series>/<int:level>/<int:column>/<int:row>")
def give_tile(series: str, level: int, column: int, row: int) -> Response:
    """One tile as JPEG, cut at the image's edges."""
    pyramid = find_pyramid(series)
    return give(pyramid, piece_of(pyramid, level, column, row), "image/jpeg")


def piece_of(pyramid: Pyramid, number: int, column: int, row: int) -> Piece:
    """A tile of a stored level in pixels of the finest. Raises NotFound outside of it."""
    if number >= len(pyramid.levels):
        raise NotFound(f"no level {number}: there are {len(pyramid.levels)}")
    level = pyramid.levels[number]
    across, down = tile_pixels(pyramid)
    left, top = column * across, row * down
    if left >= level.columns or top >= level.rows:
        raise NotFound(f"no tile {column}/{row} in level {number}")
    columns, rows = min(across, level.columns - left), min(down, level.rows - top)
    return Piece(left, top, columns, rows, columns, rows, number)


# ---- what the dialog lists ------------------------------------------------------------


@qupath.get("/system")
def describe_system() -> Response:
    """That a server is here."""
    caller()
    return jsonify({"Name": web().settings.service_name, "Version": web().settings.version})


@qupath.get("/studies")
def list_studies() -> Response:
    """Study Instance UIDs, newest first, as many as a search gives."""
    return jsonify([_text(row, _STUDY) for row in _find(Query(Level.STUDY))])


@qupath.get("/studies/<uid:study>")
def describe_study(study: str) -> Response:
    """Name, description and date of a study, and its series."""
    found = _find(
        Query(Level.STUDY, include=(_SHOWN_OF_STUDY["StudyDescription"],), study_instance_uid=study)
    )
    if not found:
        raise NoSuchStudy(study)
    series = _find(Query(Level.SERIES, study_instance_uid=study))
    return jsonify(
        {
            "ID": study,
            "MainDicomTags": {name: _text(found[0], tag) for name, tag in _SHOWN_OF_STUDY.items()},
            "Series": [_text(row, _SERIES) for row in series],
        }
    )


@qupath.get("/series/<uid:series>")
def describe_series(series: str) -> Response:
    """Description and modality of a series, and its instances."""
    include = (_SHOWN_OF_SERIES["SeriesDescription"],)
    found = _find(Query(Level.SERIES, include=include, series_instance_uid=series))
    if not found:
        raise NoSuchSeries(series)
    instances = _find(Query(Level.INSTANCE, series_instance_uid=series))
    return jsonify(
        {
            "ID": series,
            "MainDicomTags": {name: _text(found[0], tag) for name, tag in _SHOWN_OF_SERIES.items()},
            "Instances": [_text(row, _INSTANCE) for row in instances],
        }
    )


@qupath.get("/instances/<uid:instance>/rendered")
def give_preview(instance: str) -> Response:
    """A picture of a whole instance as PNG, no larger than 2048 pixels; of no label."""
    found = _instance(instance)
    if not NEVER_SHOWN.isdisjoint(found.image_type[2:3]):
        raise NoSuchInstance(instance)
    how = Rendering("image/png", rows=_PREVIEW_PIXELS, columns=_PREVIEW_PIXELS)
    data = archive().rendered(found, 0, how, **caller())
    return single_part([data], len(data), "image/png", etag_of(found.etag, how), REVALIDATE)


@qupath.get("/instances/<uid:instance>/file")
def give_file(instance: str) -> Response:
    """A whole instance as a file."""
    found = _instance(instance)
    stream = archive().open(found, **caller())
    return single_part(
        stream.chunks, stream.length, "application/dicom", etag_of(found.etag, "file"), REVALIDATE
    )


def _instance(uid: str) -> Instance:
    match = parse_match(_INSTANCE, "UI", uid)
    for row in _find(Query(Level.INSTANCE, (match,))):
        return archive().instance(_text(row, _STUDY), _text(row, _SERIES), uid, **caller())
    raise NoSuchInstance(uid)


def _find(query: Query) -> list[dict[str, object]]:
    return archive().find(replace(query, limit=web().settings.results_limit), **caller()).rows


def _text(row: dict[str, object], tag: str) -> str:
    """The first value of an attribute of DICOM JSON as text."""
    match row.get(tag):
        case {"Value": [{"Alphabetic": str(name)}, *_]}:
            return name
        case {"Value": [value, *_]}:
            return str(value)
    return ""
