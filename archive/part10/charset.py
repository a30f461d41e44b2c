# SPDX-License-Identifier: Apache-2.0
"""Text as Specific Character Set says (PS3.3 C.12.1.1.2, PS3.5 6.1), whatever it holds."""

from pydicom.charset import decode_bytes, python_encoding
from pydicom.charset import default_encoding as _DEFAULT

_ESCAPE = b"\x1b"
_DELIMITERS = frozenset(b"\n\r\t\f")
_PERSON_DELIMITERS = frozenset(b"^=\n\r\t\f")


class Charset:
    """The character sets of one data set, or of one item that has its own."""

    def __init__(self, specific_character_set: bytes | None = None) -> None:
        """``specific_character_set`` is the encoded value of (0008,0005), None where it
        is absent: ISO-IR 6, for which bytes above 7F are let pass as UTF-8 or Latin-1."""
        terms = (specific_character_set or b"").decode("ascii", "replace").split("\\")
        names = [term.strip(" \x00") for term in terms]
        self._lenient = not any(names)
        self._encodings = [python_encoding.get(name, _DEFAULT) for name in names] or [_DEFAULT]

    def decode(self, value: bytes, *, person_name: bool = False) -> str:
        """``value`` as text; what cannot be decoded becomes U+FFFD. Never raises."""
        if _ESCAPE not in value:
            if value.isascii():
                return value.decode("ascii")
            if self._lenient:
                try:
                    return value.decode("utf-8")
                except UnicodeDecodeError:
                    return value.decode("latin-1")
            return self._plain(value)
        try:
            return decode_bytes(
                value, self._encodings, set(_PERSON_DELIMITERS if person_name else _DELIMITERS)
            )
        except (ValueError, LookupError, Warning):
            return self._plain(value)

    def _plain(self, value: bytes) -> str:
        try:
            return value.decode(self._encodings[0], "replace")
        except LookupError:
            return value.decode("latin-1")
