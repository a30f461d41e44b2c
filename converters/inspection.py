# SPDX-License-Identifier: Apache-2.0
"""A look at a file: what it is, and what a conversion would copy, re-encode or lose."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path

from converters.errors import ConversionError, UnreadableSlide
from converters.probe import Probe
from converters.registry import refusals
from converters.slide import Role, Slide
from converters.workshop import Opened, Workshop
from converters.writer.born import ImagePixels, image_action, images_left_out, images_of
from converters.writer.coding import CodingChoice
from converters.writer.plan import PlannedLevel, plan
from converters.writer.survey import Survey, survey


@dataclass(frozen=True)
class InspectedLevel:
    """A level as it would be converted. ``action`` is "copied", "re-encoded without loss",
    "re-encoded with loss" or, for one that the scanner did not write, "computed"."""

    scene: int
    index: int
    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    tiles: int
    absent_tiles: int
    codec: str
    photometric: str
    transfer_syntax_uid: str
    pixel_spacing_mm: tuple[float, float] | None
    size_bytes: int
    action: str
    reason: str


@dataclass(frozen=True)
class InspectedImage:
    role: str
    rows: int
    columns: int
    compression: str
    action: str


@dataclass(frozen=True)
class Inspection:
    """What a file is. ``refusals`` says why each reader refused (None: it claims it);
    ``lost`` names what DICOM will not carry, ``problem`` why it cannot be converted."""

    format: str
    refusals: dict[str, str | None]
    problem: str
    manufacturer: str
    model_name: str
    device_serial_number: str
    software_versions: tuple[str, ...]
    acquired: str
    objective_power: float | None
    numerical_aperture: float | None
    origin_mm: tuple[float, float] | None
    icc_profile_bytes: int
    barcode: str
    label_text: str
    channels: tuple[str, ...]
    focal_planes_um: tuple[float, ...]
    scenes: tuple[str, ...]
    levels: tuple[InspectedLevel, ...]
    images: tuple[InspectedImage, ...]
    findings: tuple[str, ...]
    lost: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


_NOTHING = Inspection("", {}, "", "", "", "", (), "", None, None, None, 0, "", "", (), (), (), (), (), (), ())


def inspect(path: Path, coding: CodingChoice | None = None, workshop: Workshop | None = None) -> Inspection:
    """What ``path`` is and what a conversion with ``coding`` would do; never raises
    ConversionError but for a path that cannot be read at all (UnreadableSlide)."""
    probe = Probe(path)
    try:
        answers = refusals(probe)
    finally:
        probe.close()
    own = None if workshop is not None else Workshop()
    try:
        with (workshop or own or Workshop()).open(path) as opened:
            return _inspected(opened, answers, coding or CodingChoice())
    except ConversionError as error:
        problem = error.reason if isinstance(error, UnreadableSlide) else str(error)
        return replace(_NOTHING, refusals=answers, problem=problem)
    finally:
        if own is not None:
            own.close()


def what_is_made_again(
    slide: Slide, surveys: Mapping[tuple[int, int], Survey], coding: CodingChoice
) -> list[str]:
    """One line for each reason why levels are not copies, before anything runs."""
    lines: dict[str, list[str]] = {}
    for one in plan(slide, surveys):
        if one.copied:
            continue
        what = "not written by the scanner, computed" if one.computed else f"{one.why_not_copied}, re-encoded"
        scene = f"{one.scene.index}." if len(slide.scenes) > 1 else ""
        lines.setdefault(f"{what} {coding.words_for(one)}", []).append(f"{scene}{one.index}")
    return [f"level {', '.join(levels)}: {reason}" for reason, levels in lines.items()]


def _inspected(opened: Opened, answers: dict[str, str | None], coding: CodingChoice) -> Inspection:
    slide = opened.slide
    findings = list(slide.findings)
    problem = ""
    surveys: dict[tuple[int, int], Survey] = {}
    for scene in slide.scenes:
        for level in scene.levels:
            try:
                surveys[scene.index, level.index] = found = survey(level, slide.sources)
                findings += found.findings
            except ConversionError as error:
                problem = problem or str(error)
    whole = len(surveys) == sum(len(scene.levels) for scene in slide.scenes)
    levels = [_inspected_level(one, coding) for one in plan(slide, surveys)] if whole else []
    scan = slide.scan
    barcode = scan.barcode
    pixels: Sequence[ImagePixels] = ()
    try:
        pixels = images_of(slide, opened.bench)
        findings += images_left_out(slide, pixels)
        for number, (image, why) in enumerate(zip(slide.associated, pixels, strict=True)):
            if image.role is Role.LABEL and not (barcode or isinstance(why, ConversionError)):
                barcode = opened.bench.barcodes(number)
    except ConversionError as error:
        problem = problem or str(error)
    first = slide.scenes[0]
    if first.levels[0].pixel_spacing_mm is None:
        problem = problem or "no pixel size (MPP) stated: give pixel_spacing_mm in the metadata"
    path = first.optical_paths[0]
    return Inspection(
        format=slide.format,
        refusals=answers,
        problem=problem,
        manufacturer=scan.manufacturer,
        model_name=scan.model_name,
        device_serial_number=scan.device_serial_number,
        software_versions=scan.software_versions,
        acquired=scan.acquired.isoformat() if scan.acquired else "",
        objective_power=path.objective_power,
        numerical_aperture=path.numerical_aperture,
        origin_mm=first.origin_mm,
        icc_profile_bytes=len(path.icc_profile),
        barcode=barcode,
        label_text=scan.label_text,
        channels=tuple(one.description or one.identifier for one in first.optical_paths)
        if len(first.optical_paths) > 1
        else (),
        focal_planes_um=tuple(first.focal_planes_um) if len(first.focal_planes_um) > 1 else (),
        scenes=tuple(scene.label or f"region {scene.index + 1}" for scene in slide.scenes)
        if len(slide.scenes) > 1
        else (),
        levels=tuple(levels),
        images=tuple(
            InspectedImage(
                one.role.value,
                one.rows,
                one.columns,
                one.compression,
                "left out" if isinstance(why, ConversionError) else image_action(one),
            )
            for one, why in zip_longest(slide.associated, pixels)
        ),
        findings=tuple(findings),
        lost=tuple(sorted(set(scan.properties) - CARRIED)),
    )


CARRIED = frozenset(
    {
        "appmag", "mpp", "scanscope id", "scannertype", "scanner type", "objective na", "na",
        "date", "time", "time zone", "left", "top", "barcode",
    }
)  # fmt: skip
"""Keys of vendors' descriptions whose values get into headers; the rest stay in the original."""


def _inspected_level(one: PlannedLevel, coding: CodingChoice) -> InspectedLevel:
    level, first = one.level, one.survey.first
    if one.copied:
        copied = one.survey.copied
        codec, colours, uid = copied.codestream.format, copied.photometric, copied.transfer_syntax_uid
        action = "copied"
    else:
        chosen = coding.of_level(one)
        codec = first.codestream.format if first is not None and not one.computed else "pixels"
        colours, uid = chosen.photometric(level.pixel_type.samples_per_pixel), chosen.transfer_syntax_uid
        action = "computed" if one.computed else f"re-encoded {coding.loss}"
    own = level.pixel_spacing_mm
    factor = float(2**one.steps)
    return InspectedLevel(
        scene=one.scene.index,
        index=one.index,
        rows=one.rows,
        columns=one.columns,
        tile_rows=level.tile_rows,
        tile_columns=level.tile_columns,
        tiles=one.number_of_tiles,
        absent_tiles=0 if one.computed else int(level.tiles.absent.sum()),
        codec=codec,
        photometric=colours,
        transfer_syntax_uid=uid,
        pixel_spacing_mm=None if own is None else (own[0] * factor, own[1] * factor),
        size_bytes=0 if one.computed else int(one.survey.lengths.sum()) or level.tiles.size_bytes,
        action=action,
        reason=one.why_not_copied,
    )
