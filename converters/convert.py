# SPDX-License-Identifier: Apache-2.0
"""Scanner files to DICOM files, and a look at what a conversion would do."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from converters.errors import BadMetadata, ConversionError, UnreadableSlide
from converters.probe import Probe
from converters.registry import open_slide, refusals
from converters.slide import Level, Progress, Role, Slide
from converters.writer.born import DicomInstance, born_instances
from converters.writer.files import write_files
from converters.writer.metadata import Metadata, read_metadata
from converters.writer.survey import survey
from converters.writer.uids import PUBLIC_SECRET

__all__ = [
    "ConvertOptions",
    "Converted",
    "InspectedImage",
    "InspectedLevel",
    "Inspection",
    "convert",
    "inspect",
    "open_slide",
    "source_digest",
]  # fmt: skip


@dataclass(frozen=True)
class ConvertOptions:
    """``levels``: indexes to write (0 is the finest), None for all with label, overview
    and thumbnail. ``secret``: the site's, so that UIDs equal those of its archive."""

    levels: tuple[int, ...] | None = None
    metadata: Metadata | None = None
    verify: bool = False
    secret: bytes = PUBLIC_SECRET


@dataclass(frozen=True)
class Converted:
    """What one slide became."""

    source: Path
    folder: Path
    files: tuple[Path, ...]
    instances: tuple[DicomInstance, ...]
    findings: tuple[str, ...]
    verified_tiles: int = 0


def source_digest(slide: Slide) -> bytes:
    """SHA-256 of the original; of several files, of the sorted manifest of name, size and
    SHA-256 (DESIGN 4), one ``name\\0size\\0hex\\n`` each."""
    digests = []
    for source in slide.sources:
        with source.path.open("rb") as file:
            digests.append((source.path.name, source.size_bytes, hashlib.file_digest(file, "sha256")))
    if len(digests) == 1:
        return digests[0][2].digest()
    lines = sorted(f"{name}\0{size}\0{digest.hexdigest()}\n" for name, size, digest in digests)
    return hashlib.sha256("".join(lines).encode()).digest()


def convert(
    paths: Sequence[Path],
    out_dir: Path,
    options: ConvertOptions | None = None,
    progress: Progress | None = None,
) -> list[Converted]:
    """Each slide into its own folder ``out_dir/<file name without ending>``.

    All or nothing per slide, one after another. Raises ConversionError (TargetExists,
    UnreadableSlide, …) at the first slide that fails; earlier ones stay written.
    """
    options = options or ConvertOptions()
    return [_convert(path, out_dir / path.stem, options, progress) for path in paths]


def _convert(path: Path, folder: Path, options: ConvertOptions, progress: Progress | None) -> Converted:
    from converters.verify import verify_files  # only who asks pays for its imports

    with open_slide(path) as slide, tempfile.TemporaryDirectory(prefix="coverslip-") as scratch:
        known = {level.index for scene in slide.scenes for level in scene.levels}
        if options.levels is not None and not known.issuperset(options.levels):
            raise BadMetadata(f"the slide has levels 0 to {max(known)} only")
        instances = born_instances(
            slide,
            source_digest=source_digest(slide),
            secret=options.secret,
            metadata=options.metadata,
            scratch=Path(scratch),
            levels=options.levels,
        )
        files = write_files(instances, folder, progress)
        verified = verify_files(slide, instances, files) if options.verify else 0
    return Converted(path, folder, tuple(files), tuple(instances), tuple(slide.findings), verified)


@dataclass(frozen=True)
class InspectedLevel:
    """A level as it would be converted. ``action`` is "copied" or "re-encoded without loss"."""

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
    origin_mm: tuple[float, float] | None
    icc_profile_bytes: int
    barcode: str
    label_text: str
    levels: tuple[InspectedLevel, ...]
    images: tuple[InspectedImage, ...]
    findings: tuple[str, ...]
    lost: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


_NOTHING = Inspection("", {}, "", "", "", "", (), "", None, None, 0, "", "", (), (), (), ())


def inspect(path: Path) -> Inspection:
    """What ``path`` is and what a conversion would do; never raises ConversionError but
    for a path that cannot be read at all (UnreadableSlide)."""
    from dataclasses import replace

    probe = Probe(path)
    try:
        answers = refusals(probe)
    finally:
        probe.close()
    try:
        slide = open_slide(path)
    except ConversionError as error:
        problem = error.reason if isinstance(error, UnreadableSlide) else str(error)
        return replace(_NOTHING, refusals=answers, problem=problem)
    with slide:
        return _inspected(slide, answers)


def _inspected(slide: Slide, answers: dict[str, str | None]) -> Inspection:
    from converters.barcode import read_barcodes

    findings = list(slide.findings)
    problem = ""
    levels = []
    for scene in slide.scenes:
        for level in scene.levels:
            try:
                levels.append(_inspected_level(slide, scene.index, level, findings))
            except ConversionError as error:
                problem = problem or str(error)
    barcode = slide.scan.barcode
    label = slide.associated_image(Role.LABEL)
    if label is not None and not barcode:
        try:
            barcode = read_barcodes(label.read())
        except ConversionError as error:
            problem = problem or str(error)
    finest = slide.scenes[0].levels[0]
    if finest.pixel_spacing_mm is None:
        problem = problem or "no pixel size (MPP) stated: give pixel_spacing_mm in the metadata"
    path = slide.scenes[0].optical_paths[0]
    scan = slide.scan
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
        origin_mm=slide.scenes[0].origin_mm,
        icc_profile_bytes=len(path.icc_profile),
        barcode=barcode,
        label_text=scan.label_text,
        levels=tuple(levels),
        images=tuple(
            InspectedImage(
                image.role.value, image.rows, image.columns, image.compression, "decoded, kept without loss"
            )
            for image in slide.associated
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


def _inspected_level(slide: Slide, scene: int, level: Level, findings: list[str]) -> InspectedLevel:
    found = survey(level, slide.sources[level.tiles.source].path)
    findings += found.findings
    stream = found.first.codestream
    return InspectedLevel(
        scene=scene,
        index=level.index,
        rows=level.rows,
        columns=level.columns,
        tile_rows=level.tile_rows,
        tile_columns=level.tile_columns,
        tiles=len(level.tiles),
        absent_tiles=int(level.tiles.absent.sum()),
        codec=stream.format,
        photometric=found.first.photometric,
        transfer_syntax_uid=found.first.transfer_syntax_uid,
        pixel_spacing_mm=level.pixel_spacing_mm,
        size_bytes=int(found.lengths.sum()),
        action="re-encoded without loss" if found.why_not_copied else "copied",
        reason=found.why_not_copied,
    )


def metadata_file(path: Path) -> Metadata:
    """The metadata of a JSON file. Raises BadMetadata."""
    try:
        return read_metadata(path.read_bytes())
    except OSError as error:
        raise BadMetadata(f"the metadata file cannot be read: {error.strerror}") from None
