# SPDX-License-Identifier: Apache-2.0
"""The XML header of iSyntax: objects of attributes, each with its tag and type of value."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_TAGS = {
    "DICOM_ACQUISITION_DATETIME": (0x0008, 0x002A, "IString"),
    "DICOM_MANUFACTURER": (0x0008, 0x0070, "IString"),
    "DICOM_MANUFACTURERS_MODEL_NAME": (0x0008, 0x1090, "IString"),
    "DICOM_DERIVATION_DESCRIPTION": (0x0008, 0x2111, "IString"),
    "DICOM_DEVICE_SERIAL_NUMBER": (0x0018, 0x1000, "IString"),
    "DICOM_SOFTWARE_VERSIONS": (0x0018, 0x1020, "IStringArray"),
    "DICOM_DATE_OF_LAST_CALIBRATION": (0x0018, 0x1200, "IStringArray"),
    "DICOM_TIME_OF_LAST_CALIBRATION": (0x0018, 0x1201, "IStringArray"),
    "DICOM_SAMPLES_PER_PIXEL": (0x0028, 0x0002, "IUInt16"),
    "DICOM_BITS_ALLOCATED": (0x0028, 0x0100, "IUInt16"),
    "DICOM_BITS_STORED": (0x0028, 0x0101, "IUInt16"),
    "DICOM_HIGH_BIT": (0x0028, 0x0102, "IUInt16"),
    "DICOM_PIXEL_REPRESENTATION": (0x0028, 0x0103, "IUInt16"),
    "DICOM_ICCPROFILE": (0x0028, 0x2000, "IString"),
    "DICOM_LOSSY_IMAGE_COMPRESSION": (0x0028, 0x2110, "IString"),
    "DICOM_LOSSY_IMAGE_COMPRESSION_RATIO": (0x0028, 0x2112, "IDouble"),
    "DICOM_LOSSY_IMAGE_COMPRESSION_METHOD": (0x0028, 0x2114, "IString"),
    "PIIM_DP_SCANNER_RACK_NUMBER": (0x101D, 0x1007, "IUInt16"),
    "PIIM_DP_SCANNER_SLOT_NUMBER": (0x101D, 0x1008, "IUInt16"),
    "PIIM_DP_SCANNER_OPERATOR_ID": (0x101D, 0x1009, "IString"),
    "PIIM_DP_SCANNER_CALIBRATION_STATUS": (0x101D, 0x100A, "IString"),
    "PIM_DP_UFS_INTERFACE_VERSION": (0x301D, 0x1001, "IString"),
    "PIM_DP_UFS_BARCODE": (0x301D, 0x1002, "IString"),
    "PIM_DP_SCANNED_IMAGES": (0x301D, 0x1003, "IDataObjectArray"),
    "PIM_DP_IMAGE_TYPE": (0x301D, 0x1004, "IString"),
    "PIM_DP_IMAGE_DATA": (0x301D, 0x1005, "IString"),
    "DP_COLOR_MANAGEMENT": (0x301D, 0x1013, "IDataObjectArray"),
    "UFS_IMAGE_GENERAL_HEADERS": (0x301D, 0x2000, "IDataObjectArray"),
    "UFS_IMAGE_NUMBER_OF_BLOCKS": (0x301D, 0x2001, "IUInt32"),
    "UFS_IMAGE_DIMENSIONS_OVER_BLOCK": (0x301D, 0x2002, "IUInt16Array"),
    "UFS_IMAGE_DIMENSIONS": (0x301D, 0x2003, "IDataObjectArray"),
    "UFS_IMAGE_DIMENSION_NAME": (0x301D, 0x2004, "IString"),
    "UFS_IMAGE_DIMENSION_TYPE": (0x301D, 0x2005, "IString"),
    "UFS_IMAGE_DIMENSION_UNIT": (0x301D, 0x2006, "IString"),
    "UFS_IMAGE_DIMENSION_SCALE_FACTOR": (0x301D, 0x2007, "IDouble"),
    "UFS_IMAGE_DIMENSION_DISCRETE_VALUES_STRING": (0x301D, 0x2008, "IStringArray"),
    "UFS_IMAGE_BLOCK_HEADER_TEMPLATES": (0x301D, 0x2009, "IDataObjectArray"),
    "UFS_IMAGE_DIMENSION_RANGES": (0x301D, 0x200A, "IDataObjectArray"),
    "UFS_IMAGE_DIMENSION_RANGE": (0x301D, 0x200B, "IUInt32Array"),
    "UFS_IMAGE_DIMENSIONS_IN_BLOCK": (0x301D, 0x200C, "IUInt16Array"),
    "UFS_IMAGE_BLOCK_HEADERS": (0x301D, 0x200D, "IDataObjectArray"),
    "UFS_IMAGE_BLOCK_COORDINATE": (0x301D, 0x200E, "IUInt32Array"),
    "UFS_IMAGE_BLOCK_COMPRESSION_METHOD": (0x301D, 0x200F, "IString"),
    "UFS_IMAGE_BLOCK_HEADER_TEMPLATE_ID": (0x301D, 0x2012, "IUInt32"),
    "UFS_IMAGE_BLOCK_HEADER_TABLE": (0x301D, 0x2014, "IString"),
    "UFS_IMAGE_CLUSTER_HEADER_TEMPLATES": (0x301D, 0x2016, "IDataObjectArray"),
    "UFS_IMAGE_CLUSTER_HEADER_TABLE": (0x301D, 0x201F, "IString"),
    "UFS_IMAGE_DIMENSIONS_IN_CLUSTER": (0x301D, 0x2021, "IUInt16Array"),
}


@dataclass(frozen=True)
class DataObject:
    """A DataObject: its type, and name and value (text or objects) of each attribute."""

    kind: str
    attributes: Sequence[tuple[str, "str | Sequence[DataObject]"]]

    def xml(self) -> str:
        return (
            f'<DataObject ObjectType="{self.kind}">\n{"".join(map(_attribute, self.attributes))}</DataObject>'
        )


def _attribute(pair: tuple[str, "str | Sequence[DataObject]"]) -> str:
    name, value = pair
    group, element, kind = _TAGS[name]
    if isinstance(value, str):
        text = escape(value)
    else:
        text = (
            "\n<Array>\n" + "\n".join(item.xml() for item in value) + "\n</Array>\n"
        )  # libisyntax needs the line breaks
    tag = f'Name="{name}" Group="0x{group:04X}" Element="0x{element:04X}" PMSVR="{kind}"'
    return f"<Attribute {tag}>{text}</Attribute>\n"


def dimension_ranges(*ranges: tuple[int, int, int]) -> tuple[str, list[DataObject]]:
    return "UFS_IMAGE_DIMENSION_RANGES", [
        DataObject("UFSImageDimensionRange", [("UFS_IMAGE_DIMENSION_RANGE", f"{start} {step} {end}")])
        for start, step, end in ranges
    ]
