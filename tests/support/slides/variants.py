# SPDX-License-Identifier: Apache-2.0
"""Every kind of slide that tests draw, by name: what ``tests/corpus/samples.toml`` lists.

The bases of the damage corpus, and besides each what a vendor may write otherwise.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pydicom

from converters.convert import convert
from tests.support.make_slide import make_svs, picture
from tests.support.slides import (
    BASES,
    generic_tiff,
    isyntax,
    leica_scn,
    motic_mds,
    motic_mdsx,
    motic_tiff,
    mrxs,
    ndpi,
    nikon_nd2,
    olympus_vsi,
    ome_tiff,
    philips_tiff,
    qptiff,
    svslide,
    trestle,
    ventana_bif,
    vms,
    zeiss_czi,
)
from tests.support.slides.motic import MoticSlide
from tests.support.slides.olympus_stacks import DAPI, FITC, DrawnStack

Writer = Callable[[Path], Path]


def _svs(**options: object) -> Writer:
    return lambda folder: make_svs(folder / "slide.svs", **options)  # type: ignore[arg-type]


def _ome(image: ome_tiff.Image, **options: object) -> Writer:
    return lambda folder: ome_tiff.write_ome(folder, [image], **options)  # type: ignore[arg-type]


def _vsi(*stacks: DrawnStack) -> Writer:
    return lambda folder: olympus_vsi.write_olympus_vsi(folder, stacks)


def _generic(**options: object) -> Writer:
    return partial(generic_tiff.write_generic_tiff, rows=500, columns=600, levels=(1, 2), **options)


def _grey(dtype: str, **options: object) -> ome_tiff.Image:
    form = {"tile": (128, 128), "compression": "zlib"}
    drawn = ome_tiff.grey(1, rows=300, columns=400, dtype=dtype)
    return ome_tiff.Image(drawn, form=form, **options)  # type: ignore[arg-type]


def _dicom(change: Callable[[pydicom.Dataset], None] | None = None) -> Writer:
    """A drawn Aperio slide, converted, each header then changed; the main file is the finest level."""

    def write(folder: Path) -> Path:
        source = make_svs(folder / "slide.svs")
        convert([source], folder / "dicom")
        source.unlink()
        for path in (folder / "dicom" / "slide").iterdir() if change is not None else ():
            header = pydicom.dcmread(path)
            change(header)
            header.save_as(path)
        return folder / "dicom" / "slide" / "level-0.dcm"

    return write


def _as_in_the_wild(header: pydicom.Dataset) -> None:
    """What converters leave out or say wrongly."""
    shared = header.SharedFunctionalGroupsSequence[0]
    del header.OpticalPathSequence, shared.OpticalPathIdentificationSequence, header.FrameOfReferenceUID
    header.pop("PyramidUID", None)
    if header.PhotometricInterpretation == "RGB" and header.ImageType[2] == "VOLUME":
        header.PhotometricInterpretation = "YBR_FULL_422"


_STACK = replace(DrawnStack(), rows=500, columns=620, levels=2)
_REGIONS = (
    leica_scn.Region(500, 700),
    leica_scn.Region(400, 600, (40_000_000, 8_000_000), 40, 250, created="2010-11-18T10:40:00.00Z", seed=22),
)
_AREAS = (
    ventana_bif.Area((3, 2), position=(20_000, 40_000)),
    ventana_bif.Area((3, 3), (0, 2), position=(60_000, 41_000), seed=42),
)

VARIANTS: dict[str, Writer] = BASES | {
    "aperio": _svs(icc=True, barcode="S26-1234"),
    "aperio_jpeg_422": _svs(photometric="YCBCR", subsampling="422"),
    "aperio_jpeg_420": _svs(photometric="YCBCR", subsampling="420"),
    "aperio_jpeg_444": _svs(photometric="YCBCR", describe_levels=False),
    "aperio_jpeg_2000_rgb": _svs(compression=33005),
    "aperio_jpeg_2000_ycbcr": _svs(compression=33003),
    "aperio_holes": _svs(missing_tiles=(1, 5)),
    "aperio_mostly_holes": _svs(levels=(1,), missing_tiles=(0, 1, 2, 3, 5, 8, 10, 11)),
    "aperio_no_mpp": _svs(mpp=None),
    "leica_scn_regions": partial(leica_scn.write_leica_scn, regions=_REGIONS, label=True),
    "leica_scn_2010_03": partial(leica_scn.write_leica_scn, old_schema=True),
    "hamamatsu_ndpi_422": partial(ndpi.write_ndpi, subsampling="422", map_image=True),
    "hamamatsu_ndpi_420": partial(ndpi.write_ndpi, subsampling="420"),
    "hamamatsu_ndpi_no_starts": partial(ndpi.write_ndpi, mcu_starts="none"),
    "hamamatsu_ndpi_stack": partial(ndpi.write_ndpi, levels=(1, 4), planes_nm=(-1000, 0, 1000)),
    "hamamatsu_ndpi_wide": partial(ndpi.write_wide_ndpi, rows=128),
    "hamamatsu_ndpi_jpeg_xr": partial(
        ndpi.write_ndpi, rows=504, columns=700, levels=(1,), grey=True, compression=ndpi.JPEG_XR, macro=False,
        channel=("DAPI", 455.0),
    ),
    "hamamatsu_ndpis_colour": partial(ndpi.write_ndpis, grey=False),
    "hamamatsu_vms_stack": partial(vms.write_vms, layers=3),
    "hamamatsu_vmu": vms.write_vmu,
    "philips_tiff_holes": partial(
        philips_tiff.write_philips_tiff, missing=(1, 3), pictures_in_xml=False, pictures_in_pages=True
    ),
    "philips_isyntax_lossy": partial(
        isyntax.write_isyntax, pixels=isyntax.tissue(300, 400), levels=3, lossy=True
    ),
    "philips_isyntax_clusters": partial(
        isyntax.write_isyntax, pixels=isyntax.tissue(300, 400), levels=3, compressor=2, table="clusters"
    ),
    "mirax_holes": partial(mrxs.write_mrxs, present=(0, 1, 2, 3, 4, 6, 7, 8, 9, 11)),
    "mirax_png": partial(mrxs.write_mrxs, image_format="PNG"),
    "mirax_fluorescence": partial(mrxs.write_mrxs, filters=mrxs.FILTERS),
    "mirax_stack": partial(mrxs.write_mrxs, planes_um=(-1.0, 0.0, 1.0)),
    "ventana_bif_areas": partial(ventana_bif.write_ventana_bif, areas=_AREAS, grid=(3, 5)),
    "ventana_bif_stack": partial(ventana_bif.write_ventana_bif, planes=3),
    "ventana_tiff": partial(ventana_bif.write_ventana_bif, encode_info=False, label_boundary=200),
    "zeiss_czi_raw": zeiss_czi.write_brightfield,
    "zeiss_czi_fluorescence": zeiss_czi.write_fluorescence,
    "zeiss_czi_scenes": zeiss_czi.write_scenes,
    "zeiss_czi_times": partial(zeiss_czi.write_channels, times=3),
    "zeiss_czi_no_z_spacing": partial(zeiss_czi.write_channels, spacing_z_um=None),
    "zeiss_czi_hole": partial(zeiss_czi.write_slide, hole=True, attachments=False),
    "zeiss_czi_float": lambda folder: zeiss_czi.write_samples(
        folder, np.float32(picture(200, 300)[..., :1]) / 64 - 1
    ),
    "olympus_vsi_jpeg_2000": olympus_vsi.write_jpeg_2000,
    "olympus_vsi_raw": _vsi(replace(_STACK, coding="bgr")),
    "olympus_vsi_stack": _vsi(replace(_STACK, planes=3, axes="z")),
    "olympus_vsi_times": _vsi(replace(_STACK, channels=(DAPI, FITC), axes="c", times=2, files=2)),
    "nikon_nd2_stack": partial(nikon_nd2.write_nikon_nd2, planes=3, times=2),
    "nikon_nd2_positions": partial(nikon_nd2.write_nikon_nd2, positions=2, packed=True),
    "nikon_nd2_colour": partial(nikon_nd2.write_nikon_nd2, channels=1, rgb=True, bits=8, modality=0x102),
    "nikon_nd2_float": partial(nikon_nd2.write_nikon_nd2, channels=1, floats=True),
    "nikon_nd2_lossy": partial(nikon_nd2.write_nikon_nd2, compression=1),
    "nikon_nd2_uncalibrated": partial(nikon_nd2.write_nikon_nd2, calibrated=False),
    "motic_mds_scattered": partial(motic_mds.write_motic_mds, scattered=True),
    "motic_mds_holes": partial(motic_mds.write_motic_mds, slide=MoticSlide(missing=((0, 1, 1), (1, 0, 0)))),
    "motic_mdsx_holes": partial(
        motic_mdsx.write_motic_mdsx, slide=MoticSlide(missing=((0, 1, 1),)), encoded=False
    ),
    "motic_tiff_420": partial(motic_tiff.write_motic_tiff, subsampling=(2, 2)),
    "sakura_svslide_stack": partial(svslide.write_svslide, heights=(-0.001, 0.0, 0.001)),
    "sakura_svslide_holes": partial(svslide.write_svslide, missing=((1, 1),)),
    "akoya_brightfield": partial(qptiff.write_qptiff, kind="brightfield"),
    "akoya_qptiff_16_bits": partial(qptiff.write_qptiff, rows=500, columns=600, dtype="uint16", bands=2),
    "akoya_qptiff_strips": partial(qptiff.write_qptiff, rows=500, columns=600, tile=None, levels=(1,)),
    "ome_tiff_brightfield": ome_tiff.write_brightfield,
    "ome_tiff_jpeg_2000": partial(ome_tiff.write_brightfield, compression="jpeg2000"),
    "ome_tiff_companion": partial(ome_tiff.write_ome_files, companion=True),
    "ome_tiff_stack": _ome(
        ome_tiff.Image(ome_tiff.grey(2, 3, 2, rows=200, columns=300, dtype="uint16"), microns=(0.5, 0.5, 1.5))
    ),
    "ome_tiff_int16": _ome(_grey("int16")),
    "ome_tiff_float": _ome(_grey("float32")),
    "ome_tiff_no_size": _ome(_grey("uint8", microns=(None, None, None))),
    "ome_tiff_no_z_spacing": _ome(ome_tiff.Image(ome_tiff.grey(1, 3, rows=200, columns=300, dtype="uint8"))),
    "trestle_no_macro": partial(trestle.write_trestle, macro=False, levels=(1, 2)),
    "trestle_no_size": partial(trestle.write_trestle, microns=None, levels=(1,)),
    "generic_tiff_subifds": _generic(below=True, bigtiff=True, icc=True),
    "generic_tiff_jpeg_2000": _generic(compression="jpeg2000"),
    "generic_tiff_strips": _generic(compression="lzw", tile=None),
    "generic_tiff_zstd": _generic(compression="zstd", named=True),
    "generic_tiff_no_size": _generic(microns=None),
    "dicom": _dicom(),
    "dicom_wild": _dicom(_as_in_the_wild),
}  # fmt: skip
"""Name -> what writes that slide into a folder and gives its main file."""
