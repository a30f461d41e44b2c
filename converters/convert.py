# SPDX-License-Identifier: Apache-2.0
"""Scanner files to DICOM files."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from converters.errors import BadMetadata, DamagedSlide
from converters.inspection import (
    InspectedImage,
    InspectedLevel,
    Inspection,
    inspect,
    what_is_made_again,
)
from converters.registry import open_slide
from converters.slide import Progress, Role, Slide
from converters.workshop import DEFAULT_LIMITS, Limits, Workshop
from converters.writer.born import (
    DicomInstance,
    ImagePixels,
    Look,
    born_instances,
    images_left_out,
    images_of,
    look_at,
)
from converters.writer.coding import DEFAULT_CODING, CodingChoice
from converters.writer.concatenation import PartLimit, concatenated
from converters.writer.dual_tiff import why_not
from converters.writer.early import NONE_EARLY, EarlyLevels, early_levels
from converters.writer.files import PartialFolder, file_name, scratch_beside
from converters.writer.following import Following, followed
from converters.writer.metadata import Metadata, read_metadata
from converters.writer.passage import Onlooker, digest_of, pass_by
from converters.writer.plan import MAX_LEVELS, plan
from converters.writer.survey import Survey, expected_survey
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
    and thumbnail. ``coding``: the form of frames that cannot be copied. ``secret``: the
    site's, so that UIDs equal those of its archive. ``part_limit``: levels that exceed it
    become concatenations. ``series_per_region``: each scene is a series of its own.
    ``dual_tiff``: levels are TIFF files besides (see ``writer.dual_tiff``). With any of
    these the files are no longer those that the archive serves. ``limits``: of the
    processes that decode."""

    levels: tuple[int, ...] | None = None
    metadata: Metadata | None = None
    verify: bool = False
    secret: bytes = PUBLIC_SECRET
    coding: CodingChoice = DEFAULT_CODING
    part_limit: PartLimit | None = None
    series_per_region: bool = False
    dual_tiff: bool = False
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class Converted:
    """What one slide became."""

    source: Path
    folder: Path
    files: tuple[Path, ...]
    instances: tuple[DicomInstance, ...]
    findings: tuple[str, ...]
    verified_tiles: int = 0
    encoded_again: tuple[str, ...] = ()  # a line for each reason why levels are no copies


def source_digest(slide: Slide) -> bytes:
    """SHA-256 of the original; of several files, of their manifest (see ``digest_of``)."""
    return digest_of(pass_by(slide, []))


def convert(
    paths: Sequence[Path],
    out_dir: Path,
    options: ConvertOptions | None = None,
    progress: Progress | None = None,
    workshop: Workshop | None = None,
) -> list[Converted]:
    """Each slide into its own folder ``out_dir/<file name without ending>``.

    All or nothing per slide, one after another, worked on in ``workshop`` (one of its own
    by default). Raises ConversionError (TargetExists,
    UnreadableSlide, …) at the first slide that fails; earlier ones stay written.
    """
    options = options or ConvertOptions()
    with ExitStack() as stack:
        if workshop is None:
            workshop = stack.enter_context(Workshop(options.limits))
        return [_convert(path, out_dir / path.stem, options, workshop, progress) for path in paths]


def _convert(
    path: Path, folder: Path, options: ConvertOptions, workshop: Workshop, progress: Progress | None
) -> Converted:
    from converters.verify import verify_files  # only who asks pays for its imports

    with ExitStack() as stack:
        workshop.start()  # its libraries load beside what comes first
        at_first = _state(path)
        opened = stack.enter_context(workshop.open(path))
        scratch = stack.enter_context(scratch_beside(folder))
        slide, bench = opened.slide, opened.bench
        before = _states(slide)
        if at_first not in before:
            raise DamagedSlide("the slide's file changed while it was opened")
        target = stack.enter_context(PartialFolder(folder, progress, dual_tiff=options.dual_tiff))
        # the levels that are missing are made while the slide's files pass by
        beside = stack.enter_context(ThreadPoolExecutor(1, "beside"))
        whole = options.levels is None
        making = beside.submit(early_levels, slide, bench, options.coding, scratch) if whole else None
        pixels: Sequence[ImagePixels] | None = None

        def made(
            look: Look, digest: bytes, levels: Sequence[int] | None, early: EarlyLevels = NONE_EARLY
        ) -> list[DicomInstance]:
            instances = born_instances(
                slide, source_digest=digest, secret=options.secret, metadata=options.metadata,
                scratch=scratch, levels=levels, look=look, bench=bench, coding=options.coding,
                progress=progress, series_per_region=options.series_per_region, early=early.made,
            )  # fmt: skip
            return instances if options.part_limit is None else concatenated(instances, options.part_limit)

        following, expected = Following(slide), _expected(slide)
        onlookers: list[Onlooker] = [following]
        if expected:
            everywhere = min(len(scene.levels) for scene in slide.scenes)  # below, some are computed
            copied = sorted(set(range(everywhere)) & set(options.levels or range(MAX_LEVELS)))
            pixels = images_of(slide, bench)
            likely = made(Look(expected, pixels), bytes(32), copied)
            onlookers += target.write_ahead(likely, slide)
        digest = digest_of(pass_by(slide, onlookers, target.passing(slide)))
        look = look_at(slide, bench, following.surveys(), pixels)
        planned = plan(slide, look.surveys)
        known = {one.index for one in planned}
        if options.levels is not None and not known.issuperset(options.levels):
            raise BadMetadata(f"the slide has levels 0 to {max(known)} only")
        if making is not None:
            ours = {one.index for one in planned if not one.copied}
            target.write(made(look, digest, sorted(known - ours)))
        instances = made(look, digest, options.levels, making.result() if making else NONE_EARLY)
        written = target.write(instances)
        verified = verify_files(slide, instances, written, bench) if options.verify else 0
        if _states(slide) != before:
            raise DamagedSlide("the slide's file changed while it was read")
        files = target.finish(instances)
        findings = [*slide.findings, *(text for found in look.surveys.values() for text in found.findings)]
        if options.levels is None:
            findings += images_left_out(slide, look.pixels)
        if options.dual_tiff:
            findings += _not_tiff(instances)
        again = what_is_made_again(slide, look.surveys, options.coding)
    return Converted(path, folder, tuple(files), tuple(instances), tuple(findings), verified, tuple(again))


def _expected(slide: Slide) -> Mapping[tuple[int, int], Survey]:
    """What the look at every tile will find, by all that can be known from a few of them;
    empty where some level's tiles cannot be copied, or do not pass by one after another."""
    found = {}
    for scene in slide.scenes:
        for level in scene.levels:
            expected = expected_survey(level, slide.sources) if followed(level) else None
            if expected is None:
                return {}
            found[scene.index, level.index] = expected
    return found


def _states(slide: Slide) -> list[tuple[int, int, int] | None]:
    """Inode, size and time of each of a slide's files."""
    return [_state(source.path) for source in slide.sources]


def _state(path: Path) -> tuple[int, int, int] | None:
    """None where nothing is there: that is told by who opens it."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _not_tiff(instances: Sequence[DicomInstance]) -> Iterator[str]:
    for instance in instances:
        if instance.role is Role.VOLUME and instance.part < 2:  # once for all parts
            why = why_not(instance)
            if why:
                level = file_name(replace(instance, part=0)).removesuffix(".dcm")
                yield f"{level} is no TIFF: {why}"


def metadata_file(path: Path) -> Metadata:
    """The metadata of a JSON file. Raises BadMetadata."""
    try:
        return read_metadata(path.read_bytes())
    except OSError as error:
        raise BadMetadata(f"the metadata file cannot be read: {error.strerror}") from None
