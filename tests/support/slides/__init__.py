# SPDX-License-Identifier: Apache-2.0
"""Slides of every vendor, drawn and written for tests: no sample data needed."""

from collections.abc import Callable
from pathlib import Path

from tests.support.slides.isyntax import write_small_isyntax
from tests.support.slides.motic_mds import write_motic_mds
from tests.support.slides.motic_mdsx import write_motic_mdsx
from tests.support.slides.ndpi import write_ndpi, write_ndpis
from tests.support.slides.olympus_vsi import write_brightfield, write_fluorescence
from tests.support.slides.vms import write_vms

BASES: dict[str, Callable[[Path], Path]] = {
    "hamamatsu_ndpi": write_ndpi,
    "hamamatsu_ndpis": write_ndpis,
    "hamamatsu_vms": write_vms,
    "motic_mds": write_motic_mds,
    "motic_mdsx": write_motic_mdsx,
    "olympus_vsi": write_brightfield,
    "olympus_vsi_fluorescence": write_fluorescence,
    "philips_isyntax": write_small_isyntax,
}
"""What the damage corpus starts from: a name, and what writes that slide into a folder."""
