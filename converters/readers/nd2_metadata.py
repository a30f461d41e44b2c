# SPDX-License-Identifier: Apache-2.0
"""What the metadata of ND2 says, by the nd2 package and the fields that it passes on raw.

The package follows Nikon's naming of fields; ``picture`` are those of the first frame
(SLxPictureMetadata), among them what camera and microscope were set to for each channel.
"""

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any

from converters.errors import DamagedSlide, MissingLibrary
from converters.readers.nd2_chunks import Chunks
from converters.slide import Illumination, OpticalPath, RealWorldMapping, Scan

if TYPE_CHECKING:
    import nd2

REQUIREMENT = "nd2"
JULIAN_DAY_OF_1970 = 2440587.5


@dataclass(frozen=True)
class Told:
    """What the metadata says, as the nd2 package gives it."""

    attributes: Any
    loops: Sequence[Any]
    channels: Sequence[Any]
    picture: Mapping[str, Any]  # the raw fields of the first frame
    texts: Mapping[str, str]
    application: Mapping[str, Any]


class _Unmapped(io.RawIOBase):
    """The file, read by position: given a path, the package would map all of it into memory,
    which the limits of a child process forbid for large files."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._chunks.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = os.pread(self._chunks.descriptor, len(buffer), self._at)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def read_told(chunks: Chunks) -> Told:
    try:
        import nd2
    except ImportError as error:
        raise MissingLibrary("Nikon ND2", REQUIREMENT) from error
    for name in chunks.positions:  # it reads them whole: none may be larger than believable
        if name.startswith((b"Image", b"CustomDataVar|")) and not name.startswith(b"ImageDataSeq|"):
            chunks.data(name, "the metadata")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with io.BufferedReader(_Unmapped(chunks)) as handle, nd2.ND2File(handle) as file:
                return Told(
                    attributes=file.attributes,
                    loops=list(file.experiment),
                    channels=_channels(file),
                    picture=_picture(file),
                    texts={key: str(text) for key, text in dict(file.text_info).items()},
                    application=_application(file),
                )
    except Exception as error:  # it raises whatever its parsers do: all mean damage
        raise DamagedSlide("the metadata cannot be read") from error


def _channels(file: "nd2.ND2File") -> Sequence[Any]:
    try:
        return list(getattr(file.metadata, "channels", None) or ())
    except Exception:  # noqa: BLE001 - early files lack fields that it expects; frames are whole
        return ()


def _picture(file: "nd2.ND2File") -> Mapping[str, Any]:
    raw = file.unstructured_metadata(
        strip_prefix=False, include={"ImageMetadataSeqLV|0", "ImageMetadataSeq|0"}
    )
    for part in raw.values():
        if isinstance(part, dict):
            inner = part.get("SLxPictureMetadata", part)
            return inner if isinstance(inner, dict) else {}
    return {}


def _application(file: "nd2.ND2File") -> Mapping[str, Any]:
    try:
        found = file.custom_data.get("AppInfo_V1_0", {})
    except Exception:  # noqa: BLE001 - a table that we can do without, parsed by many parsers
        return {}
    return found if isinstance(found, dict) else {}


def optical_path(told: Told, samples: int, number: int, mapping: RealWorldMapping | None) -> OpticalPath:
    if number >= len(told.channels):
        light = Illumination.BRIGHTFIELD if samples == 3 else Illumination.EPIFLUORESCENCE
        return OpticalPath(identifier=str(number + 1), illumination=light, real_world=mapping)
    channel = told.channels[number]
    light = _illumination(set(channel.microscope.modalityFlags), samples)
    glows = light is Illumination.EPIFLUORESCENCE
    colour = channel.channel.color
    return OpticalPath(
        identifier=str(number + 1),
        description=str(channel.channel.name or "")[:64],
        objective_power=positive(channel.microscope.objectiveMagnification),
        numerical_aperture=positive(channel.microscope.objectiveNumericalAperture),
        illumination=light,
        excitation_nm=positive(channel.channel.excitationLambdaNm) if glows else None,
        emission_nm=positive(channel.channel.emissionLambdaNm) if glows else None,
        exposure_ms=positive(_setting(told, channel.channel.index).get("dExposureTime")),
        display_rgb=(colour.r, colour.g, colour.b) if glows and colour is not None else None,
        real_world=mapping,
    )


def _illumination(flags: set[str], samples: int) -> Illumination:
    if "diContrast" in flags:
        return Illumination.DIFFERENTIAL_INTERFERENCE_CONTRAST
    if "phaseContrast" in flags:
        return Illumination.PHASE_CONTRAST
    if samples == 3 or ("brightfield" in flags and "fluorescence" not in flags):
        return Illumination.BRIGHTFIELD
    return Illumination.EPIFLUORESCENCE


def positive(value: object) -> float | None:
    good = isinstance(value, (int, float)) and isfinite(value) and value > 0
    return float(value) if good else None  # type: ignore[arg-type]


def _setting(told: Told, number: int) -> Mapping[str, Any]:
    """Camera and microscope of a channel: one entry each, or one for all."""
    planes = told.picture.get("sPicturePlanes")
    settings = planes.get("sSampleSetting") if isinstance(planes, dict) else None
    if not isinstance(settings, dict) or not settings:
        return {}
    found = settings.get(f"a{number}", next(iter(settings.values())) if len(settings) == 1 else {})
    return found if isinstance(found, dict) else {}


def spacing_mm(told: Told) -> tuple[float, float] | None:
    """Pixels are square: there is one calibration."""
    for channel in told.channels:
        volume = channel.volume
        size = positive(volume.axesCalibration[0])
        if volume.axesCalibrated[0] and size is not None and size < 1000:
            return float(f"{size / 1000:.12g}"), float(f"{size / 1000:.12g}")
    size = positive(told.picture.get("dCalibration"))
    if told.channels or not told.picture.get("bCalibrated") or size is None or size >= 1000:
        return None
    return float(f"{size / 1000:.12g}"), float(f"{size / 1000:.12g}")


def began(told: Told) -> datetime | None:
    """When the recording began."""
    day = positive(told.picture.get("dTimeAbsolute"))
    if day is None or not 2415020 < day < 2500000:  # the twentieth century to the twenty-second
        return None
    since = timedelta(seconds=round((day - JULIAN_DAY_OF_1970) * 86400, 3))
    return datetime(1970, 1, 1, tzinfo=UTC) + since


def scan_of(told: Told) -> Scan:
    setting = _setting(told, 0)
    device, camera = (setting.get(key) for key in ("pDeviceSetting", "pCameraSetting"))
    device, camera = (part if isinstance(part, dict) else {} for part in (device, camera))
    names = ("SWNameString", "VersionString")
    software = " ".join(str(told.application[key]) for key in names if told.application.get(key))
    properties = {f"text.{key.lower()}": text for key, text in told.texts.items()}
    properties["image.bitspercomponentsignificant"] = str(told.attributes.bitsPerComponentSignificant)
    for prefix, part in (("camera", camera), ("device", device), ("application", told.application)):
        for key, value in part.items():
            if isinstance(value, (str, int, float)) and value not in ("", -1):
                properties[f"{prefix}.{key.lower()}"] = str(value)[:1000]
    company = str(told.application.get("CompanyString") or "")
    return Scan(
        manufacturer="Nikon" if "nikon" in company.lower() or not company else company[:64],
        model_name=str(device.get("m_sMicroscopePhysFullName") or device.get("m_sMicroscopeFullName") or "")[
            :64
        ],
        software_versions=(software[:64],) if software else (),
        acquired=began(told),
        description="\n".join(told.texts.values()),
        properties=properties,
    )
