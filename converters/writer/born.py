# SPDX-License-Identifier: Apache-2.0
"""A slide as DICOM instances: headers and frame tables over the scanner's own bytes.

A level whose tiles are legal codestreams is *born*: its frames are ranges of the
original, none is copied or decoded. What cannot be (label, overview, thumbnail in
strips; tiles without a legal form) is made: decoded and encoded again without loss.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.part10.encode import encode_header
from archive.part10.frame_table import encode_direct
from converters.barcode import read_barcodes
from converters.codecs import encode
from converters.slide import AssociatedImage, Level, PixelType, Progress, Role, Scene, Slide, SourceFile
from converters.writer.blank import blank_tile
from converters.writer.dataset import (
    SOP_CLASS_UID,
    Identity,
    Picture,
    dataset,
    identify,
    nominal_spacing_mm,
)
from converters.writer.metadata import UNKNOWN, Metadata
from converters.writer.recompose import LOSSLESS_UID, photometric_of_lossless, recompose
from converters.writer.survey import Survey, survey
from converters.writer.uids import IMPLEMENTATION_VERSION_NAME, Names

EXPLICIT_LE = "1.2.840.10008.1.2.1"
NATIVE_BYTES = 4 << 20  # label, overview, thumbnail up to this size stay uncompressed
LOSSY_METHODS = {"jpeg": "ISO_10918_1", "jpeg2000": "ISO_15444_1"}


@dataclass(frozen=True, eq=False)
class DicomInstance:
    """One instance: ``header`` (Part 10 bytes without pixel data) and an encoded frame
    table over ``blobs``, whose index is the table's blob index.

    A blob is a scanner's own file, bytes, or a file of ours (the caller's to delete).
    ``born`` says that the frames are the scanner's bytes. ``absent_tiles``: bitmap in
    frame order, most significant bit first, b"" where none is absent; those frames
    point at a blank codestream. ``tile_indexes``: of each frame of a level, its tile's
    place in :attr:`Level.tiles`; not all tiles where most are absent (TILED_SPARSE).
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
    sop_class_uid: str = SOP_CLASS_UID


@dataclass(frozen=True, eq=False)
class Look:
    """What must be read of a slide before anything is made: every tile's head, and the
    other images' pixels. It does not need the source's digest, so it can be taken while
    that is still being computed."""

    surveys: Mapping[tuple[int, int], Survey]  # by scene and level
    pixels: Mapping[Role, NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class _Context:
    slide: Slide
    identity: Identity
    names: Names
    scratch: Path | None
    progress: Progress | None
    look: Look | None


def look_at(slide: Slide) -> Look:
    """Read all tile heads and other images. Raises DamagedSlide, UnsupportedCompression,
    UnsupportedPixels."""
    return Look(
        {
            (scene.index, level.index): survey(level, slide.sources[level.tiles.source].path)
            for scene in slide.scenes
            for level in scene.levels
        },
        {image.role: image.read() for image in slide.associated},
    )


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
) -> list[DicomInstance]:
    """All instances of a slide: levels from the coarsest, so that a slide opens early,
    then thumbnail, label and overview.

    ``source_digest`` is the SHA-256 of the original (of the sorted manifest where there
    are several files), ``secret`` the site's. ``levels`` keeps the levels of these
    indexes (0 is the finest) and leaves out the other images, unless ``associated`` says
    otherwise; what is kept is the same as without. Levels that must be recomposed are
    written to files in ``scratch``, by default a new temporary folder, and tell
    ``progress`` about it. ``look`` is what :func:`look_at` gave, if it was taken
    already. Raises DamagedSlide, MissingPixelSpacing, UnsupportedCompression, UnsupportedPixels.
    """
    known = metadata or UNKNOWN
    names = Names(secret, source_digest)
    pixels = look.pixels if look else {image.role: image.read() for image in slide.associated}
    barcode = ""
    if not (known.barcode or slide.scan.barcode) and Role.LABEL in pixels:
        barcode = read_barcodes(pixels[Role.LABEL])
    context = _Context(slide, identify(slide, known, names, barcode), names, scratch, progress, look)
    number = 0
    wanted: list[tuple[int, Scene, Level]] = []
    for scene in slide.scenes:
        for level in scene.levels:
            number += 1
            if levels is None or level.index in levels:
                wanted.append((number, scene, level))
    made = [_level(context, scene, level, at) for at, scene, level in reversed(wanted)]
    if levels is None if associated is None else associated:
        for image in slide.associated:
            number += 1
            made.append(_associated(context, image, pixels[image.role], number))
    return made


def _spacing(context: _Context, level: Level) -> tuple[float, float] | None:
    """The level's own, or what the operator gave for the finest, scaled."""
    given = context.identity.metadata.pixel_spacing_mm
    if given is None:
        return level.pixel_spacing_mm
    return (given[0] * level.downsample, given[1] * level.downsample)


def _level(context: _Context, scene: Scene, level: Level, number: int) -> DicomInstance:
    path = context.slide.sources[level.tiles.source].path
    look = context.look
    found = look.surveys[scene.index, level.index] if look else survey(level, path)
    resampled = ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")
    image_type = resampled if level.resampled else ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
    stream = found.first.codestream
    lossy: tuple[tuple[str, float], ...] = ()
    if stream.reversible is not True and stream.format in LOSSY_METHODS:
        lossy = ((LOSSY_METHODS[stream.format], _ratio(level, found)),)
    kept = _kept(level)
    if found.why_not_copied:
        made = recompose(level, found, path, kept, _scratch(context), context.progress)
        transfer_syntax_uid, colours = LOSSLESS_UID, made.photometric
        table, pixel_bytes = made.frame_table, made.size_bytes
        blobs: tuple[SourceFile | bytes | Path, ...] = (made.path,)
    else:
        transfer_syntax_uid, colours = found.first.transfer_syntax_uid, found.first.photometric
        blank = blank_tile(found.first) if level.tiles.absent[kept].any() else b""
        table = _born_table(level, found, kept, blank)
        source = context.slide.sources[level.tiles.source]
        blobs = (source, blank) if blank else (source,)
        pixel_bytes = int(found.lengths.sum())
    uid = context.names.uid(
        "image", scene.index, "level", level.index, transfer_syntax_uid, level.tile_rows, level.tile_columns
    )
    picture = Picture(
        role=Role.VOLUME,
        image_type=image_type,
        instance_number=number,
        sop_instance_uid=uid,
        scene=scene,
        rows=level.rows,
        columns=level.columns,
        frame=(level.tile_rows, level.tile_columns),
        number_of_frames=len(kept),
        pixel_type=level.pixel_type,
        photometric=colours,
        pixel_spacing_mm=_spacing(context, level),
        lossy_steps=lossy,
        optical_paths=level.optical_paths,
        focal_planes=level.focal_planes,
        sparse_tiles=_places(level, kept) if len(kept) < len(level.tiles) else None,
    )
    absent = level.tiles.absent[kept]
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
        born=not found.why_not_copied,
        rows=level.rows,
        columns=level.columns,
        number_of_frames=len(kept),
        pixel_bytes=pixel_bytes,
        scene=scene.index,
        level=level.index,
        absent_tiles=np.packbits(absent).tobytes() if absent.any() else b"",
        tile_indexes=kept,
        why_not_born=found.why_not_copied,
    )


def _kept(level: Level) -> NDArray[np.int64]:
    """Indexes of the tiles that become frames: all, or, where most are absent, the others."""
    absent = level.tiles.absent
    one_plane = level.optical_paths == level.focal_planes == 1
    if one_plane and 2 * int(absent.sum()) > len(absent):
        return np.flatnonzero(~absent)
    return np.arange(len(absent))


def _places(level: Level, kept: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    return tuple(divmod(index, level.tiles_across) for index in kept.tolist())


def _ratio(level: Level, found: Survey) -> float:
    """Bytes of the pixels over bytes of their tiles (PS3.3 C.7.6.1.1.5.2), absent ones left out."""
    present = int((~level.tiles.absent).sum())
    samples = level.pixel_type.samples_per_pixel * level.pixel_type.bits_allocated // 8
    return present * level.tile_rows * level.tile_columns * samples / max(1, int(found.lengths.sum()))


def _born_table(level: Level, found: Survey, kept: NDArray[np.int64], blank: bytes) -> bytes:
    """Frames as ranges of blob 0, each after its kind's prefix; absent ones are blob 1."""
    absent, kinds = level.tiles.absent[kept], found.kind_ids[kept]
    prefixes = [b"", *dict.fromkeys(kind.prefix for kind in found.kinds if kind.prefix)]
    prefix_of = np.array([prefixes.index(kind.prefix) for kind in found.kinds], dtype=np.uint16)
    skip_of = np.array([kind.skip for kind in found.kinds], dtype=np.uint16)
    return encode_direct(
        level.tiles.offsets[kept],
        np.where(absent, np.uint64(len(blank)), found.lengths[kept]),
        blob_index=absent.astype(np.uint8),
        prefixes=prefixes,
        prefix_ids=np.where(absent, 0, prefix_of[kinds]),
        skips=np.where(absent, 0, skip_of[kinds]),
    )


def _associated(
    context: _Context, image: AssociatedImage, pixels: NDArray[np.uint8], number: int
) -> DicomInstance:
    """Label, overview or thumbnail as one frame, decoded and kept without loss."""
    scene = context.slide.scenes[image.scene]
    samples = pixels.shape[2]
    native = pixels.nbytes <= NATIVE_BYTES
    if native:
        transfer_syntax_uid, frame = EXPLICIT_LE, pixels.tobytes()
        colours = "RGB" if samples == 3 else "MONOCHROME2"
    else:
        transfer_syntax_uid = LOSSLESS_UID
        frame, colours = encode(pixels, LOSSLESS_UID), photometric_of_lossless(samples)
    if image.role is Role.THUMBNAIL:
        image_type = ("DERIVED", "PRIMARY", "THUMBNAIL", "RESAMPLED")
        finest = scene.levels[0]
        spacing = _spacing(context, finest)
        if spacing is not None:
            spacing = (spacing[0] * finest.rows / image.rows, spacing[1] * finest.columns / image.columns)
    else:
        image_type = ("ORIGINAL", "PRIMARY", image.role.value, "NONE")
        spacing = nominal_spacing_mm(image.rows, image.columns, whole_glass=image.role is Role.OVERVIEW)
    lossy: tuple[tuple[str, float], ...] = ()
    if image.lossy_method:
        lossy = ((image.lossy_method, pixels.nbytes / max(1, image.encoded_bytes)),)
    uid = context.names.uid("image", image.scene, image.role.value, transfer_syntax_uid)
    picture = Picture(
        role=image.role,
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
    )
    return DicomInstance(
        sop_instance_uid=uid,
        transfer_syntax_uid=transfer_syntax_uid,
        photometric=colours,
        header=_header(context, picture, transfer_syntax_uid),
        frame_table=encode_direct([0], [len(frame)]),
        blobs=(frame,),
        role=image.role,
        image_type=image_type,
        instance_number=number,
        born=False,
        rows=image.rows,
        columns=image.columns,
        number_of_frames=1,
        pixel_bytes=len(frame),
        scene=image.scene,
        why_not_born=f"{image.compression} image decoded once, kept without loss",
    )


def _header(context: _Context, picture: Picture, transfer_syntax_uid: str) -> bytes:
    return encode_header(
        dataset(context.identity, picture),
        transfer_syntax_uid,
        implementation_version=IMPLEMENTATION_VERSION_NAME,
    )


def _scratch(context: _Context) -> Path:
    if context.scratch is not None:
        return context.scratch
    return Path(tempfile.mkdtemp(prefix="coverslip-"))
