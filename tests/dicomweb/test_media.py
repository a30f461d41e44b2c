# SPDX-License-Identifier: Apache-2.0
"""Accept negotiation: what clients send, and what each may be given."""

import pytest

from dicomweb.media import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    MixedMediaTypes,
    NotAcceptable,
    Representation,
    negotiate,
    offer_bulk,
    offer_data_sets,
    offer_dicom,
    offer_frames,
    offer_rendered,
    parse_accept,
)

JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
J2K_LOSSLESS = "1.2.840.10008.1.2.4.90"
J2K = "1.2.840.10008.1.2.4.91"
ELE = EXPLICIT_VR_LITTLE_ENDIAN
IMPLICIT = "1.2.840.10008.1.2"

OHIF = ", ".join(
    f'multipart/related; type="{media_type}"; transfer-syntax={syntax}'
    for media_type, syntax in [
        ("image/jls", "1.2.840.10008.1.2.4.80"),
        ("image/jls", "1.2.840.10008.1.2.4.81"),
        ("image/jp2", J2K_LOSSLESS),
        ("image/jp2", J2K),
        ("image/jpx", "1.2.840.10008.1.2.4.92"),
        ("image/jpx", "1.2.840.10008.1.2.4.93"),
        ("application/octet-stream", "*"),
        ("image/jpeg", JPEG),
    ]
)
IMG_TAG = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"

# (Accept, stored, lossy, further syntaxes that frames can be given in, number of frames,
#  expected media type, transfer syntax and packaging; None for 406)
FRAMES = [
    # what viewers and clients send (viewer.md 5), over a lossy slide
    ('multipart/related; type="application/octet-stream"; transfer-syntax=*', JPEG, True, (ELE,), 1,
     ("application/octet-stream", JPEG, True)),
    ('multipart/related; type="application/octet-stream"', JPEG, True, (ELE,), 2,
     ("application/octet-stream", JPEG, True)),
    ('multipart/related; type="*/*"', JPEG, True, (), 3, ("image/jpeg", JPEG, True)),
    ('multipart/related; transfer-syntax=*; type="image/jpeg"', JPEG, True, (), 1,
     ("image/jpeg", JPEG, True)),
    (f'multipart/related; type="image/jpeg"; transfer-syntax={JPEG}', JPEG, True, (), 400,
     ("image/jpeg", JPEG, True)),
    (OHIF, JPEG, True, (ELE,), 1, ("application/octet-stream", JPEG, True)),
    (f"image/jpeg; transfer-syntax={JPEG}", JPEG, True, (), 1, ("image/jpeg", JPEG, False)),
    ("image/jpeg", JPEG, True, (), 1, ("image/jpeg", JPEG, False)),
    (IMG_TAG, JPEG, True, (), 1, ("image/jpeg", JPEG, False)),
    ("*/*", JPEG, True, (), 1, ("image/jpeg", JPEG, True)),
    ("*/*", JPEG, True, (), 2, ("image/jpeg", JPEG, True)),
    # unquoted type, odd spacing and case, syntax inside of the quotes
    (f"multipart/related;type=image/jpeg;transfer-syntax={JPEG}", JPEG, True, (), 1,
     ("image/jpeg", JPEG, True)),
    ('Multipart/Related ; Type="IMAGE/JPEG" ;transfer-syntax=*', JPEG, True, (), 1,
     ("image/jpeg", JPEG, True)),
    (f'multipart/related; type="image/jpeg; transfer-syntax={JPEG}"', JPEG, True, (), 1,
     ("image/jpeg", JPEG, True)),
    # wsidicom's probes: what is not stored and cannot be made is 406
    (f'multipart/related; type="image/jp2"; transfer-syntax={J2K}', JPEG, True, (ELE,), 1, None),
    (f'multipart/related; type="application/octet-stream"; transfer-syntax={ELE}', JPEG, True, (), 1, None),
    (f'multipart/related; type="application/octet-stream"; transfer-syntax={ELE}', JPEG, True, (ELE,), 1,
     ("application/octet-stream", ELE, True)),
    # the default syntax of image/jpeg is lossless (Table 8.7.3-2)
    ("image/jpeg", J2K_LOSSLESS, False, (ELE,), 1, None),
    ("image/jpeg", J2K_LOSSLESS, False, (JPEG_LOSSLESS,), 1, ("image/jpeg", JPEG_LOSSLESS, False)),
    ("image/jp2", J2K_LOSSLESS, False, (), 1, ("image/jp2", J2K_LOSSLESS, False)),
    ("image/jp2", J2K, True, (), 1, ("image/jp2", J2K, False)),
    # unspecified over lossless data is Explicit VR Little Endian, decoded
    ("application/octet-stream", J2K_LOSSLESS, False, (ELE,), 1, ("application/octet-stream", ELE, False)),
    ("application/octet-stream", J2K_LOSSLESS, False, (), 1, None),
    ("application/octet-stream; transfer-syntax=*", J2K_LOSSLESS, False, (), 1,
     ("application/octet-stream", J2K_LOSSLESS, False)),
    # native data
    ("application/octet-stream", ELE, False, (), 1, ("application/octet-stream", ELE, False)),
    ("application/octet-stream; transfer-syntax=*", IMPLICIT, False, (), 1,
     ("application/octet-stream", ELE, False)),
    ("*/*", ELE, False, (), 1, ("application/octet-stream", ELE, True)),
    (f"application/octet-stream; transfer-syntax={IMPLICIT}", IMPLICIT, False, (), 1, None),
    # a single part for several frames is ignored
    ("image/jpeg", JPEG, True, (), 2, None),
    (f'image/jpeg, multipart/related; type="image/jpeg"; transfer-syntax={JPEG}', JPEG, True, (), 2,
     ("image/jpeg", JPEG, True)),
    # a syntax of another type, unknown and rendered types are ignored
    (f"image/jp2; transfer-syntax={JPEG}", JPEG, True, (), 1, None),
    ("image/png", JPEG, True, (), 1, None),
    ("text/html", JPEG, True, (), 1, None),
    ("nonsense", JPEG, True, (), 1, None),
    ("image/jpeg;q=2, image/jpeg;q=x", JPEG, True, (), 1, None),
    ('multipart/related; type="', JPEG, True, (), 1, None),
    # q decides before "stored first"
    (f"image/jpeg;q=0.5, application/octet-stream; transfer-syntax={ELE}", JPEG, True, (ELE,), 1,
     ("application/octet-stream", ELE, False)),
    (f"application/octet-stream; transfer-syntax={ELE}, image/jpeg", JPEG, True, (ELE,), 1,
     ("image/jpeg", JPEG, False)),
    ("image/jpeg;q=0, image/*", JPEG, True, (), 1, None),
    ("*/*;q=0", JPEG, True, (), 1, None),
    # legacy names
    ("image/x-jls; transfer-syntax=*", "1.2.840.10008.1.2.4.80", False, (), 1,
     ("image/jls", "1.2.840.10008.1.2.4.80", False)),
    ("image/x-dicom-rle", "1.2.840.10008.1.2.5", False, (), 1,
     ("image/dicom-rle", "1.2.840.10008.1.2.5", False)),
]  # fmt: skip


@pytest.mark.parametrize(("accept", "stored", "lossy", "further", "count", "expected"), FRAMES)
def test_frames_are_given_as_the_standard_and_the_viewers_ask(
    accept, stored, lossy, further, count, expected
):
    offer = offer_frames(stored, further.__contains__, lossy=lossy, count=count)
    if expected is None:
        with pytest.raises(NotAcceptable):
            negotiate(accept, offer)
        return
    chosen = negotiate(accept, offer)
    assert (chosen.media_type, chosen.transfer_syntax_uid, chosen.multipart) == expected


# (Accept, stored, lossy, syntaxes it can be converted to, single part allowed,
#  expected transfer syntax and packaging; None for 406)
MP = 'multipart/related; type="application/dicom"'
DICOM = [
    (f"{MP}; transfer-syntax=*", J2K_LOSSLESS, False, (ELE,), True, (J2K_LOSSLESS, True)),
    ("multipart/related; type=application/dicom", JPEG, True, (ELE,), True, (JPEG, True)),
    (MP, ELE, False, (), True, (ELE, True)),
    (MP, IMPLICIT, False, (ELE,), True, (ELE, True)),
    (MP, J2K_LOSSLESS, False, (ELE,), True, (ELE, True)),
    (MP, J2K_LOSSLESS, False, (), True, None),
    (f"{MP}; transfer-syntax={ELE}", JPEG, True, (ELE,), True, (ELE, True)),
    (f"{MP}; transfer-syntax={ELE}, {MP}; transfer-syntax=*", JPEG, True, (ELE,), True, (JPEG, True)),
    ("application/dicom; transfer-syntax=*", JPEG, True, (), True, (JPEG, False)),
    ("application/dicom; transfer-syntax=*", JPEG, True, (), False, None),
    ("*/*", JPEG, True, (ELE,), True, (JPEG, True)),
    ("*/*", J2K_LOSSLESS, False, (ELE,), True, (ELE, True)),
    ("application/dicom", JPEG, True, (ELE,), True, (JPEG, False)),
    (f"application/dicom; transfer-syntax={J2K}", JPEG, True, (ELE,), True, None),
    ("application/json", JPEG, True, (ELE,), True, None),
]


@pytest.mark.parametrize(("accept", "stored", "lossy", "further", "single", "expected"), DICOM)
def test_instances_are_stored_or_decoded_as_asked(accept, stored, lossy, further, single, expected):
    offer = offer_dicom(stored, further.__contains__, lossy=lossy, single=single)
    if expected is None:
        with pytest.raises(NotAcceptable):
            negotiate(accept, offer)
    else:
        chosen = negotiate(accept, offer)
        assert (chosen.transfer_syntax_uid, chosen.multipart) == expected


DATA_SETS = [
    ("application/dicom+json", 2, ("application/dicom+json", False)),
    ("application/dicom+json, application/json", 2, ("application/dicom+json", False)),
    ("application/json", 2, ("application/json", False)),
    ("*/*", 2, ("application/dicom+json", False)),
    ('multipart/related; type="application/dicom+xml"', 2, ("application/dicom+xml", True)),
    ("application/dicom+xml", 1, ("application/dicom+xml", False)),
    ("application/dicom+xml", 2, None),
    ("application/dicom", 1, None),
]


@pytest.mark.parametrize(("accept", "count", "expected"), DATA_SETS)
def test_data_sets_are_json_by_default_and_xml_on_request(accept, count, expected):
    if expected is None:
        with pytest.raises(NotAcceptable):
            negotiate(accept, offer_data_sets(count))
    else:
        chosen = negotiate(accept, offer_data_sets(count))
        assert (chosen.media_type, chosen.multipart) == expected


RENDERED = [
    ("image/png", 1, ("image/png", False)),
    ("*/*", 1, ("image/jpeg", False)),
    (IMG_TAG, 1, ("image/jpeg", False)),
    ("image/gif;q=0.9, image/png;q=0.8", 1, ("image/gif", False)),
    ("image/png", 2, None),
    ('multipart/related; type="image/png"', 2, ("image/png", True)),
    ("application/dicom", 1, None),
    ("image/jp2", 1, None),
]


@pytest.mark.parametrize(("accept", "count", "expected"), RENDERED)
def test_rendered_pictures_are_jpeg_unless_another_type_is_asked_for(accept, count, expected):
    if expected is None:
        with pytest.raises(NotAcceptable):
            negotiate(accept, offer_rendered(count))
    else:
        chosen = negotiate(accept, offer_rendered(count))
        assert (chosen.media_type, chosen.multipart) == expected


@pytest.mark.parametrize("accept", [None, "", "  "])
def test_an_absent_accept_header_is_not_acceptable(accept):
    with pytest.raises(NotAcceptable):
        negotiate(accept, offer_data_sets(1), ["application/dicom+json"])


@pytest.mark.parametrize(
    "accept", ["application/dicom, image/png", 'image/gif, multipart/related; type="image/jls"']
)
def test_mixed_dicom_and_rendered_types_are_a_bad_request(accept):
    with pytest.raises(MixedMediaTypes):
        negotiate(accept, offer_rendered())


def test_the_accept_parameter_is_tried_first_and_the_header_next():
    assert negotiate("*/*", offer_rendered(), ["image/png"]).media_type == "image/png"
    assert negotiate("image/gif", offer_rendered(), ["image/jp2"]).media_type == "image/gif"
    plus_became_blank = negotiate("*/*", offer_data_sets(1), ["application/dicom xml"])
    assert plus_became_blank.media_type == "application/dicom+xml"


def test_bulk_values_are_octets_alone_or_in_one_part():
    single = negotiate("application/octet-stream; transfer-syntax=*", offer_bulk)
    assert single == Representation("application/octet-stream")
    assert negotiate('multipart/related; type="*/*"', offer_bulk).multipart
    assert negotiate('multipart/related; type="application/octet-stream"', offer_bulk).multipart
    with pytest.raises(NotAcceptable):
        negotiate("image/jpeg", offer_bulk)


def test_the_transfer_syntax_stands_outside_of_the_type():
    chosen = Representation("image/jpeg", JPEG, True)
    assert chosen.content_type == f"image/jpeg; transfer-syntax={JPEG}"
    assert chosen.multipart_content_type("b") == (
        f'multipart/related; type="image/jpeg"; transfer-syntax={JPEG}; boundary=b'
    )


def test_commas_and_semicolons_inside_of_quotes_do_not_cut():
    (only,) = parse_accept('multipart/related; note="a, b; c=\\"d\\""; type="image/jpeg"')
    assert (only.media_type, only.multipart) == ("image/jpeg", True)
