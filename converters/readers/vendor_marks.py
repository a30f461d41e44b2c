# SPDX-License-Identifier: Apache-2.0
"""What vendors leave in their TIFFs. The reader of generic TIFFs refuses each of them:
no reader may claim what another one knows better.

Sources: openslide.org/formats; tifffile; the notes at the top of each reader.
"""

from typing import TYPE_CHECKING

from converters.probe import Probe

if TYPE_CHECKING:
    import tifffile

MARKED_CHARACTERS = 8192
XMP, XMP_OF_VENTANA = 700, b"iScan"
NDPI_TAGS = range(65420, 65460)
DESCRIPTION_STARTS = (
    ("Aperio", "Aperio"),
    ("Motic", "Motic"),
    ("MetaSystems", "MetaSystems"),
    ("Probability_Image", "Ventana BIF"),
    ("level=0 mag=", "Ventana BIF"),
)
DESCRIPTION_HOLDS = (
    ("DPUfsImport", "Philips"),
    ("leica-microsystems.com/scn", "Leica SCN"),
    ("<PerkinElmer-QPI-ImageDescription", "Akoya/PerkinElmer QPTIFF"),
    ("openmicroscopy.org/Schemas/", "OME"),
    ("<OME", "OME"),
)
SOFTWARE_STARTS = (
    ("Philips", "Philips"),
    ("MedScan", "Trestle"),
    ("PerkinElmer-QPI", "Akoya/PerkinElmer QPTIFF"),
)
PRIVATE_TAGS = {34412: "Zeiss LSM", 33628: "MetaMorph STK", 34361: "Olympus FluoView", 50706: "DNG"}
SUFFIXES = {".vsi": "Olympus VSI", ".ndpi": "Hamamatsu NDPI", ".scn": "Leica SCN", ".bif": "Ventana BIF"}
"""Containers that are TIFFs whose own marks lie elsewhere, or may be damaged."""


def vendor_mark(probe: Probe, page: "tifffile.TiffPage") -> str | None:
    """Whose TIFF it is by its first page; None where nobody's mark is on it."""
    description = page.description[:MARKED_CHARACTERS]
    software = page.software
    for start, vendor in DESCRIPTION_STARTS:
        if description.startswith(start):
            return vendor
    for part, vendor in DESCRIPTION_HOLDS:
        if part in description:
            return vendor
    for start, vendor in SOFTWARE_STARTS:
        if software.startswith(start):
            return vendor
    xmp = page.tags.get(XMP)
    if xmp is not None and XMP_OF_VENTANA in bytes(xmp.value if isinstance(xmp.value, bytes) else b""):
        return "Ventana"
    if any(code in page.tags for code in NDPI_TAGS):
        return "Hamamatsu NDPI"
    for code, vendor in PRIVATE_TAGS.items():
        if code in page.tags:
            return vendor
    return SUFFIXES.get(probe.path.suffix.lower())
