# SPDX-License-Identifier: Apache-2.0
"""Which SOP classes are of no patient, and under which resource they lie (PS3.18 Table
12.1.1-1, PS3.4 Table GG.3-1; ``protocol-approvals`` is CP-2551's)."""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "color-palettes": ("1.2.840.10008.5.1.4.39.1",),
    "defined-procedure-protocols": ("1.2.840.10008.5.1.4.1.1.200.1", "1.2.840.10008.5.1.4.1.1.200.7"),
    "hanging-protocols": ("1.2.840.10008.5.1.4.38.1",),
    "implant-templates": (
        "1.2.840.10008.5.1.4.43.1", "1.2.840.10008.5.1.4.44.1", "1.2.840.10008.5.1.4.45.1",
    ),
    "inventories": ("1.2.840.10008.5.1.4.1.1.201.1",),
    "protocol-approvals": ("1.2.840.10008.5.1.4.1.1.200.3",),
}  # fmt: skip
"""Resource category -> SOP classes."""

CATEGORY_OF = {uid: category for category, uids in CATEGORIES.items() for uid in uids}

INVENTORIES = "inventories"
"""Of no patient, and full of patients: for those only who see every study."""

# What a search returns of each category, unless more is asked for: the keys of the
# information models (PS3.4 X.6, HH.6, U.6, BB.6, JJ.6), by keyword.
_EVERY = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "InstanceCreationDate",
    "InstanceCreationTime", "ContentLabel", "ContentDescription", "ContentCreatorName",
)  # fmt: skip
RETURNED: dict[str, tuple[str, ...]] = {
    "color-palettes": (*_EVERY, "AlternateContentDescriptionSequence"),
    "defined-procedure-protocols": (
        *_EVERY, "ProtocolName", "Modality", "Manufacturer", "ManufacturerModelName", "ContentQualification",
        "PotentialScheduledProtocolCodeSequence", "PotentialRequestedProcedureCodeSequence",
        "PotentialReasonsForProcedure", "PotentialReasonsForProcedureCodeSequence",
        "PotentialDiagnosticTasks", "ModelSpecificationSequence", "CustodialOrganizationSequence",
        "ResponsibleGroupCodeSequence",
    ),
    "hanging-protocols": (
        *_EVERY, "HangingProtocolName", "HangingProtocolDescription", "HangingProtocolLevel",
        "HangingProtocolCreator", "HangingProtocolCreationDateTime", "HangingProtocolDefinitionSequence",
        "NumberOfPriorsReferenced", "HangingProtocolUserIdentificationCodeSequence",
        "HangingProtocolUserGroupName", "NumberOfScreens", "NominalScreenDefinitionSequence",
    ),
    "implant-templates": (
        *_EVERY, "Manufacturer", "ImplantName", "ImplantPartNumber", "ImplantSize", "ImplantType",
        "ImplantTemplateVersion", "EffectiveDateTime", "ImplantAssemblyTemplateName",
        "ImplantAssemblyTemplateIssuer", "ImplantAssemblyTemplateVersion", "ImplantAssemblyTemplateType",
        "ImplantTemplateGroupName", "ImplantTemplateGroupDescription", "ImplantTemplateGroupIssuer",
        "ImplantTemplateGroupVersion",
    ),
    "inventories": (
        *_EVERY, "ContentDate", "ContentTime", "InventoryPurpose", "InventoryInstanceDescription",
        "InventoryLevel", "ItemInventoryDateTime", "InventoryCompletionStatus",
        "NumberOfStudyRecordsInInstance", "TotalNumberOfStudyRecords",
    ),
    "protocol-approvals": (*_EVERY, "ApprovalSubjectSequence"),
}  # fmt: skip
