# SPDX-License-Identifier: Apache-2.0
"""Slides of every vendor, drawn and written for tests: no sample data needed."""

from collections.abc import Callable
from pathlib import Path

from tests.support.slides.dicom_wsi import (
    write_concatenation,
    write_dicom_wsi,
    write_one_image,
    write_sparse,
)
from tests.support.slides.generic_tiff import write_deflated_tiff, write_generic_tiff
from tests.support.slides.isyntax import write_small_isyntax
from tests.support.slides.leica_scn import write_fluorescence as write_scn_fluorescence
from tests.support.slides.leica_scn import write_leica_scn
from tests.support.slides.motic_mds import write_motic_mds
from tests.support.slides.motic_mdsx import write_motic_mdsx
from tests.support.slides.motic_tiff import write_motic_tiff
from tests.support.slides.mrxs import write_mrxs, write_stitched_mrxs
from tests.support.slides.ndpi import write_ndpi, write_ndpis
from tests.support.slides.nikon_nd2 import write_nikon_nd2
from tests.support.slides.olympus_vsi import write_brightfield, write_fluorescence
from tests.support.slides.ome_tiff import write_lunaphore, write_ome_files
from tests.support.slides.philips_tiff import write_philips_tiff
from tests.support.slides.qptiff import write_component_tiff, write_qptiff
from tests.support.slides.svslide import write_svslide
from tests.support.slides.trestle import write_stitched_trestle, write_trestle
from tests.support.slides.ventana_bif import write_stitched, write_ventana_bif
from tests.support.slides.vms import write_vms
from tests.support.slides.zeiss_czi import write_jpeg_xr, write_mosaic, write_slide

BASES: dict[str, Callable[[Path], Path]] = {
    "akoya_component": write_component_tiff,
    "akoya_qptiff": write_qptiff,
    "dicom_wsi": write_dicom_wsi,
    "dicom_wsi_concatenation": write_concatenation,
    "dicom_wsi_one": write_one_image,
    "dicom_wsi_sparse": write_sparse,
    "generic_tiff": write_generic_tiff,
    "generic_tiff_deflate": write_deflated_tiff,
    "hamamatsu_ndpi": write_ndpi,
    "hamamatsu_ndpis": write_ndpis,
    "hamamatsu_vms": write_vms,
    "leica_scn": write_leica_scn,
    "leica_scn_fluorescence": write_scn_fluorescence,
    "mirax": write_mrxs,
    "mirax_stitched": write_stitched_mrxs,
    "motic_mds": write_motic_mds,
    "motic_mdsx": write_motic_mdsx,
    "motic_tiff": write_motic_tiff,
    "nikon_nd2": write_nikon_nd2,
    "olympus_vsi": write_brightfield,
    "olympus_vsi_fluorescence": write_fluorescence,
    "ome_tiff": write_lunaphore,
    "ome_tiff_files": write_ome_files,
    "philips_isyntax": write_small_isyntax,
    "philips_tiff": write_philips_tiff,
    "sakura_svslide": write_svslide,
    "trestle": write_trestle,
    "trestle_stitched": write_stitched_trestle,
    "ventana_bif": write_ventana_bif,
    "ventana_bif_stitched": write_stitched,
    "zeiss_czi": write_slide,
    "zeiss_czi_jpeg_xr": write_jpeg_xr,
    "zeiss_czi_mosaic": write_mosaic,
}
"""What the damage corpus starts from: a name, and what writes that slide into a folder."""
