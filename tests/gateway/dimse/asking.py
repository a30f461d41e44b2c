# SPDX-License-Identifier: Apache-2.0
"""pynetdicom as a scanner: it asks for its worklist and tells what it does."""

import contextlib
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association

from gateway.dimse.mpps import MPPS, MPPS_RETRIEVE
from gateway.dimse.worklist import MODALITY_WORKLIST
from tests.gateway.dimse.running import AE_TITLE

EXPLICIT = "1.2.840.10008.1.2.1"


@contextlib.contextmanager
def associated(
    port: int, *, ae_title: str = "SCANNER1", transfer_syntax: str = EXPLICIT
) -> Iterator[Association]:
    """An open association for all three SOP classes."""
    entity = AE(ae_title)
    for uid in (MODALITY_WORKLIST, MPPS, MPPS_RETRIEVE):
        entity.add_requested_context(uid, transfer_syntax)
    association = entity.associate("127.0.0.1", port, ae_title=AE_TITLE)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def ask(association: Association, identifier: Dataset) -> tuple[list[Dataset], list[int], Dataset]:
    """The items, the status of each response, and the last response's command set."""
    items, statuses, last = [], [], Dataset()
    for status, item in association.send_c_find(identifier, MODALITY_WORKLIST):
        statuses.append(status.Status)
        last = status
        if item is not None:
            items.append(item)
    return items, statuses, last


def dataset(**attributes: Any) -> Dataset:
    """By keyword; a dictionary is an item of a sequence, a list of them several."""
    found = Dataset()
    for keyword, value in attributes.items():
        if isinstance(value, dict):
            value = [dataset(**value)]
        elif isinstance(value, list) and all(isinstance(one, dict) for one in value):
            value = [dataset(**one) for one in value]
        setattr(found, keyword, value)
    return found


def from_json(content: dict[str, Any]) -> Dataset:
    found = Dataset.from_json(content)
    found.SpecificCharacterSet = "ISO_IR 192"
    return found
