# SPDX-License-Identifier: Apache-2.0
"""A slide as DICOM instances: headers and frame tables over the scanner's own bytes.

A level whose tiles are legal codestreams is *born*: its frames are ranges of the
original, none is copied or decoded. What cannot be (label, overview, thumbnail in
strips; tiles without a legal form) is made: decoded and encoded again without loss.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import photometric, sniff, transfer_syntax
from archive.part10.encode import encode_header
from archive.part10.frame_table import encode_direct
from converters.codecs.errors import as_refusal
from converters.errors import (
    ConversionError,
    DamagedSlide,
    MissingFocalPlaneSpacing,
    UnsupportedCompression,
    UnsupportedPixels,
)
from converters.slide import AssociatedImage, PixelType, Progress, Role, Scene, Slide, SourceFile, left_out
from converters.writer.coding import CodingChoice, FrameCoding
from converters.writer.dataset import (
    SOP_CLASS_UID,
    Identity,
    Picture,
    dataset,
    identify,
    nominal_spacing_mm,
)
from converters.writer.known import stated_image_type
from converters.writer.metadata import UNKNOWN, Metadata
from converters.writer.plan import PlannedLevel, plan
from converters.writer.recompose import Recomposed, recompose
from converters.writer.sparse import Place
from converters.writer.survey import COPYABLE, EOI, Survey, survey
from converters.writer.tables import born_table
from converters.writer.tilework import Bench, TileWork
from converters.writer.uids import IMPLEMENTATION_VERSION_NAME, Names

EXPLICIT_LE = "1.2.840.10008.1.2.1"
NATIVE_BYTES = 4 << 20  # label, overview, thumbnail up to this size stay uncompressed


@dataclass(frozen=True, eq=False)
class DicomInstance:
    """One instance: ``header`` (Part 10 bytes without pixel data) and an encoded frame
    table over ``blobs``, whose index is the table's blob index.

    A blob is a scanner's own file, bytes, or a file of ours (the caller's to delete).
    ``born`` says that the frames are the scanner's bytes. ``absent_tiles``: bitmap in
    frame order, most significant bit first, b"" where none is absent; those frames
    point at a blank codestream. ``tile_indexes``: of each frame of a level, its tile's
    index in the level; not all tiles where most are absent (TILED_SPARSE). ``level``
    counts the scanner's levels and after them those computed here (``computed``).
    ``part`` counts from 1 where the level is divided (see ``concatenation``).
    """

    sop_instance_uid: str
    transfer_syntax_uid: str
    photometric: str
    header: bytes
    frame_table: bytes
    blobs: tuple[SourceFile | bytes | Path, ...]
    role: Role
    image_type: tuple[str, ...]
    instance_number: int
    born: bool
    rows: int
    columns: int
    number_of_frames: int
    pixel_bytes: int
    scene: int = 0
    level: int = 0
    absent_tiles: bytes = b""
    tile_indexes: NDArray[np.int64] | None = None
    why_not_born: str = ""
    computed: bool = False
    part: int = 0
    sop_class_uid: str = SOP_CLASS_UID


ImagePixels = NDArray[np.uint8] | ConversionError
"""Label, overview or thumbnail; or why it cannot be had: then it is left out, and said so."""


@dataclass(frozen=True, eq=False)
class Look:
    """What must be read of a slide before anything is made: every tile's head, and the
    other images' pixels. It does not need the source's digest, so it can be taken while
    that is still being computed."""

    surveys: Mapping[tuple[int, int], Survey]  # by scene and level
    pixels: Sequence[ImagePixels]  # of each of Slide.associated


@dataclass(eq=False)
class _Context:
    slide: Slide
    identity: Identity
    names: Names
    scratch: Path | None
    progress: Progress | None
    look: Look
    bench: Bench
    coding: CodingChoice
    early: Mapping[tuple[int, int], Recomposed]
    uids: dict[tuple[int, int], str] = field(default_factory=dict)  # of levels, by scene and level


def look_at(
    slide: Slide,
    bench: Bench | None = None,
    surveys: Mapping[tuple[int, int], Survey] | None = None,
    pixels: Sequence[ImagePixels] | None = None,
) -> Look:
    """Read all tile heads and other images, but what ``surveys`` and ``pixels`` have already.
    Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
    found = dict(surveys or {})
    for scene in slide.scenes:
        for level in scene.levels:
            if (scene.index, level.index) not in found:
                found[scene.index, level.index] = survey(level, slide.sources)
    if pixels is None:
        pixels = images_of(slide, bench or TileWork(slide))
    return Look(found, pixels)


def images_of(slide: Slide, bench: Bench) -> list[ImagePixels]:
    """Pixels of each of the slide's other images. One that is damaged costs nobody the levels;
    a shortage of memory, a file that is not there, and the like are raised: they pass."""
    found: list[ImagePixels] = []
    for number, image in enumerate(slide.associated):
        try:
            found.append(bench.image(number))
        except ConversionError as error:
            what = f"the {image.role.value.lower()} image cannot be decoded"
            refusal = as_refusal(error, what)
            if not isinstance(refusal, (DamagedSlide, UnsupportedCompression, UnsupportedPixels)):
                raise
            found.append(refusal)
    return found


def images_left_out(slide: Slide, pixels: Sequence[ImagePixels]) -> list[str]:
    """A line for each image that no instance is made of."""
    return [
        left_out(image.role, why)
        for image, why in zip(slide.associated, pixels, strict=True)
        if isinstance(why, ConversionError)
    ]


def born_instances(
    slide: Slide,
    *,
    source_digest: bytes,
    secret: bytes,
    metadata: Metadata | None = None,
    scratch: Path | None = None,
    levels: Sequence[int] | None = None,
    associated: bool | None = None,
    progress: Progress | None = None,
    look: Look | None = None,
    bench: Bench | None = None,
    coding: CodingChoice | None = None,
    series_per_region: bool = False,
    early: Mapping[tuple[int, int], Recomposed] | None = None,
) -> list[DicomInstance]:
    """All instances of a slide: levels from the coarsest, so that a slide opens early,
    then thumbnail, label and overview.

    ``source_digest`` is the SHA-256 of the original (of the sorted manifest where there
    are several files), ``secret`` the site's. ``levels`` keeps the levels of these
    indexes (0 is the finest) and leaves out the other images, unless ``associated`` says
    otherwise; what is kept is the same as without. Frames that are ours are written to
    files in ``scratch``, by default a new temporary folder, and tell ``progress`` about
    it. ``look`` is what :func:`look_at` gave, if it was taken already. ``bench`` works on
    pixels, this process by default; ``coding`` says in what form they are kept.
    ``series_per_region`` gives each scene a series of its own. ``early`` are computed
    levels, by scene and level, that were made of these tiles before (see ``writer.early``).
    Raises DamagedSlide, MissingPixelSpacing, UnsupportedCompression, UnsupportedPixels.
    """
    known = metadata or UNKNOWN
    slide = replace(slide, scenes=[_with_heights(scene, known) for scene in slide.scenes])
    names = Names(secret, source_digest)
    bench = bench or TileWork(slide)
    look = look or look_at(slide, bench)
    barcode = ""
    if not (known.barcode or slide.scan.barcode):
        pairs = enumerate(zip(slide.associated, look.pixels, strict=True))
        labels = [
            at
            for at, (image, why) in pairs
            if image.role is Role.LABEL and not isinstance(why, ConversionError)
        ]
        barcode = bench.barcodes(labels[0]) if labels else ""
    identity = identify(slide, known, names, barcode, series_per_region=series_per_region)
    coding = coding or CodingChoice()
    context = _Context(slide, identity, names, scratch, progress, look, bench, coding, early or {})
    planned = plan(slide, look.surveys)
    made = _levels(context, planned, levels)
    number = len(planned)
    if levels is None if associated is None else associated:
        for at, pixels in enumerate(look.pixels):
            number += 1
            if not isinstance(pixels, ConversionError):
                made.append(_associated(context, at, pixels, number))
    return made


def _with_heights(scene: Scene, known: Metadata) -> Scene:
    """The scene with its focal planes' heights, from the operator where the file has none.
    Raises MissingFocalPlaneSpacing."""
    planes = scene.levels[0].focal_planes
    if known.focal_plane_spacing_um is not None and planes > 1:
        heights = tuple(number * known.focal_plane_spacing_um for number in range(planes))
        return replace(scene, focal_planes_um=heights)
    if planes > 1 and len(scene.focal_planes_um) != planes:
        raise MissingFocalPlaneSpacing
    return scene


def _levels(
    context: _Context, planned: Sequence[PlannedLevel], wanted: Sequence[int] | None
) -> list[DicomInstance]:
    """Levels that are wanted, coarsest first. Computed levels between them and the
    scanner's are made too, and not given."""
    chosen = [one for one in planned if wanted is None or one.index in wanted]
    deepest = {one.scene.index: one.index for one in chosen}  # the last of each scene
    todo = [one for one in planned if one.index <= deepest.get(one.scene.index, -1)]
    todo = [one for one in todo if one in chosen or one.computed]
    total = sum(one.number_of_tiles for one in todo if not one.copied)
    done = 0

    def report(done_here: int) -> None:
        if context.progress is not None:
            context.progress(done + done_here, total)

    made: list[DicomInstance] = []
    finer: Recomposed | None = None
    for one in planned:
        context.uids[one.scene.index, one.index] = _level_uid(context, one)
    for one in todo:
        frames: Recomposed | None = None
        if not one.copied:
            frames = context.early.get((one.scene.index, one.index))
            if frames is None:
                frames = _recomposed(context, one, finer if one.computed else None, report)
            done += one.number_of_tiles
        finer = frames
        if one in chosen:
            made.append(_level(context, one, frames, planned.index(one) + 1))
    return made[::-1]


def _spacing(context: _Context, one: PlannedLevel) -> tuple[float, float] | None:
    """The level's own, or what the operator gave for the finest, scaled."""
    given = context.identity.metadata.pixel_spacing_mm
    if given is not None:
        return (given[0] * one.downsample, given[1] * one.downsample)
    own = one.level.pixel_spacing_mm
    return None if own is None else (own[0] * 2**one.steps, own[1] * 2**one.steps)


def _coding(context: _Context, one: PlannedLevel) -> FrameCoding:
    return context.coding.of_level(one)


def _level_uid(context: _Context, one: PlannedLevel) -> str:
    level = one.level
    if one.copied:
        form: tuple[object, ...] = (one.survey.copied.transfer_syntax_uid,)
    else:
        coding = _coding(context, one)
        form = (coding.transfer_syntax_uid, coding.quality)
    size = (level.tile_rows, level.tile_columns)
    own = _of_own_series(context, one.scene.index, Role.VOLUME)
    return context.names.uid("image", one.scene.index, "level", one.index, *form, *size, *own)


def _of_own_series(context: _Context, scene: int, role: Role) -> tuple[object, ...]:
    """What tells an image from the same one in the slide's only series, which has another
    header and so another UID."""
    series = context.identity.series(scene, role)
    return ("series", series) if series else ()


def _recomposed(
    context: _Context, one: PlannedLevel, finer: Recomposed | None, report: Callable[[int], None]
) -> Recomposed:
    uid = context.uids[one.scene.index, one.index]
    name = f"{one.scene.index}-{one.index}-{hashlib.sha256(uid.encode()).hexdigest()[:16]}"
    if context.scratch is None:
        context.scratch = Path(tempfile.mkdtemp(prefix="coverslip-"))
    return recompose(one, _coding(context, one), context.bench, context.scratch, name, finer, report)


def _level(context: _Context, one: PlannedLevel, frames: Recomposed | None, number: int) -> DicomInstance:
    level, found, scene = one.level, one.survey, one.scene
    scanned = not one.computed and level.downsample == 1.0
    original = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
    image_type: tuple[str, ...] = original if scanned else ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")
    if not one.computed:
        image_type = stated_image_type(level.known, image_type)
    absent = level.tiles.absent if frames is None else frames.absent
    kept = _kept(absent)
    blobs: tuple[SourceFile | bytes | Path, ...]
    if frames is not None:
        coding = _coding(context, one)
        transfer_syntax_uid = coding.transfer_syntax_uid
        colours = coding.photometric(level.pixel_type.samples_per_pixel)
        table, pixel_bytes, blobs = frames.frame_table(kept), frames.size_bytes, (frames.path,)
        own_loss = coding.lossy_method
    else:
        kind = found.copied
        transfer_syntax_uid, colours, own_loss = kind.transfer_syntax_uid, kind.photometric, ""
        blank = b""
        if absent[kept].any():
            blank = context.bench.blank_like(scene.index, level.index, int(np.argmin(absent)))
        table, blobs = born_table(context.slide, one, kept, blank)
        pixel_bytes = int(found.lengths.sum())
    uid = context.uids[scene.index, one.index]
    picture = Picture(
        role=Role.VOLUME,
        image_type=image_type,
        instance_number=number,
        sop_instance_uid=uid,
        scene=scene,
        rows=one.rows,
        columns=one.columns,
        frame=(level.tile_rows, level.tile_columns),
        number_of_frames=len(kept),
        pixel_type=level.pixel_type.as_stored,
        photometric=colours,
        pixel_spacing_mm=_spacing(context, one),
        lossy_steps=_lossy_steps(one, absent, pixel_bytes, own_loss),
        optical_paths=level.optical_paths,
        focal_planes=level.focal_planes,
        places=_places(one, kept) if len(kept) < len(absent) or _is_uneven(scene.focal_planes_um) else None,
        computed_from=context.uids[scene.index, one.index - 1] if one.computed else "",
        known=level.known,
    )
    missing = absent[kept]
    return DicomInstance(
        sop_instance_uid=uid,
        transfer_syntax_uid=transfer_syntax_uid,
        photometric=colours,
        header=_header(context, picture, transfer_syntax_uid),
        frame_table=table,
        blobs=blobs,
        role=Role.VOLUME,
        image_type=image_type,
        instance_number=number,
        born=frames is None,
        rows=one.rows,
        columns=one.columns,
        number_of_frames=len(kept),
        pixel_bytes=pixel_bytes,
        scene=scene.index,
        level=one.index,
        absent_tiles=np.packbits(missing).tobytes() if missing.any() else b"",
        tile_indexes=kept,
        why_not_born=one.why_not_copied,
        computed=one.computed,
    )


def _kept(absent: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indexes of the tiles that become frames: all, or, where most are absent, the others."""
    if 2 * int(absent.sum()) > len(absent) and not absent.all():
        return np.flatnonzero(~absent)
    return np.arange(len(absent))


def _is_uneven(planes_um: Sequence[float]) -> bool:
    """TILED_FULL has one distance between focal planes."""
    steps = np.diff(np.asarray(planes_um, dtype=float))
    return bool(len(steps) and np.ptp(steps) > 0.01 * max(1e-3, float(np.abs(steps).max())))


def _places(one: PlannedLevel, kept: NDArray[np.int64]) -> tuple[Place, ...]:
    level = one.level
    extent = (level.optical_paths, level.focal_planes, one.tiles_down, one.tiles_across)
    places = np.unravel_index(kept, extent)
    return tuple(Place(*place) for place in zip(*(axis.tolist() for axis in places), strict=True))


def _lossy_steps(
    one: PlannedLevel, absent: NDArray[np.bool_], made_bytes: int, own_loss: str
) -> tuple[tuple[str, float], ...]:
    """The scanner's loss, which every copy inherits, then ours where somebody asked for it."""
    level = one.level
    samples = level.pixel_type.samples_per_pixel * level.pixel_type.bits_allocated // 8
    tile_bytes = level.tile_rows * level.tile_columns * samples
    steps = list(level.earlier_losses)
    if one.lossy_source:
        present = int((~level.tiles.absent).sum())
        encoded = int(one.survey.lengths.sum()) or level.tiles.size_bytes
        # a ratio that nobody can know is 1, the least that the attribute allows
        steps.append((one.lossy_source, present * tile_bytes / encoded if encoded else 1.0))
    if own_loss:
        steps.append((own_loss, int((~absent).sum()) * tile_bytes / max(1, made_bytes)))
    return tuple(steps)


def _associated(context: _Context, at: int, pixels: NDArray[np.uint8], number: int) -> DicomInstance:
    """Label, overview or thumbnail as one frame: the scanner's codestream where it is
    legal, else decoded and kept without loss. A coloured thumbnail of grey channels is an
    overview: viewers refuse a pyramid that is partly grey and partly coloured."""
    image = context.slide.associated[at]
    scene = context.slide.scenes[image.scene]
    samples = pixels.shape[2]
    blended = image.role is Role.THUMBNAIL and samples > scene.levels[0].pixel_type.samples_per_pixel
    role = Role.OVERVIEW if blended else image.role
    copied = _copied_image(image, samples)
    native = pixels.nbytes <= NATIVE_BYTES
    if copied is not None:
        transfer_syntax_uid, colours, frame = copied
    elif native:
        transfer_syntax_uid, frame = EXPLICIT_LE, pixels.tobytes()
        colours = "RGB" if samples == 3 else "MONOCHROME2"
    else:
        coding = CodingChoice(context.coding.lossless).of(PixelType(samples_per_pixel=samples))
        transfer_syntax_uid = coding.transfer_syntax_uid
        frame, colours = context.bench.encoded_image(at, transfer_syntax_uid), coding.photometric(samples)
    if image.role is Role.THUMBNAIL:
        image_type: tuple[str, ...] = ("DERIVED", "PRIMARY", role.value, "RESAMPLED")
        finest = scene.levels[0]
        spacing = context.identity.metadata.pixel_spacing_mm or finest.pixel_spacing_mm
        if spacing is not None:
            spacing = (spacing[0] * finest.rows / image.rows, spacing[1] * finest.columns / image.columns)
    else:
        image_type = ("ORIGINAL", "PRIMARY", role.value, "NONE")
        spacing = nominal_spacing_mm(image.rows, image.columns, whole_glass=role is Role.OVERVIEW)
    image_type = stated_image_type(image.known, image_type)
    lossy: tuple[tuple[str, float], ...] = ()
    if image.lossy_method:
        lossy = ((image.lossy_method, pixels.nbytes / max(1, image.encoded_bytes)),)
    twins = [
        other for other in context.slide.associated if (other.role, other.scene) == (image.role, image.scene)
    ]
    again = next(at for at, other in enumerate(twins) if other is image)
    uid = context.names.uid(
        "image", image.scene, image.role.value, transfer_syntax_uid, *([again] if again else []),
        *_of_own_series(context, image.scene, role),
    )  # fmt: skip
    picture = Picture(
        role=role,
        image_type=image_type,
        instance_number=number,
        sop_instance_uid=uid,
        scene=scene,
        rows=image.rows,
        columns=image.columns,
        frame=(image.rows, image.columns),
        number_of_frames=1,
        pixel_type=PixelType(samples_per_pixel=samples),
        photometric=colours,
        pixel_spacing_mm=spacing,
        lossy_steps=lossy,
        known=image.known,
    )
    return DicomInstance(
        sop_instance_uid=uid,
        transfer_syntax_uid=transfer_syntax_uid,
        photometric=colours,
        header=_header(context, picture, transfer_syntax_uid),
        frame_table=encode_direct([0], [len(frame)]),
        blobs=(frame,),
        role=role,
        image_type=image_type,
        instance_number=number,
        born=copied is not None,
        rows=image.rows,
        columns=image.columns,
        number_of_frames=1,
        pixel_bytes=len(frame),
        scene=image.scene,
        why_not_born="" if copied else f"{image.compression} image decoded once, kept without loss",
    )


def _header(context: _Context, picture: Picture, transfer_syntax_uid: str) -> bytes:
    return encode_header(
        dataset(context.identity, picture),
        transfer_syntax_uid,
        implementation_version=IMPLEMENTATION_VERSION_NAME,
    )


def image_action(image: AssociatedImage) -> str:
    """What becomes of label, overview or thumbnail, for people."""
    samples = sniff(image.codestream).components
    return "copied" if _copied_image(image, samples) else "decoded, kept without loss"


def _copied_image(image: AssociatedImage, samples: int) -> tuple[str, str, bytes] | None:
    """Transfer syntax, Photometric Interpretation and frame of an image whose codestream
    is legal in DICOM as it is; None where it is not."""
    stream = sniff(image.codestream)
    uid, colours = transfer_syntax(stream), photometric(stream)
    legal = colours in COPYABLE.get(uid or "", ()) and (stream.has_tables or stream.format != "jpeg")
    whole = image.codestream.rstrip(b"\x00").endswith(EOI)
    if (
        not legal
        or not whole
        or (stream.rows, stream.columns, stream.components) != (image.rows, image.columns, samples)
    ):
        return None
    return str(uid), colours, image.codestream.rstrip(b"\x00")
