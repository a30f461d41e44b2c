# SPDX-License-Identifier: Apache-2.0
"""Small non-patient instances: a colour palette, a hanging protocol, an inventory."""

import io

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.8.498.12"
PALETTE, HANGING = "1.2.840.10008.5.1.4.39.1", "1.2.840.10008.5.1.4.38.1"
TEMPLATE, INVENTORY = "1.2.840.10008.5.1.4.43.1", "1.2.840.10008.5.1.4.1.1.201.1"


def data_set(sop_class: str, number: int = 1, **values: object) -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = sop_class, f"{ROOT}.{number}"
    made.InstanceCreationDate, made.InstanceCreationTime = "20260102", "101112"
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def written(made: Dataset, syntax: str = ExplicitVRLittleEndian, *, bare: bool = False) -> bytes:
    out = io.BytesIO()
    made = Dataset(made)
    if not bare:
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = syntax
    implicit = syntax == "1.2.840.10008.1.2"
    made.save_as(out, enforce_file_format=not bare, implicit_vr=implicit, little_endian=True)
    return out.getvalue()


def palette(number: int = 1, label: str = "HOT_IRON", entries: int = 256) -> Dataset:
    lut = bytes(range(256)) * (entries // 128)
    return data_set(
        PALETTE, number, ContentLabel=label, ContentDescription="Hot, für Wärme",
        ContentCreatorName="Müller^Jörg", RedPaletteColorLookupTableDescriptor=[entries % 65536, 0, 16],
        GreenPaletteColorLookupTableDescriptor=[entries % 65536, 0, 16],
        BluePaletteColorLookupTableDescriptor=[entries % 65536, 0, 16],
        RedPaletteColorLookupTableData=lut, GreenPaletteColorLookupTableData=lut,
        BluePaletteColorLookupTableData=lut, PaletteColorLookupTableUID="1.2.840.10008.1.5.1",
    )  # fmt: skip


def hanging_protocol(number: int = 2, name: str = "HE_THREE_UP") -> Dataset:
    definition = Dataset()
    definition.Modality, definition.Laterality = "SM", ""
    return data_set(
        HANGING, number, HangingProtocolName=name, HangingProtocolDescription="Three levels",
        HangingProtocolLevel="SITE", HangingProtocolCreator="Pathology",
        HangingProtocolCreationDateTime="20260102101112", HangingProtocolDefinitionSequence=[definition],
        NumberOfPriorsReferenced=0,
    )  # fmt: skip


def inventory(number: int = 3) -> Dataset:
    return data_set(
        INVENTORY, number, ContentDate="20260102", ContentTime="101112", InventoryPurpose="Test",
        InventoryLevel="STUDY",
    )  # fmt: skip
