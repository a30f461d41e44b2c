# SPDX-License-Identifier: Apache-2.0
"""Optical paths (PS3.3 C.8.12.5): brightfield, or the channels of fluorescence."""

from collections.abc import Sequence

from pydicom import Dataset

from converters.slide import Illumination, OpticalPath, PixelType
from converters.writer.decimals import decimal
from converters.writer.icc import srgb_profile, usable_profile
from converters.writer.metadata import Code
from converters.writer.specimen import code_item

ILLUMINATION = {
    Illumination.BRIGHTFIELD: Code("111744", "DCM", "Brightfield illumination"),
    Illumination.EPIFLUORESCENCE: Code("111743", "DCM", "Epifluorescence illumination"),
    Illumination.DARKFIELD: Code("111745", "DCM", "Darkfield illumination"),
    Illumination.PHASE_CONTRAST: Code("111747", "DCM", "Phase contrast illumination"),
    Illumination.DIFFERENTIAL_INTERFERENCE_CONTRAST: Code(
        "111748", "DCM", "Differential interference contrast"
    ),
}
FULL_SPECTRUM = Code("414298005", "SCT", "Full Spectrum")
NO_UNITS = Code("1", "UCUM", "no units")
BRIGHTFIELD_ONLY = (OpticalPath(),)


def optical_path_item(path: OpticalPath, samples_per_pixel: int) -> Dataset:
    """One item of the Optical Path Sequence. Colours need a profile: where the scanner
    gave none, sRGB is assumed (``dataset`` and the profile's own description say so)."""
    item = Dataset()
    item.OpticalPathIdentifier = path.identifier[:16]
    item.IlluminationTypeCodeSequence = [code_item(ILLUMINATION[path.illumination])]
    if path.excitation_nm is not None:
        item.IlluminationWaveLength = float(path.excitation_nm)
        item.LightPathFilterPassThroughWavelength = round(path.excitation_nm)
    else:
        item.IlluminationColorCodeSequence = [code_item(FULL_SPECTRUM)]
    if path.emission_nm is not None:
        item.ImagePathFilterPassThroughWavelength = round(path.emission_nm)
    description = _description(path)
    if samples_per_pixel > 1:
        item.ICCProfile = usable_profile(path.icc_profile, samples_per_pixel) or srgb_profile()
    if description:
        item.OpticalPathDescription = description
    if path.objective_power is not None:
        item.ObjectiveLensPower = decimal(path.objective_power)
    if path.numerical_aperture is not None:
        item.ObjectiveLensNumericalAperture = decimal(path.numerical_aperture)
    return item


def _description(path: OpticalPath) -> str:
    """The channel's name, its dye where that says more, and its exposure, for which the
    standard has no attribute in an optical path."""
    notes = []
    if path.fluorophore and path.fluorophore != path.description:
        notes.append(path.fluorophore)
    if path.exposure_ms is not None:
        notes.append(f"exposure {path.exposure_ms:g} ms")
    if not notes:
        return path.description
    return f"{path.description} ({', '.join(notes)})" if path.description else ", ".join(notes)


def real_world_items(paths: Sequence[OpticalPath], pixel_type: PixelType) -> list[Dataset]:
    """Real World Value Mapping items (PS3.3 C.7.6.16.2.11) of the paths that have one, the
    same mapping once; the label names the optical paths that it is for."""
    items = []
    mappings = dict.fromkeys(path.real_world for path in paths if path.real_world is not None)
    for mapping in mappings:
        named = [path.identifier for path in paths if path.real_world == mapping]
        units = Dataset()
        units.update(code_item(NO_UNITS))
        item = Dataset()
        item.RealWorldValueFirstValueMapped = 0
        item.RealWorldValueLastValueMapped = (1 << pixel_type.bits_stored) - 1
        item["RealWorldValueFirstValueMapped"].VR = item["RealWorldValueLastValueMapped"].VR = "US"
        item.RealWorldValueIntercept = mapping.intercept
        item.RealWorldValueSlope = mapping.slope
        item.LUTExplanation = mapping.explanation[:64]
        item.LUTLabel = ("all" if len(named) == len(paths) else " ".join(named))[:16]
        item.MeasurementUnitsCodeSequence = [units]
        items.append(item)
    return items
