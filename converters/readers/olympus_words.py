# SPDX-License-Identifier: Apache-2.0
"""What the tags of an Olympus VSI mean: image stacks, their channels, the scan.

A stack is a volume of tag 2001 below 2000: its frames (2002, one for each external file)
with the image's boundary, its properties (2005) with name, type, pixel size and microscope,
and a description of each dimension (2007, its index counted from the third coordinate of the
.ets), whose meaning is a number: 1 focal plane, 2 time, 3 wavelength, 4 channel. Lengths are
in µm, exposures in µs, times in seconds since 1970 (UTC).

Sources: slideio, drivers/vsi (BSD-3); Bio-Formats' cellSens reader (facts).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from converters.errors import DamagedSlide
from converters.readers.olympus_tags import Node, properties
from converters.slide import Illumination, OpticalPath, Scan

COLLECTION, IMAGE, FRAME, STACK, DIMENSION, CHANNEL = 2000, 2001, 2002, 2005, 2007, 2008
EXTERNAL, HAS_EXTERNAL, BOUNDARY, PAGE = 2018, 20005, 2053, 2016
NAME, KIND, SPACING, MICROSCOPE, CREATED = 2030, 2074, 2019, 2043, 2015
MEANING, Z_INCREMENT, CHANNEL_NAME, WAVELENGTH, EXPOSURE = 2023, 2013, 2419, 2417, 100002
COLOUR, LOOK_UP, TRANSMISSION = 2008, 2004, 20035
POWER, APERTURE = 120060, 120061
DEVICE_NAME, DEVICE_ID, DEVICE_SUBTYPE, DEVICE_MODEL, MANUFACTURER = 120116, 120129, 120130, 120132, 120133
BARCODE = 120635
PRODUCTS = ((24, 25), (34, 35), (17, 18))
"""Tags of a program's name and version."""
FOCAL_PLANE, TIME, LAMBDA, CHANNELS = 1, 2, 3, 4
STARTS = ((2012, FOCAL_PLANE), (2013, FOCAL_PLANE), (2100, TIME), (2016, TIME), (2039, LAMBDA))
"""Tags that tell a dimension's meaning in older files, which do not name it."""
MICROSCOPE_FRAME = 40500
DEFAULT_IMAGE, OVERVIEW, EXTENDED_FOCUS, MACRO = 0, 1, 64, 256
KINDS = {
    DEFAULT_IMAGE: "an image", OVERVIEW: "an overview", 2: "a sample mask", 4: "a focus image",
    8: "a sharpness map", 16: "a height map", 32: "a texture map", EXTENDED_FOCUS: "an extended focus image",
    MACRO: "a macro image", 1024: "a map of focus points",
}  # fmt: skip
MAX_STACKS = 200


@dataclass(frozen=True, eq=False)
class Stack:
    """``axes`` maps a meaning to the place of its coordinate in the .ets; ``external`` is how
    many .ets files belong to the stack; ``page`` the TIFF page that shows it, if any."""

    name: str
    kind: int
    rows: int
    columns: int
    external: int
    page: int | None
    pixel_spacing_mm: tuple[float, float] | None
    axes: dict[int, int]
    channels: Sequence[Node]
    z_increment_um: float | None
    acquired: datetime | None
    microscope: Node | None
    properties: Node


def stacks(root: Node) -> list[Stack]:
    """Every image stack that says how large it is, or which page shows it. Raises
    DamagedSlide."""
    found = []
    for collection in root.all(COLLECTION):
        for image in collection.all(IMAGE):
            stack = _stack(image)
            if stack is not None:
                found.append(stack)
    if len(found) > MAX_STACKS:
        raise DamagedSlide(f"the file has more than {MAX_STACKS} image stacks")
    return found


def _stack(image: Node) -> Stack | None:
    own = next(iter(image.all(STACK)), Node(STACK))
    frames = [frame for frame in image.all(FRAME) if frame.all(EXTERNAL) or frame.all(PAGE)]
    external = [frame for frame in frames if _is_external(frame)]
    page = next((node.second for frame in frames for node in frame.all(PAGE)), None)
    if not external and page is None:
        return None  # vector layers and the like
    boundary = next((found for frame in frames if len(found := frame.numbers(BOUNDARY)) == 4), [])
    columns, rows = (int(value) for value in boundary[2:]) if boundary else (0, 0)
    if external and not (0 < rows < 2**31 and 0 < columns < 2**31):
        return None
    increment = None
    axes: dict[int, int] = {}
    channels: list[Node] = []
    for dimension in image.all(DIMENSION):
        meaning = dimension.number(MEANING)
        if meaning is None:
            meaning = next((kind for tag, kind in STARTS if dimension.find(tag) is not None), None)
        if meaning is None and any(map(_describes_channel, dimension.all(CHANNEL))):
            meaning = CHANNELS
        if meaning is None or dimension.second is None:
            continue
        axes[int(meaning)] = dimension.second
        if int(meaning) == FOCAL_PLANE:
            increment = dimension.number(Z_INCREMENT)
        elif int(meaning) in (CHANNELS, LAMBDA) and not channels:
            channels = [node for node in dimension.all(CHANNEL) if _describes_channel(node)]
    kind = own.number(KIND)
    return Stack(
        name=own.text(NAME),
        kind=int(kind) if kind is not None else DEFAULT_IMAGE,
        rows=rows,
        columns=columns,
        external=len(external),
        page=page,
        pixel_spacing_mm=_spacing(own.numbers(SPACING)),
        axes=axes,
        channels=sorted(channels, key=lambda node: node.second or 0),
        z_increment_um=increment,
        acquired=_time(own.number(CREATED)),
        microscope=own.find(MICROSCOPE),
        properties=own,
    )


def _is_external(frame: Node) -> bool:
    return any(bool(node.number(HAS_EXTERNAL)) for node in frame.all(EXTERNAL))


def _describes_channel(node: Node) -> bool:
    return node.second is not None and any(
        node.find(tag) is not None for tag in (CHANNEL_NAME, WAVELENGTH, EXPOSURE)
    )


def _spacing(values: Sequence[float]) -> tuple[float, float] | None:
    """(Between rows, between columns) from µm (x, y)."""
    if len(values) != 2 or not all(0.005 <= value <= 1000 for value in values):
        return None
    return values[1] / 1000, values[0] / 1000


def _time(seconds: float | None) -> datetime | None:
    if seconds is None or not 631_152_000 < seconds < 4_102_444_800:  # 1990 to 2100
        return None
    return datetime.fromtimestamp(seconds, UTC)


def optical_paths(stack: Stack, count: int, samples: int) -> list[OpticalPath]:
    """One for each of ``count`` channels; identifiers are given by the caller."""
    scope = stack.microscope or stack.properties
    power, aperture = scope.number(POWER), scope.number(APERTURE)
    paths = []
    for number in range(count):
        node = next((node for node in stack.channels if node.second == number), Node(CHANNEL))
        if count == len(stack.channels) and node.second is None:
            node = stack.channels[number]
        exposure, emission = node.number(EXPOSURE), node.number(WAVELENGTH)
        if exposure is None:
            exposure = stack.properties.number(EXPOSURE)
        paths.append(
            OpticalPath(
                description=node.text(CHANNEL_NAME),
                objective_power=power if power is not None and 0 < power <= 200 else None,
                numerical_aperture=aperture if aperture is not None and 0 < aperture <= 2 else None,
                illumination=_illumination(node, emission, samples),
                emission_nm=emission if emission is not None and 200 <= emission <= 2000 else None,
                exposure_ms=exposure / 1000 if exposure is not None and 0 < exposure < 1e9 else None,
                display_rgb=_colour(node) if samples == 1 else None,
            )
        )
    return paths


def _illumination(channel: Node, emission: float | None, samples: int) -> Illumination:
    """Colour is brightfield; grey is fluorescence unless the channel says transmission."""
    if samples == 3 or channel.number(TRANSMISSION) == 1:
        return Illumination.BRIGHTFIELD
    return Illumination.EPIFLUORESCENCE


def _colour(channel: Node) -> tuple[int, int, int] | None:
    for tag in (COLOUR, LOOK_UP):
        node = channel.find(tag)
        for inner in node.walk() if node is not None else ():
            if isinstance(inner.value, tuple) and len(inner.value) == 3:
                red, green, blue = (int(value) for value in inner.value)
                if all(0 <= value <= 255 for value in (red, green, blue)):
                    return red, green, blue
    return None


def scan(root: Node, main: Stack, software: str) -> Scan:
    """``software`` stands in where the tags name no program."""
    programs = []
    document = Node(-1, children=[node for node in root.children if node.tag != COLLECTION])
    for name_tag, version_tag in PRODUCTS:
        name, version = document.text(name_tag), document.find(version_tag)
        if name:
            programs.append(f"{name} {version.value}" if version and version.value else name)
            break
    device = _device(main.microscope or main.properties)
    return Scan(
        manufacturer=device.text(MANUFACTURER),
        model_name=device.text(DEVICE_MODEL) or device.text(DEVICE_NAME),
        device_serial_number=device.text(DEVICE_ID),
        software_versions=tuple(programs) or ((software,) if software else ()),
        acquired=main.acquired,
        barcode=root.text(BARCODE),
        properties=properties(root),
    )


def _device(scope: Node) -> Node:
    """The microscope's own node among its devices (camera, stage, objective...)."""
    holders = [node for node in scope.walk() if any(child.tag == DEVICE_SUBTYPE for child in node.children)]
    for node in holders:
        if node.number(DEVICE_SUBTYPE) == MICROSCOPE_FRAME:
            return node
    return Node(MICROSCOPE)
