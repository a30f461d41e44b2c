# SPDX-License-Identifier: Apache-2.0
"""Accept negotiation of PS3.18 Section 8.7: header text in, one representation out.

Knows no web framework. A resource describes what it can give by an *offer*, a function
from one :class:`MediaRange` to the :class:`Representation` that would satisfy it, or
None. Members that are malformed or cannot be given are ignored, as 8.7.5 asks; when
nothing is left the answer is 406, never an error.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
NATIVE = frozenset(
    {"1.2.840.10008.1.2", EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
)
"""Not encapsulated. Frames of all of them go out as Explicit VR Little Endian: Implicit
VR and Big Endian are never used in REST (8.7.3)."""

_JPEG = "1.2.840.10008.1.2.4."
SYNTAXES_OF = {
    "image/jpeg": (f"{_JPEG}70", f"{_JPEG}50", f"{_JPEG}51", f"{_JPEG}57"),
    "image/jls": (f"{_JPEG}80", f"{_JPEG}81"),
    "image/jp2": (f"{_JPEG}90", f"{_JPEG}91"),
    "image/jpx": (f"{_JPEG}92", f"{_JPEG}93"),
    "image/jphc": (f"{_JPEG}201", f"{_JPEG}202", f"{_JPEG}203"),
    "image/jxl": (f"{_JPEG}110", f"{_JPEG}111", f"{_JPEG}112"),
    "image/dicom-rle": ("1.2.840.10008.1.2.5",),
    "video/mpeg": (f"{_JPEG}100", f"{_JPEG}101"),
    "video/mp4": tuple(f"{_JPEG}{number}" for number in range(102, 109)),
}
"""Tables 8.7.3-2 to 8.7.3-5; the first syntax is the default of the media type."""

_REPACKED = {f"{_JPEG}50": f"{_JPEG}111", f"{_JPEG}111": f"{_JPEG}50"}
"""JPEG and its JPEG XL recompression turn into each other bit for bit."""

MEDIA_TYPE_OF = {uid: name for name, uids in SYNTAXES_OF.items() for uid in uids}
ALIASES = {
    "image/x-jls": "image/jls",
    "image/x-dicom-rle": "image/dicom-rle",
    "image/jhc": "image/jphc",
    "image/dicom+jpeg": "image/jpeg",
    "image/dicom+jpeg-ls": "image/jls",
    "image/dicom+jp2": "image/jp2",
    "image/dicom+jpx": "image/jpx",
    "image/dicom+rle": "image/dicom-rle",
}
"""Names of earlier editions that clients still send; accepted, never emitted."""

_DICOM_ONLY = frozenset(
    {"application/dicom", "application/dicom+json", "application/dicom+xml", "application/octet-stream"}
    | {"image/jls", "image/jpx", "image/jphc", "image/dicom-rle"}
)
_RENDERED_ONLY = frozenset({"image/png", "image/gif", "text/html", "text/plain", "application/pdf"})
RENDERED_TYPES = ("image/jpeg", "image/png", "image/gif")
JSON = "application/dicom+json"
XML = "application/dicom+xml"
_MAX_MEMBERS = 64
_Q_VALUE = re.compile(r"[01]?\.[0-9]{1,9}|[01]\.?")


class NotAcceptable(Exception):
    """Nothing the client accepts can be given (406)."""


class MixedMediaTypes(Exception):
    """DICOM and rendered media types in one Accept (400; PS3.18 8.7.5)."""


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One member of an Accept header, in lower case, aliases resolved.

    For ``multipart/related`` the ``media_type`` is that of the parts, ``*/*`` when the
    member names none. ``transfer_syntax`` is a UID, ``*``, or "" when absent.
    """

    media_type: str
    multipart: bool = False
    transfer_syntax: str = ""
    q: float = 1.0

    def covers(self, media_type: str) -> bool:
        if self.media_type in ("*/*", media_type):
            return True
        return self.media_type.endswith("/*") and media_type.startswith(self.media_type[:-1])

    def precision(self, given: "Representation") -> tuple[int, int] | None:
        """How closely this member names ``given`` (RFC 9110 12.5.1), None if not at all. A
        bare ``*/*`` is any packaging; no syntax is as good as any."""
        packed_otherwise = self.multipart != given.multipart
        if not self.covers(given.media_type) or (packed_otherwise and self.media_type != "*/*"):
            return None
        if given.transfer_syntax_uid and self.transfer_syntax not in ("", "*", given.transfer_syntax_uid):
            return None
        exact = 2 if self.media_type == given.media_type else 0 if self.media_type == "*/*" else 1
        return exact, int(self.transfer_syntax == given.transfer_syntax_uid != "")


@dataclass(frozen=True, slots=True)
class Representation:
    """What will be sent. ``stored`` means that nothing has to be transcoded for it."""

    media_type: str
    transfer_syntax_uid: str = ""
    multipart: bool = False
    stored: bool = True

    @property
    def content_type(self) -> str:
        """Of the one part, transfer syntax outside of the type (8.7.3)."""
        if self.transfer_syntax_uid:
            return f"{self.media_type}; transfer-syntax={self.transfer_syntax_uid}"
        return self.media_type

    def multipart_content_type(self, boundary: str) -> str:
        syntax = f"; transfer-syntax={self.transfer_syntax_uid}" if self.transfer_syntax_uid else ""
        return f'multipart/related; type="{self.media_type}"{syntax}; boundary={boundary}'


@lru_cache(maxsize=256)
def tag_of(representation: Representation) -> str:
    """A short name for ETags: two representations of one resource never share one."""
    return hashlib.sha256(repr(representation).encode()).hexdigest()[:8]


def is_video(transfer_syntax_uid: str) -> bool:
    """Whether all frames are one bit stream (Table 8.7.3-5), also in its fragmentable form."""
    return MEDIA_TYPE_OF.get(_unfragmented(transfer_syntax_uid), "").startswith("video/")


def _unfragmented(transfer_syntax_uid: str) -> str:
    return (
        transfer_syntax_uid.removesuffix(".1") if transfer_syntax_uid not in NATIVE else transfer_syntax_uid
    )


Offer = Callable[[MediaRange], Representation | None]


def _split(text: str, separator: str) -> list[str]:
    """Cut at ``separator`` outside of quoted strings."""
    pieces, start, quoted, escaped = [], 0, False, False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            pieces.append(text[start:position])
            start = position + 1
    pieces.append(text[start:])
    return [piece.strip() for piece in pieces]


def parse_parameters(text: str) -> tuple[str, dict[str, str]]:
    """A media type and its parameters, names in lower case, quotes removed.

    The first of a repeated parameter counts.
    """
    name, *rest = _split(text, ";")
    parameters: dict[str, str] = {}
    for item in rest:
        key, _, value = item.partition("=")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        parameters.setdefault(key.strip().lower(), value)
    return name.lower(), parameters


def _parse_member(member: str) -> MediaRange | None:
    name, parameters = parse_parameters(member)
    if name.count("/") != 1 or (name.startswith("*/") and name != "*/*"):
        return None
    q_value = parameters.get("q", "1")
    q = float(q_value) if _Q_VALUE.fullmatch(q_value) else 2.0
    if q > 1:
        return None
    multipart = name in ("multipart/related", "multipart/*")
    if multipart:
        # Some clients put the syntax inside of the quoted type: type="image/jpeg; transfer-syntax=..."
        name, inner = parse_parameters(parameters.get("type") or "*/*")
        parameters = {**inner, **parameters}
        if name.count("/") != 1:
            return None
    syntax = parameters.get("transfer-syntax", "")
    return MediaRange(ALIASES.get(name, name), multipart, syntax, q)


def parse_accept(text: str) -> list[MediaRange]:
    """The members of an Accept header that are well formed, in the order given."""
    members = (_parse_member(member) for member in _split(text, ",")[:_MAX_MEMBERS] if member)
    return [member for member in members if member is not None]


def _refuse_mixture(ranges: Iterable[MediaRange]) -> None:
    names = {member.media_type for member in ranges if member.q > 0}
    if names & _DICOM_ONLY and names & _RENDERED_ONLY:
        raise MixedMediaTypes("Accept mixes DICOM and rendered media types")


def _choose(ranges: Sequence[MediaRange], offer: Offer) -> Representation | None:
    """The best of one list: by q, then what is stored, then the client's order.

    Stored before transcoded at equal q, since viewers list every codec they can decode
    with no preference meant; OHIF's list starts with JPEG-LS. The q of a representation is
    that of the member that names it most closely, so ``image/jpeg;q=0, */*`` is anything
    but JPEG.
    """
    found: list[tuple[float, bool, int, Representation]] = []
    for order, member in enumerate(ranges):
        if member.q == 0:
            continue
        given = offer(member)
        if given is None:
            continue
        q = _quality(ranges, given)
        if q > 0:
            found.append((-q, not given.stored, order, given))
    return min(found, key=lambda item: item[:3])[3] if found else None


def _quality(ranges: Sequence[MediaRange], given: Representation) -> float:
    closest, q = (-1, -1), 0.0
    for member in ranges:
        precision = member.precision(given)
        if precision is not None and (precision, member.q) > (closest, q):
            closest, q = precision, member.q
    return q


def negotiate(accept: str | None, offer: Offer, query: Sequence[str] = ()) -> Representation:
    """The representation to send (PS3.18 8.7.7).

    ``accept`` is the header, None or "" when absent, which is a 406 by 8.7.5. ``query``
    holds the values of the ``accept`` query parameter; they are tried first and never
    replace the header. Raises NotAcceptable, MixedMediaTypes.
    """
    if not accept or not accept.strip():
        raise NotAcceptable("the request has no Accept header (PS3.18 8.7.5)")
    # "+" in a query string arrives as a blank: application/dicom json.
    first = ",".join(query).replace("dicom json", "dicom+json").replace("dicom xml", "dicom+xml")
    for text in (first, accept):
        ranges = parse_accept(text)
        _refuse_mixture(ranges)
        chosen = _choose(ranges, offer)
        if chosen is not None:
            return chosen
    raise NotAcceptable("no acceptable representation: none of the accepted media types can be given")


# ---- offers -------------------------------------------------------------------


def given_syntax(stored: str) -> str:
    """The transfer syntax that frames of an instance stored as ``stored`` go out with."""
    return EXPLICIT_VR_LITTLE_ENDIAN if stored in NATIVE else stored


def offer_frames(
    stored: str, can: Callable[[str], bool], *, lossy: bool, count: int = 1, as_one: bool = False
) -> Offer:
    """Frames of one instance (Table 10.4.1-1; DESIGN 4 "Negotiation").

    ``can`` says whether frames can be given in a further syntax; it is asked only about
    what the client names. A single part is given for one item only: one frame, or with
    ``as_one`` all of them as one native value. Stored bytes answer ``transfer-syntax=*``,
    ``*/*``, and a type without syntax when just lossy data exist (8.7.3.4). Compressed
    bytes under ``application/octet-stream; transfer-syntax=*`` are an extension that
    viewers need.
    """
    own = given_syntax(stored)
    own_type = MEDIA_TYPE_OF.get(own, "application/octet-stream")

    def give(media_type: str, uid: str, multipart: bool) -> Representation | None:
        alone = count == 1 or (as_one and uid == EXPLICIT_VR_LITTLE_ENDIAN)
        if (not multipart and not alone) or (uid != own and not can(uid)):
            return None
        return Representation(media_type, uid, multipart, stored=uid == own)

    def offer(member: MediaRange) -> Representation | None:
        if is_video(stored):
            return None  # a frame of it has no address
        # A bare */* asks for the default of the resource, which is multipart (10.4.1.1).
        multipart = member.multipart or member.media_type == "*/*"
        wanted = member.transfer_syntax
        if member.media_type.endswith("/*"):
            if wanted in ("", "*"):
                return give(own_type, own, multipart) if member.covers(own_type) else None
            named = MEDIA_TYPE_OF.get(wanted, "application/octet-stream")
            known = wanted in MEDIA_TYPE_OF or wanted == EXPLICIT_VR_LITTLE_ENDIAN
            return give(named, wanted, multipart) if known and member.covers(named) else None
        if member.media_type == "application/octet-stream":
            if wanted == "*" or (wanted == "" and lossy):
                return give(member.media_type, own, multipart)
            if wanted in ("", EXPLICIT_VR_LITTLE_ENDIAN):
                return give(member.media_type, EXPLICIT_VR_LITTLE_ENDIAN, multipart)
            return None
        syntaxes = SYNTAXES_OF.get(member.media_type, ())
        if not syntaxes:
            return None
        if own in syntaxes and (wanted == "*" or (wanted == "" and lossy)):
            return give(member.media_type, own, multipart)
        uid = wanted or syntaxes[0]
        if uid == "*":
            repacked = _REPACKED.get(own, "")
            uid = repacked if repacked in syntaxes else syntaxes[0]
        return give(member.media_type, uid, multipart) if uid in syntaxes else None

    return offer


def offer_dicom(stored: str, can: Callable[[str], bool], *, lossy: bool, single: bool) -> Offer:
    """Instances as ``application/dicom`` (Table 10.4.1-1); multipart is the default.

    ``single`` allows the single-part form of one instance. ``can`` says whether the
    whole stream can be given in a further syntax.
    """

    def offer(member: MediaRange) -> Representation | None:
        if not member.covers("application/dicom"):
            return None
        # */* and application/* name no packaging: the default of the resource.
        multipart = member.multipart or member.media_type.endswith("/*")
        if not multipart and not single:
            return None
        wanted = member.transfer_syntax
        if wanted == "*" or (wanted == "" and lossy):
            uid = stored
        else:
            uid = wanted or EXPLICIT_VR_LITTLE_ENDIAN
        if uid != stored and not can(uid):
            return None
        return Representation("application/dicom", uid, multipart, stored=uid == stored)

    return offer


def offer_bulk(member: MediaRange, *, single: bool = True) -> Representation | None:
    """Bulk values (10.4.1.1.5): octets, whatever syntax is named; in parts, or alone where
    it is a single one."""
    if not member.covers("application/octet-stream"):
        return None
    if member.transfer_syntax not in ("", "*", EXPLICIT_VR_LITTLE_ENDIAN):
        return None
    multipart = member.multipart or member.media_type == "*/*"
    if not multipart and not single:
        return None
    return Representation("application/octet-stream", "", multipart)


def offer_video(stored: str, *, single: bool) -> Offer:
    """The bit stream of a video, as it is stored, as its own type or as octets; alone where
    it is all that is asked for."""
    own_type = MEDIA_TYPE_OF[_unfragmented(stored)]

    def offer(member: MediaRange) -> Representation | None:
        named = member.media_type == "application/octet-stream"
        if not named and not member.covers(own_type):
            return None
        if member.transfer_syntax not in ("", "*", stored):
            return None
        multipart = member.multipart or member.media_type == "*/*"
        if not multipart and not single:
            return None
        return Representation("application/octet-stream" if named else own_type, stored, multipart)

    return offer


def offer_data_sets(count: int | None) -> Offer:
    """DICOM JSON or XML (metadata, search results, store responses).

    XML of several objects is multipart; ``count`` None: not known to be one.
    """

    def offer(member: MediaRange) -> Representation | None:
        if member.multipart:
            if member.media_type == XML:
                return Representation(XML, "", True)
            return None
        if member.media_type in (JSON, "application/json"):
            return Representation(member.media_type)
        if member.media_type in ("*/*", "application/*"):
            return Representation(JSON)
        if member.media_type == XML and count == 1:
            return Representation(XML)
        return None

    return offer


def offer_rendered(count: int = 1, types: Sequence[str] = RENDERED_TYPES) -> Offer:
    """Rendered media types (Table 8.7.4-1); ``types`` in order of preference.

    Several images are multipart; a single-part type for them is not acceptable.
    """

    def offer(member: MediaRange) -> Representation | None:
        for name in types:
            if member.covers(name):
                if count != 1 and not member.multipart and member.media_type != "*/*":
                    return None
                return Representation(name, "", member.multipart or count != 1)
        return None

    return offer
