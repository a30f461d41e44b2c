# SPDX-License-Identifier: Apache-2.0
"""Nikon ND2 of version 3 for tests: chunks, their map, and metadata in Nikon's binary variants.

A variant is type (1 byte), characters of its name with the final 0 (1 byte), name in UTF-16, value.
Dictionaries (type 11) are the number of items, the bytes from the variant's first to the last
item's end, the items, and 8 bytes for each item.
"""

import os
import struct
import zlib
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.make_slide import picture

ROWS, COLUMNS = 600, 700
JULIAN_DAY = 2460437.797326  # 2024-05-07T07:08:08.966Z
FLUORESCENCE, BRIGHTFIELD = 0x101, 0x102
_MAGIC = 0x0ABECEDA
_ALIGNMENT = 4096


def variant(name: str, value: Any) -> bytes:
    """``value`` is a bool, an int (uint32), a float, a text or a mapping of such."""
    head = bytes((_type(value), len(name) + 1)) + f"{name}\0".encode("utf-16-le")
    if isinstance(value, Mapping):
        items = b"".join(variant(key, item) for key, item in value.items())
        length = len(head) + 12 + len(items)
        return head + struct.pack("<IQ", len(value), length) + items + bytes(8 * len(value))
    if isinstance(value, bool):
        return head + struct.pack("<B", value)
    if isinstance(value, int):
        return head + struct.pack("<I", value)
    if isinstance(value, float):
        return head + struct.pack("<d", value)
    return head + f"{value}\0".encode("utf-16-le")


def _type(value: Any) -> int:
    kinds = ((bool, 1), (int, 3), (float, 6), (str, 8), (Mapping, 11))
    return next(number for kind, number in kinds if isinstance(value, kind))


class Nd2Writer:
    """Chunks in order, then :meth:`save`."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._places: list[tuple[bytes, int, int]] = []
        signature = b"ND2 FILE SIGNATURE CHUNK NAME01!" + b"Ver3.0".ljust(64, b"\0")
        self._append(32, signature, 64)

    def _append(self, name_bytes: int, content: bytes, data_bytes: int) -> int:
        position = len(self._data)
        self._data += struct.pack("<IIQ", _MAGIC, name_bytes, data_bytes) + content
        self._data += bytes(-len(self._data) % _ALIGNMENT)
        return position

    def add(self, name: str, data: bytes) -> None:
        room = _ALIGNMENT - 16 - (8 if name.startswith("ImageDataSeq") else 0)
        field = f"{name}!".encode().ljust(room, b"\0")
        position = self._append(room, field + data, len(data))
        self._places.append((f"{name}!".encode(), position, len(data)))

    def save(self, path: Path, gap_bytes: int = 0) -> Path:
        """``gap_bytes`` of a hole stand before the last chunk."""
        listed = b"".join(name + struct.pack("<QQ", *place) for name, *place in self._places)
        end = b"ND2 CHUNK MAP SIGNATURE 0000001!"
        *_, (_, last, _) = self._places
        if gap_bytes:
            listed = listed.replace(struct.pack("<Q", last), struct.pack("<Q", last + gap_bytes))
        position = len(self._data) + gap_bytes
        listed += end + struct.pack("<Q", position)
        padded = listed.ljust(-(-(len(listed) + 48) // _ALIGNMENT) * _ALIGNMENT - 48, b"\0")
        padded = (
            padded[:-40] + end + struct.pack("<Q", position) if len(padded) >= len(listed) + 40 else listed
        )
        self._data += struct.pack("<IIQ", _MAGIC, 32, len(padded))
        self._data += b"ND2 FILEMAP SIGNATURE NAME 0001!" + padded
        with path.open("wb") as file:
            file.write(self._data[:last])
            file.seek(gap_bytes, os.SEEK_CUR)
            file.write(self._data[last:])
        return path


def frame_pixels(
    frame: int, channel: int, *, rows: int = ROWS, columns: int = COLUMNS, bits: int = 12, rgb: bool = False
) -> NDArray[np.generic]:
    """(rows, columns, samples) of a channel of a frame, RGB where ``rgb``."""
    drawn = picture(rows, columns, 100 + 10 * frame + channel)
    if rgb:
        return drawn if bits == 8 else drawn.astype(np.uint16) << (bits - 8)
    grey = drawn[..., :1]
    return grey if bits == 8 else grey.astype(np.uint16) << (bits - 8) | np.uint16(frame)


def _spectrum(wavelength: float) -> dict[str, Any]:
    return {"uiCount": 1, "pPoint": {"Point0": {"eType": 4, "dWavelength": wavelength, "dTValue": 1.0}}}


def _plane(number: int, rgb: bool, modality: int) -> dict[str, Any]:
    name, excitation, emission, colour = (
        ("DAPI", 385.0, 455.0, 0xFF0000),
        ("Cy5", 640.0, 690.0, 0x0000FF),
        ("FITC", 475.0, 515.0, 0x00FF00),
    )[number % 3]
    return {
        "uiCompCount": 3 if rgb else 1,
        "uiSampleIndex": number,
        "uiModalityMask": modality,
        "pFluorescentProbe": {"m_sName": ""},
        "pFilterPath": {
            "m_pFilter": {
                "i0000000000": {
                    "m_ExcitationSpectrum": _spectrum(excitation),
                    "m_EmissionSpectrum": _spectrum(emission),
                }
            }
        },
        "uiColor": colour,
        "sDescription": "Brightfield" if modality == BRIGHTFIELD else name,
    }


def _xml(texts: Mapping[str, str]) -> bytes:
    """Nikon's other form of a dictionary, of texts."""
    items = "".join(f'<{name} runtype="CLxStringW" value="{text}"/>' for name, text in texts.items())
    head = '<?xml version="1.0" encoding="UTF-8"?><variant version="1.0"><no_name runtype="CLxListVariant">'
    return f"{head}{items}</no_name></variant>".encode()


def _experiment(loops: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Loops, the outermost first, each (Nikon's type, parameters)."""
    kind, parameters = loops[0]
    below = {"ppNextLevelEx": {"i0000000000": _experiment(loops[1:])}} if loops[1:] else {}
    return {"eType": kind, "uLoopPars": parameters, "uiNextLevelCount": len(loops[1:]), **below}


def write_nikon_nd2(
    folder: Path,
    *,
    channels: int = 2,
    planes: int = 1,
    times: int = 1,
    positions: int = 1,
    rows: int = ROWS,
    columns: int = COLUMNS,
    bits: int = 12,
    rgb: bool = False,
    modality: int = FLUORESCENCE,
    packed: bool = False,
    padding: int = 0,
    missing: Collection[int] = (),
    step_um: float = 0.5,
    downwards: bool = False,
    calibrated: bool = True,
    floats: bool = False,
    compression: int | None = None,
    gap_bytes: int = 0,
) -> Path:
    """An experiment of ``times`` x ``positions`` x ``planes`` frames, each of ``channels``.

    ``padding`` bytes follow every row; ``missing`` frames were never taken; ``compression`` is
    Nikon's number for it where it shall be a lie; ``gap_bytes`` make the file larger.
    """
    writer = Nd2Writer()
    kind = "<f4" if floats else "u1" if bits == 8 else "<u2"
    components = channels * (3 if rgb else 1)
    row_bytes = columns * components * np.dtype(kind).itemsize + padding
    counts = times, positions, planes
    loops: list[tuple[int, dict[str, Any]]] = []
    if times > 1:
        loops.append((1, {"uiCount": times, "dStart": 0.0, "dPeriod": 1000.0, "dDuration": 0.0}))
    if positions > 1:
        points = {
            f"i{number:010}": {
                "dPosX": 100.0 * number,
                "dPosY": 5.0,
                "dPosZ": 0.0,
                "dPosName": f"Well {number}",
            }
            for number in range(positions)
        }
        loops.append((2, {"uiCount": positions, "bUseZ": False, "Points": points}))
    if planes > 1:
        height = step_um * (planes - 1)
        loops.append(
            (
                4,
                {
                    "uiCount": planes,
                    "dZLow": 0.0,
                    "dZHigh": height,
                    "dZHome": 0.0,
                    "dZStep": step_um,
                    "iType": 4 if downwards else 0,
                    "wsZDevice": "Ti2 ZDrive",
                },
            )
        )
    attributes = {
        "uiWidth": columns,
        "uiWidthBytes": row_bytes,
        "uiHeight": rows,
        "uiComp": components,
        "uiBpcInMemory": np.dtype(kind).itemsize * 8,
        "uiBpcSignificant": 32 if floats else bits,
        "uiSequenceCount": times * positions * planes - len(missing),
        "eCompression": compression if compression is not None else 0 if packed else 2,
    }
    camera = {"CameraUserName": "DS-Qi2", "CameraUniqueName": "Nikon DS-Qi2"}
    setting = {
        "pCameraSetting": camera,
        "pDeviceSetting": {
            "m_sMicroscopeFullName": "Ti2 Microscope",
            "m_sMicroscopePhysFullName": "Nikon Ti2",
        },
    }
    picture_fields = {
        "dTimeMSec": 100.0,
        "dTimeAbsolute": JULIAN_DAY,
        "dCalibration": 0.325,
        "bCalibrated": calibrated,
        "wsObjectiveName": "Plan Apo 20x",
        "dObjectiveMag": 20.0,
        "dObjectiveNA": 0.75,
        "sPicturePlanes": {
            "uiCount": channels,
            "uiCompCount": components,
            "sPlaneNew": {f"a{number}": _plane(number, rgb, modality) for number in range(channels)},
            "uiSampleCount": channels,
            "sSampleSetting": {
                f"a{number}": {**setting, "dExposureTime": 40.0 + number} for number in range(channels)
            },
        },
    }
    application = {
        "m_SWNameString": "NIS-Elements AR",
        "m_VersionString": "5.42.03 (Build 1812)",
        "m_CompanyString": "NIKON Corporation",
    }
    writer.add("ImageMetadataSeqLV|0", variant("SLxPictureMetadata", picture_fields))
    if loops:
        writer.add("ImageMetadataLV", variant("SLxExperiment", _experiment(loops)))
    for number, _ in enumerate(product(*map(range, counts))):
        if number in missing:
            continue
        parts = [
            frame_pixels(number, channel, rows=rows, columns=columns, bits=bits, rgb=rgb)[..., ::-1]
            for channel in range(channels)
        ]
        pixels = np.concatenate(parts, axis=2).astype(kind)
        if floats:
            pixels = pixels / np.float32(100) - np.float32(5)
        flat = np.ascontiguousarray(pixels).view(np.uint8).reshape(rows, -1)
        data = np.pad(flat, ((0, 0), (0, padding))).tobytes()
        writer.add(f"ImageDataSeq|{number}", bytes(8) + (zlib.compress(data, 1) if packed else data))
    writer.add(
        "ImageTextInfoLV",
        variant("SLxImageTextInfo", {"TextInfoItem_5": "Drawn for a test", "TextInfoItem_9": "07/05/2024"}),
    )
    count = times * positions * planes
    writer.add(
        "CustomData|AcqTimesCache", struct.pack(f"<{count}d", *(100.0 + 1000 * n for n in range(count)))
    )
    writer.add("CustomDataVar|AppInfo_V1_0", _xml(application))
    writer.add("ImageAttributesLV", variant("SLxImageAttributes", attributes))
    return writer.save(folder / "slide.nd2", gap_bytes)
