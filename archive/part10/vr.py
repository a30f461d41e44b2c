# SPDX-License-Identifier: Apache-2.0
"""Value representations (PS3.5 6.2, 7.1.2) as the walker needs them: by their two bytes."""

from pydicom.datadict import dictionary_VR

SHORT_MASK: dict[bytes, int] = {
    **dict.fromkeys((b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"LT"), 1),
    **dict.fromkeys((b"PN", b"SH", b"ST", b"TM", b"UI", b"SS", b"US"), 1),
    **dict.fromkeys((b"AT", b"FL", b"SL", b"UL"), 3),
    b"FD": 7,
}
"""VRs with a 16-bit length, and the bits that must be 0 in a length of theirs."""

LONG_MASK: dict[bytes, int] = {
    **dict.fromkeys((b"OB", b"OW", b"UC", b"UN", b"UR", b"UT", b"SQ"), 1),
    **dict.fromkeys((b"OF", b"OL"), 3),
    **dict.fromkeys((b"OD", b"OV", b"SV", b"UV"), 7),
}
"""VRs with a 32-bit length, likewise."""

SWAP: dict[bytes, int] = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OL", b"OF"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
"""Bytes of one number, for the VRs whose byte order differs between transfer syntaxes."""

MULTIPLE_TEXT = frozenset(
    (b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"PN", b"SH", b"TM", b"UC", b"UI")
)
"""Textual VRs in which a backslash separates values (PS3.5 6.4)."""

CHARSET_TEXT = frozenset((b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"))
"""VRs that Specific Character Set governs (PS3.3 C.12.1.1.2)."""

PADDED_WITH_NUL = frozenset((b"UI", b"OB", b"UN"))

_CHOICES = {"US or OW": b"OW", "US or SS or OW": b"OW", "OB or OW": b"OW", "US or SS": b"US"}
_known: dict[int, bytes | None] = {}


def known_vr(tag: int, *, signed: bool = False) -> bytes | None:
    """The VR of ``tag`` in PS3.6, None where it is private or not listed.

    Where PS3.6 leaves a choice: OW, and US or SS by Pixel Representation (``signed``),
    as Implicit VR needs it (PS3.5 A.1).
    """
    try:
        vr = _known[tag]
    except KeyError:
        vr = _lookup(tag)
        if len(_known) < 20_000:  # unknown tags of hostile files must not fill memory
            _known[tag] = vr
    return b"SS" if signed and vr == b"US" and _dictionary(tag) == "US or SS" else vr


def _lookup(tag: int) -> bytes | None:
    text = _dictionary(tag)
    if text is None:
        return None
    vr = _CHOICES.get(text) or text.encode("ascii")
    return vr if vr in SHORT_MASK or vr in LONG_MASK else None


def _dictionary(tag: int) -> str | None:
    group = tag >> 16
    if group & 1:
        # Private creators are LO (PS3.5 7.8.1); the rest is known to its creator only.
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else None
    if not tag & 0xFFFF:
        return "UL"
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return None
