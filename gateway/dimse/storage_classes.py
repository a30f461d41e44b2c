# SPDX-License-Identifier: Apache-2.0
"""Which storage SOP classes are taken: ``dimse.sop_classes`` as a question.

``standard`` is every storage class of PS3.4 B.5, retired and newer ones included;
``private`` every private one. Others are named by keyword or UID.
"""

from collections.abc import Callable, Sequence

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom.sop_class import _STORAGE_CLASSES as NAMED_CLASSES

from archive.part10.meta import is_uid
from gateway.dimse.negotiation import is_storage

_KEYWORDS = {**NAMED_CLASSES, **{keyword: uid for uid, (*_, keyword) in UID_dictionary.items() if keyword}}

STANDARD, PRIVATE = "standard", "private"
EVERY = (STANDARD, PRIVATE)


def storage_classes(names: Sequence[str]) -> Callable[[str], bool]:
    """Whether a SOP class is taken, for the entries of ``dimse.sop_classes``. Raises
    ValueError, one line, for an entry that names no storage SOP class."""
    uids = frozenset(map(_uid, names)) - set(EVERY)
    standard, private = STANDARD in names, PRIVATE in names

    def takes(sop_class_uid: str) -> bool:
        if sop_class_uid in uids:
            return True
        return is_storage(sop_class_uid) and (private if UID(sop_class_uid).is_private else standard)

    return takes


def _uid(name: str) -> str:
    if name in EVERY:
        return name
    found = _KEYWORDS.get(name, name)
    if not is_uid(found):
        raise ValueError(f"{name!r} is neither {STANDARD}, {PRIVATE}, a UID nor a storage class's keyword")
    if not is_storage(found):
        raise ValueError(f"{name} is no storage SOP class")
    return str(found)
