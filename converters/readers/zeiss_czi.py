# SPDX-License-Identifier: Apache-2.0
"""Zeiss CZI: a directory of sub-blocks (tiles) with coordinates, from ZEN, AIM and Axioscan.

Parsed here, decoded by imagecodecs: ZEISS's library is needed only to test against. What real
files do:

- Coordinates are pixels of the finest level and may be huge or negative; each scene has its
  own box of them.
- Tiles of a mosaic overlap, the one with the higher M index on top.
- A sub-block that covers more than it stores belongs to a coarser level. Such levels are taken
  where they cover the scene as the finest does, in every channel and plane; else we compute them.
- Most tiles are raw, JPEG XR or Zstandard, none of which DICOM has: they are encoded anew. JPEG
  tiles on a grid are copied.
- Colours of 16 bits are reduced to the 8 that whole slide images have; 32-bit floats are mapped
  to 16 bits, and the mapping is declared.
- One point in time is a scene of its own; colour and grey channels of one scene, too, become two.
- Label, SlidePreview (of the whole slide) and Thumbnail are attachments: a JPEG, or a CZI again.

Where a scene lies on the glass is not stated: stage coordinates have no known relation to it.

Sources: as in ``czi_segments``; ZEISS's description of coordinates in libCZI's documentation.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converters.probe import Probe
from converters.readers.czi_attachments import associated_images, samples_of, time_stamps_s
from converters.readers.czi_metadata import CziMetadata, read_metadata_xml, time_of
from converters.readers.czi_scenes import BGR48, Part, Samples, levels, parts
from converters.readers.czi_segments import NONE, Czi, Window, read_czi
from converters.slide import Illumination, OpticalPath, Scan, Scene, Slide, SourceFile

MAGIC = b"ZISRAWFILE\0\0\0\0\0\0"


class ZeissCziReader:
    """See :class:`converters.registry.Reader`."""

    format = "zeiss-czi"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        return None if probe.head[:16] == MAGIC else "does not start with 'ZISRAWFILE'"

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        descriptor = os.open(probe.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _slide(probe, Window(descriptor, 0, os.fstat(descriptor).st_size), descriptor)
        except Exception:
            os.close(descriptor)
            raise


def _slide(probe: Probe, window: Window, descriptor: int) -> Slide:
    czi = read_czi(window)
    metadata = read_metadata_xml(czi.xml)
    found = parts(czi)
    if (metadata.plane_distance_um or 0) < 0:  # the stack goes down, DICOM's goes up
        found = [replace(part, planes=part.planes[::-1]) for part in found]
    associated, findings = associated_images(czi)
    scenes, more = _scenes(czi, metadata, found)
    return Slide(
        format=ZeissCziReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=scenes,
        associated=associated,
        scan=Scan(
            manufacturer=metadata.manufacturer,
            model_name=metadata.model_name,
            device_serial_number=metadata.serial_number,
            software_versions=(metadata.software,) if metadata.software else (),
            acquired=metadata.acquired,
            barcode=metadata.barcode,
            description=czi.xml.rstrip(b"\0").decode("utf-8", "replace"),
            properties=metadata.properties,
        ),
        closer=lambda: os.close(descriptor),
        findings=(*_findings(czi, metadata), *more, *findings),
    )


def _findings(czi: Czi, metadata: CziMetadata) -> list[str]:
    found = []
    if not czi.finished:
        found.append("the file says that writing it was not finished")
    if (czi.blocks["pixel_type"] == BGR48).any():
        found.append("colours of 16 bits are kept in 8")
    return found


def _scenes(
    czi: Czi, metadata: CziMetadata, found: Sequence[Part]
) -> tuple[tuple[Scene, ...], tuple[str, ...]]:
    samples = samples_of(czi, metadata)
    stamps = time_stamps_s(czi)
    several = {
        "times": len({part.time for part in found}) > 1,
        "kinds": len({(part.scene, part.time) for part in found}) < len(found),
    }
    scenes = []
    findings: dict[str, None] = {}
    for index, part in enumerate(found):
        made, more = levels(czi, part, samples, metadata.pixel_spacing_mm, not metadata.pyramid_is_stale)
        findings |= dict.fromkeys(more)
        words = [metadata.scene_names.get(part.scene, "") if part.scene != NONE else ""]
        words.append(f"time point {part.time + 1}" if several["times"] else "")
        words.append(("colour" if part.colour else "grey") if several["kinds"] else "")
        scenes.append(
            Scene(
                index=index,
                levels=made,
                optical_paths=tuple(_path(metadata, samples, part, channel) for channel in part.channels),
                focal_planes_um=_heights_um(metadata, part),
                label=", ".join(word for word in words if word),
                acquired=time_of(metadata, part.time, stamps) if several["times"] else None,
            )
        )
    return tuple(scenes), tuple(findings)


def _path(metadata: CziMetadata, samples: Samples, part: Part, channel: int) -> OpticalPath:
    if channel < len(metadata.channels):
        path = metadata.channels[channel]
    else:
        path = OpticalPath(
            objective_power=metadata.objective_power,
            numerical_aperture=metadata.numerical_aperture,
            illumination=Illumination.EPIFLUORESCENCE,
        )
    light = Illumination.BRIGHTFIELD if part.colour else path.illumination
    return replace(
        path,
        identifier=str(channel + 1),
        illumination=light,
        fluorophore="" if part.colour else path.fluorophore,
        real_world=samples.mappings.get(channel),
    )


def _heights_um(metadata: CziMetadata, part: Part) -> tuple[float, ...]:
    if len(part.planes) == 1:
        return (0.0,)
    step = metadata.plane_distance_um
    if step is None:
        return ()
    return tuple(float(height) for height in np.arange(len(part.planes)) * abs(step))
