# SPDX-License-Identifier: Apache-2.0
"""``coverslip inspect``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.errors import CannotRead
from gateway.cli.options import as_json

if TYPE_CHECKING:
    from converters.convert import Inspection


@click.command("inspect")
@as_json
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path, dir_okay=False))
def command(as_json: bool, source: Path) -> None:
    """Say what a scanner file is, and what a conversion would copy, re-encode or lose.

    Exit code 30 if no reader takes it; then the reason of every reader is printed.

    Example: coverslip inspect slide.svs
    """
    from converters.convert import inspect
    from converters.errors import ConversionError, DamagedSlide, UnreadableSlide

    if not source.exists():
        raise CannotRead(f"{source}: no such file or folder")
    found = inspect(source)
    click.echo(found.to_json() if as_json else "\n".join(_lines(found)))
    if not found.format:
        claimed = any(why is None for why in found.refusals.values())
        damaged = claimed or "damaged" in found.problem
        raise (DamagedSlide if damaged else UnreadableSlide)(found.problem)
    if found.problem:
        raise ConversionError(found.problem)


def _lines(found: "Inspection") -> list[str]:
    lines = [f"reader {name}: {why or 'takes it'}" for name, why in found.refusals.items()]
    if not found.format:
        return lines
    facts = {
        "format": found.format,
        "scanner": " ".join(part for part in (found.manufacturer, found.model_name) if part),
        "serial number": found.device_serial_number,
        "software": ", ".join(found.software_versions),
        "scanned": found.acquired,
        "objective": _objective(found),
        "regions": ", ".join(found.scenes),
        "channels": ", ".join(found.channels),
        "focal planes": ", ".join(f"{height:g} um" for height in found.focal_planes_um),
        "ICC profile": f"{found.icc_profile_bytes} bytes" if found.icc_profile_bytes else "none",
        "barcode": found.barcode,
        "label text": found.label_text,
    }
    lines += [f"{name}: {value}" for name, value in facts.items() if value]
    for level in found.levels:
        spacing = "" if level.pixel_spacing_mm is None else f", {level.pixel_spacing_mm[1] * 1000:.4g} um"
        absent = f", {level.absent_tiles} absent" if level.absent_tiles else ""
        scene = f"region {level.scene + 1} " if found.scenes else ""
        lines.append(
            f"{scene}level {level.index}: {level.columns} x {level.rows}{spacing}, {level.tiles} tiles of "
            f"{level.tile_columns} x {level.tile_rows}{absent}, {level.codec} {level.photometric}, "
            f"{level.size_bytes} bytes, {level.action}" + (f": {level.reason}" if level.reason else "")
        )
    lines += [
        f"{image.role.lower()}: {image.columns} x {image.rows}, {image.compression}, {image.action}"
        for image in found.images
    ]
    lines += [f"note: {finding}" for finding in found.findings]
    if found.lost:
        lines.append(f"not carried into DICOM: {', '.join(found.lost)}")
    return lines


def _objective(found: "Inspection") -> str:
    power = f"{found.objective_power:g}x" if found.objective_power else ""
    aperture = f"NA {found.numerical_aperture:g}" if found.numerical_aperture else ""
    return ", ".join(filter(None, (power, aperture)))
