# SPDX-License-Identifier: Apache-2.0
"""Headers of VL Whole Slide Microscopy Images (PS3.3 A.32.8), module by module.

Everything comes from the slide, the metadata and the names: no clock, no host, no
library version. What nobody knows is said so or left empty, never made up; the few
values that the standard demands and no file states are named below.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom import Dataset

from converters.errors import MissingPixelSpacing
from converters.slide import LABEL_LEFT, LABEL_TOP, PixelType, Role, Scene, Slide
from converters.writer.decimals import decimal
from converters.writer.icc import srgb_profile
from converters.writer.known import take_over
from converters.writer.metadata import Code, Metadata
from converters.writer.optical_path import BRIGHTFIELD_ONLY, optical_path_item, real_world_items
from converters.writer.sparse import Place, add_positions
from converters.writer.specimen import add_specimen, code_item
from converters.writer.uids import SOFTWARE_VERSION, Names

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.77.1.6"
NOMINAL_ORIGIN_MM = {LABEL_LEFT: (25.0, 50.0), LABEL_TOP: (0.0, 50.0)}
"""Where the first pixel of an image lies that nobody placed: the corner next to the
label of a 25 x 75 mm glass, in slide coordinates."""
NOMINAL_DEPTH_MM = 0.001
"""Slice Thickness (1C) and Imaged Volume Depth (1C): no scanner read here states its
depth of field; 1 µm is that of a 20x objective."""
GLASS_WIDTH_MM = 25.0

MODIFYING_EQUIPMENT = Code("109103", "DCM", "Modifying Equipment")
RESAMPLING = Code("113085", "DCM", "Spatial resampling")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")


@dataclass(frozen=True)
class Identity:
    """What all images of one slide share. ``series_per_region`` gives each scene a series
    of its own, for readers that take a series for one pyramid."""

    slide: Slide
    metadata: Metadata
    names: Names
    container_identifier: str
    barcode: str
    acquired: datetime
    time_is_file_time: bool
    series_per_region: bool = False

    @property
    def study_instance_uid(self) -> str:
        return self.metadata.study_instance_uid or self.names.uid("study")

    def series(self, scene: int, role: Role = Role.VOLUME) -> int:
        """In which of the slide's series an image is, from 0; label and overview, which
        show the whole glass, are in the first."""
        return scene if self.series_per_region and role in (Role.VOLUME, Role.THUMBNAIL) else 0

    def series_instance_uid(self, series: int) -> str:
        first = self.metadata.series_instance_uid or self.names.uid("series")
        return self.names.uid("series", first, series) if series else first


@dataclass(frozen=True)
class Picture:
    """What is particular to one image. Sizes are (rows, columns); ``frame`` is a tile's.

    ``lossy_steps`` holds a (method, ratio) for each lossy compression, oldest first.
    """

    role: Role
    image_type: tuple[str, ...]
    instance_number: int
    sop_instance_uid: str
    scene: Scene
    rows: int
    columns: int
    frame: tuple[int, int]
    number_of_frames: int
    pixel_type: PixelType
    photometric: str
    pixel_spacing_mm: tuple[float, float] | None
    lossy_steps: tuple[tuple[str, float], ...] = ()
    optical_paths: int = 1
    focal_planes: int = 1
    places: tuple[Place, ...] | None = None  # of each frame, where they do not follow from its number
    computed_from: str = ""  # SOP Instance UID of the finer level that this one was averaged from
    known: Dataset | None = None  # what a received header says, to be taken over


def identify(
    slide: Slide, metadata: Metadata, names: Names, barcode: str, *, series_per_region: bool = False
) -> Identity:
    """Names and time of the slide. ``barcode`` is what the label's symbols say.

    A time that is not known is the file's, in UTC, and marked (DESIGN 4)."""
    acquired = slide.scan.acquired
    file_time = datetime.fromtimestamp(int(slide.sources[0].modified), UTC)
    barcode = metadata.barcode or slide.scan.barcode or barcode
    container = metadata.container_identifier or next(iter(barcode.splitlines()), "")
    if not container or len(container) > 64 or "\\" in container or not container.isprintable():
        container = names.unknown_identifier
    return Identity(
        slide=slide,
        metadata=metadata,
        names=names,
        container_identifier=container,
        barcode=barcode,
        acquired=acquired or file_time,
        time_is_file_time=acquired is None,
        series_per_region=series_per_region,
    )


def dataset(identity: Identity, picture: Picture) -> Dataset:
    """The header of one image, without pixel data, offset tables and group 2.

    Raises MissingPixelSpacing for an image that must state its scale and cannot."""
    result = Dataset()
    result.SpecificCharacterSet = "ISO_IR 192"
    result.SOPClassUID = SOP_CLASS_UID
    result.SOPInstanceUID = picture.sop_instance_uid
    _patient_and_study(result, identity)
    _series_and_equipment(result, identity, picture)
    _frame_of_reference(result, identity, picture)
    _acquisition(result, identity, picture)
    _pixels(result, picture)
    _tile_organization(result, identity, picture)
    _optical_path(result, identity, picture)
    _say_what_was_assumed(result)
    add_specimen(result, identity.container_identifier, identity.metadata, identity.names)
    if picture.role is Role.LABEL:
        result.LabelText = identity.metadata.label_text or identity.slide.scan.label_text
        result.BarcodeValue = identity.barcode
    result.AcquisitionContextSequence = []
    if picture.known is not None:
        computed = bool(picture.computed_from)
        take_over(result, picture.known, identity.metadata, identity.names, computed=computed)
    return result


def _patient_and_study(to: Dataset, identity: Identity) -> None:
    known, unknown = identity.metadata, identity.names.unknown_identifier
    to.PatientName = known.patient_name
    to.PatientID = known.patient_id or unknown
    if known.issuer_of_patient_id:
        to.IssuerOfPatientID = known.issuer_of_patient_id
    to.PatientBirthDate = known.patient_birth_date
    to.PatientSex = known.patient_sex
    to.StudyInstanceUID = identity.study_instance_uid
    to.StudyDate = known.study_date or _date(identity.acquired)
    to.StudyTime = known.study_time or ("" if known.study_date else _time(identity.acquired))
    to.StudyID = known.study_id or unknown
    to.AccessionNumber = known.accession_number
    to.ReferringPhysicianName = known.referring_physician_name
    if known.study_description:
        to.StudyDescription = known.study_description


def _series_and_equipment(to: Dataset, identity: Identity, picture: Picture) -> None:
    known, scan = identity.metadata, identity.slide.scan
    series = identity.series(picture.scene.index, picture.role)
    to.Modality = "SM"
    to.SeriesInstanceUID = identity.series_instance_uid(series)
    to.SeriesNumber = known.series_number + series
    if known.series_description:
        to.SeriesDescription = known.series_description
    if known.body_part_examined:
        to.BodyPartExamined = known.body_part_examined
    to.Manufacturer = known.manufacturer or scan.manufacturer or "Unknown"
    to.ManufacturerModelName = known.manufacturer_model_name or scan.model_name or "Unknown"
    to.DeviceSerialNumber = known.device_serial_number or scan.device_serial_number or "Unknown"
    to.SoftwareVersions = list(known.software_versions or scan.software_versions or ("Unknown",))
    ours = Dataset()
    ours.PurposeOfReferenceCodeSequence = [code_item(MODIFYING_EQUIPMENT)]
    ours.Manufacturer = "Coverslip"
    ours.ManufacturerModelName = "Coverslip"
    ours.SoftwareVersions = SOFTWARE_VERSION
    ours.ContributionDescription = "Scanner file to DICOM; compressed tiles copied where legal"
    to.ContributingEquipmentSequence = [ours]


def _say_what_was_assumed(to: Dataset) -> None:
    """A colour profile that is not the scanner's is marked as ours."""
    if any(path.get("ICCProfile") == srgb_profile() for path in to.OpticalPathSequence):
        ours = to.ContributingEquipmentSequence[-1]
        ours.ContributionDescription += "; colours assumed to be sRGB: the scanner gave no ICC profile"


def _frame_of_reference(to: Dataset, identity: Identity, picture: Picture) -> None:
    """LABEL and OVERVIEW are not registered with the pyramid: a frame each, no PyramidUID."""
    names, scene = identity.names, picture.scene.index
    if picture.role in (Role.VOLUME, Role.THUMBNAIL):
        to.FrameOfReferenceUID = names.uid("frame of reference", "glass")
        to.PyramidUID = names.uid("pyramid", scene)
        if picture.scene.label:
            to.PyramidLabel = picture.scene.label[:64]
    else:
        to.FrameOfReferenceUID = names.uid("frame of reference", picture.role.value)
    to.PositionReferenceIndicator = "SLIDE_CORNER"


def _acquisition(to: Dataset, identity: Identity, picture: Picture) -> None:
    scene = picture.scene
    acquired = scene.acquired or identity.acquired
    to.AcquisitionUID = identity.names.uid("acquisition", picture.scene.index)
    to.AcquisitionNumber = picture.scene.index + 1
    zone = acquired.strftime("%z")
    to.AcquisitionDateTime = _date(acquired) + _time(acquired) + zone
    if zone:
        to.TimezoneOffsetFromUTC = zone
    to.ContentDate, to.ContentTime = _date(acquired), _time(acquired)
    if identity.time_is_file_time and scene.acquired is None:
        to.AcquisitionDeviceProcessingDescription = "Acquisition time unknown: file time used"
    to.InstanceNumber = picture.instance_number
    to.ImageType = list(picture.image_type)
    to.VolumetricProperties = "VOLUME"
    to.FocusMethod = "AUTO"
    to.ExtendedDepthOfField = "NO"
    # a macro photograph shows the label unless somebody looked: assume that it does
    shows_label = picture.role in (Role.LABEL, Role.OVERVIEW)
    to.BurnedInAnnotation = "YES" if shows_label else "NO"
    to.SpecimenLabelInImage = "YES" if shows_label else "NO"
    to.LossyImageCompression = "01" if picture.lossy_steps else "00"
    if picture.lossy_steps:
        to.LossyImageCompressionRatio = [decimal(round(ratio, 2)) for _, ratio in picture.lossy_steps]
        to.LossyImageCompressionMethod = [method for method, _ in picture.lossy_steps]


def _pixels(to: Dataset, picture: Picture) -> None:
    pixel = picture.pixel_type
    to.SamplesPerPixel = pixel.samples_per_pixel
    to.PhotometricInterpretation = picture.photometric
    if pixel.samples_per_pixel > 1:
        to.PlanarConfiguration = 0
    else:
        to.PresentationLUTShape = "IDENTITY"
        to.RescaleIntercept, to.RescaleSlope = 0, 1
    to.Rows, to.Columns = picture.frame
    to.BitsAllocated = pixel.bits_allocated
    to.BitsStored = pixel.bits_stored
    to.HighBit = pixel.bits_stored - 1
    to.PixelRepresentation = 0
    to.NumberOfFrames = picture.number_of_frames


def _tile_organization(to: Dataset, identity: Identity, picture: Picture) -> None:
    names = identity.names
    to.TotalPixelMatrixRows, to.TotalPixelMatrixColumns = picture.rows, picture.columns
    origin = Dataset()
    placed = picture.scene.origin_mm if picture.role in (Role.VOLUME, Role.THUMBNAIL) else None
    orientation = picture.scene.orientation
    x, y = placed or NOMINAL_ORIGIN_MM.get(orientation, NOMINAL_ORIGIN_MM[LABEL_LEFT])
    origin.XOffsetInSlideCoordinateSystem = decimal(x)
    origin.YOffsetInSlideCoordinateSystem = decimal(y)
    planes_um = picture.scene.focal_planes_um
    if picture.focal_planes > 1:
        origin.ZOffsetInSlideCoordinateSystem = decimal(planes_um[0])
    to.TotalPixelMatrixOriginSequence = [origin]
    to.ImageOrientationSlide = [decimal(value) for value in orientation]
    organization = Dataset()
    organization.DimensionOrganizationUID = names.uid("dimension organization", picture.sop_instance_uid)
    to.DimensionOrganizationSequence = [organization]
    spacing = picture.pixel_spacing_mm
    if spacing is None:
        raise MissingPixelSpacing
    if picture.places is None:
        to.DimensionOrganizationType = "TILED_FULL"
        to.TotalPixelMatrixFocalPlanes = picture.focal_planes
        to.NumberOfOpticalPaths = picture.optical_paths
    else:
        add_positions(to, picture.places, (x, y), spacing, picture.scene)
    measures = Dataset()
    measures.PixelSpacing = [decimal(value) for value in spacing]
    measures.SliceThickness = decimal(NOMINAL_DEPTH_MM)
    if picture.focal_planes > 1:
        distance_mm = (planes_um[-1] - planes_um[0]) / (len(planes_um) - 1) / 1000
        measures.SpacingBetweenSlices = decimal(distance_mm)
    frame_type = Dataset()
    frame_type.FrameType = list(picture.image_type)
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [frame_type]
    if picture.optical_paths == 1:
        path = Dataset()
        of_tissue = picture.role in (Role.VOLUME, Role.THUMBNAIL)
        known = picture.scene.optical_paths if of_tissue else BRIGHTFIELD_ONLY
        path.OpticalPathIdentifier = known[0].identifier
        shared.OpticalPathIdentificationSequence = [path]
    paths = picture.scene.optical_paths[: picture.optical_paths]
    mapped = real_world_items(paths, picture.pixel_type) if picture.role is Role.VOLUME else []
    if mapped:
        shared.RealWorldValueMappingSequence = mapped
    if picture.computed_from:
        shared.DerivationImageSequence = [_derivation(picture.computed_from)]
        to.ReferencedSeriesSequence = [_same_series(identity, picture)]
    to.SharedFunctionalGroupsSequence = [shared]
    if picture.role in (Role.VOLUME, Role.THUMBNAIL):
        to.ImagedVolumeWidth = picture.columns * spacing[1]
        to.ImagedVolumeHeight = picture.rows * spacing[0]
        to.ImagedVolumeDepth = NOMINAL_DEPTH_MM * 1000 + planes_um[-1] - planes_um[0]  # µm


def _same_series(identity: Identity, picture: Picture) -> Dataset:
    """Common Instance Reference (PS3.3 C.12.2): the finer image, of the same series."""
    referenced = Dataset()
    referenced.ReferencedSOPClassUID = SOP_CLASS_UID
    referenced.ReferencedSOPInstanceUID = picture.computed_from
    item = Dataset()
    item.SeriesInstanceUID = identity.series_instance_uid(identity.series(picture.scene.index))
    item.ReferencedInstanceSequence = [referenced]
    return item


def _derivation(sop_instance_uid: str) -> Dataset:
    """What a level that we computed comes from (PS3.3 C.7.6.16.2.6)."""
    source = Dataset()
    source.ReferencedSOPClassUID = SOP_CLASS_UID
    source.ReferencedSOPInstanceUID = sop_instance_uid
    source.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
    item = Dataset()
    item.DerivationDescription = "Averaged by area, 2 x 2 pixels to one"
    item.DerivationCodeSequence = [code_item(RESAMPLING)]
    item.SourceImageSequence = [source]
    return item


def _optical_path(to: Dataset, identity: Identity, picture: Picture) -> None:
    """Label and overview come from another camera, under white light."""
    of_tissue = picture.role in (Role.VOLUME, Role.THUMBNAIL)
    paths = picture.scene.optical_paths[: picture.optical_paths] if of_tissue else BRIGHTFIELD_ONLY
    if picture.role is Role.THUMBNAIL and picture.pixel_type.samples_per_pixel > 1:
        paths = paths[:1]  # the channels are mixed in it
    samples = picture.pixel_type.samples_per_pixel
    to.OpticalPathSequence = [optical_path_item(path, samples) for path in paths]


def nominal_spacing_mm(rows: int, columns: int, *, whole_glass: bool) -> tuple[float, float]:
    """The scale of a label or macro photograph, which no scanner states: the short side
    of the picture is the glass's 25 mm (a macro shows all of it, a label its end)."""
    across = rows if whole_glass else min(rows, columns)
    return (GLASS_WIDTH_MM / across, GLASS_WIDTH_MM / across)


def _date(moment: datetime) -> str:
    return moment.strftime("%Y%m%d")


def _time(moment: datetime) -> str:
    return moment.strftime("%H%M%S")
