# SPDX-License-Identifier: Apache-2.0
"""What slides look like in the wild, asked for over HTTP: sparse levels, concatenations,
fragments, empty items, offsets beyond 4 GiB, focal planes, fluorescence."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from flask import Flask
from pydicom.dataset import Dataset
from werkzeug.test import Client

from archive.access import EVERYTHING, Principal
from archive.files import OpenFile
from archive.part10.encode import encode_dataset
from archive.part10.meta import encode_meta
from archive.service import Archive
from archive.values import Sender
from converters.codecs import encode
from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from gateway.codec_pool import CodecPool
from tests.dicomweb import samples
from tests.dicomweb.conftest import WEB, open_archive, parts_of, store
from tests.support.part10_file import element, item, part10

JPEG = "1.2.840.10008.1.2.4.50"
J2K_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEGXL_RECOMPRESSION = "1.2.840.10008.1.2.4.111"
ELE = "1.2.840.10008.1.2.1"
ANY = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
SINGLE = {"Accept": "application/octet-stream; transfer-syntax=*"}
JSON = {"Accept": "application/dicom+json"}
WHO = {"principal": Principal("tester", "cli"), "scope": EVERYTHING}


@dataclass(frozen=True)
class Site:
    archive: Archive
    client: Client

    def store(self, *files: bytes) -> None:
        response = store(self.client, *files)
        assert response.status_code == 200, response.get_data(as_text=True)


@pytest.fixture
def site(archive: Archive, app: Flask) -> Site:
    return Site(archive, app.test_client())


def lossy(number: int = 1) -> Dataset:
    made = samples.header(number)
    made.LossyImageCompression = "01"
    made.LossyImageCompressionRatio, made.LossyImageCompressionMethod = "10", "ISO_10918_1"
    made.PhotometricInterpretation = "YBR_FULL_422"
    return made


def url(number: int = 1) -> str:
    return f"{WEB}/studies/{samples.STUDY}/series/{samples.SERIES}/instances/{samples.SERIES}.{number}"


def frames_of(client: Client, numbers: str, number: int = 1, headers: dict[str, str] = ANY) -> list[bytes]:
    return [part.data for part in parts_of(client.get(f"{url(number)}/frames/{numbers}", headers=headers))]


def sparse(places: list[tuple[int, int]]) -> bytes:
    made = lossy()
    samples.size(made, 5, 4)
    made.NumberOfFrames, made.DimensionOrganizationType = len(places), "TILED_SPARSE"
    groups = []
    for row, column in places:
        place, group = Dataset(), Dataset()
        place.RowPositionInTotalImagePixelMatrix = row * samples.TILE + 1
        place.ColumnPositionInTotalImagePixelMatrix = column * samples.TILE + 1
        group.PlanePositionSlideSequence = [place]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    return part10(made, JPEG, [samples.tile(n) for n in range(1, len(places) + 1)])


def test_a_sparse_level_gives_its_frames_and_their_places_and_no_others(site):
    places = [(3, 4), (0, 2), (1, 1)]
    site.store(sparse(places))
    (item_,) = site.client.get(f"{url()}/metadata", headers=JSON).get_json(force=True)
    groups = item_["52009230"]["Value"]
    told = [
        (
            group["0048021A"]["Value"][0]["0048021F"]["Value"][0],
            group["0048021A"]["Value"][0]["0048021E"]["Value"][0],
        )
        for group in groups
    ]
    assert told == [(row * samples.TILE + 1, column * samples.TILE + 1) for row, column in places]
    assert frames_of(site.client, "3,1,2") == [samples.tile(3), samples.tile(1), samples.tile(2)]
    assert site.client.get(f"{url()}/frames/4", headers=ANY).status_code == 404
    assert len(parts_of(site.client.get(f"{url()}/pixeldata", headers=ANY))) == 3


def test_a_full_level_of_focal_planes_and_optical_paths_numbers_frames_path_by_path(site):
    made = lossy()
    samples.size(made, 2, 1)
    made.TotalPixelMatrixFocalPlanes, made.NumberOfOpticalPaths, made.NumberOfFrames = 3, 2, 12
    site.store(part10(made, JPEG, [samples.tile(n) for n in range(1, 13)]))
    assert frames_of(site.client, "1,3,5,7,12") == [samples.tile(n) for n in (1, 3, 5, 7, 12)]
    assert site.client.get(f"{url()}/frames/13", headers=ANY).status_code == 404


def test_a_concatenation_is_asked_for_instance_by_instance_or_as_a_series(site):
    parts = ((1, 3), (4, 2), (6, 1))
    files = []
    for index, (first, count) in enumerate(parts, 1):
        made = lossy(index)
        samples.size(made, 3, 2)
        made.NumberOfFrames = count
        made.ConcatenationUID, made.SOPInstanceUIDOfConcatenationSource = (
            f"{samples.ROOT}.6",
            f"{samples.ROOT}.7",
        )
        made.InConcatenationNumber, made.InConcatenationTotalNumber = index, len(parts)
        made.ConcatenationFrameOffsetNumber = first - 1
        files.append(part10(made, JPEG, [samples.tile(n) for n in range(first, first + count)]))
    site.store(*reversed(files))
    for index, (first, count) in enumerate(parts, 1):
        numbers = ",".join(str(n) for n in range(1, count + 1))
        assert frames_of(site.client, numbers, index) == [
            samples.tile(n) for n in range(first, first + count)
        ]
        assert site.client.get(f"{url(index)}/frames/{count + 1}", headers=ANY).status_code == 404
    series = url().partition("/instances/")[0]
    whole = parts_of(site.client.get(f"{series}/pixeldata", headers=ANY))
    assert [part.data for part in whole] == [samples.tile(n) for n in range(1, 7)]
    objects = site.client.get(f"{series}/metadata", headers=JSON).get_json(force=True)
    assert [one["00209162"]["Value"] for one in objects] == [[1], [2], [3]]


@pytest.mark.parametrize("offsets", ["basic", "none"])
@pytest.mark.parametrize("fragments", [2, 3, 7])
def test_frames_of_several_fragments_are_whole(site, fragments, offsets):
    made = lossy()
    samples.size(made, 2, 2)
    tiles = [samples.tile(n) for n in range(1, 5)]
    site.store(part10(made, JPEG, tiles, fragments=fragments, offsets=offsets))
    assert frames_of(site.client, "4,2,1,3") == [tiles[n - 1] for n in (4, 2, 1, 3)]
    decoded = frames_of(
        site.client,
        "2,2",
        headers={"Accept": f'multipart/related; type="application/octet-stream"; transfer-syntax={ELE}'},
    )
    assert [len(frame) for frame in decoded] == [samples.TILE**2 * 3] * 2
    alone = site.client.get(f"{url()}/frames/3", headers={**SINGLE, "Range": f"bytes=1-{len(tiles[2])}"})
    assert (alone.status_code, alone.get_data()) == (206, tiles[2][1:])


def test_an_empty_item_is_an_empty_frame_and_has_no_other_form(site):
    made = lossy()
    samples.size(made, 3, 1)
    site.store(part10(made, JPEG, [samples.tile(1), b"", samples.tile(3)]))
    assert frames_of(site.client, "1,2,3") == [samples.tile(1), b"", samples.tile(3)]
    alone = site.client.get(f"{url()}/frames/2", headers={"Accept": f"image/jpeg; transfer-syntax={JPEG}"})
    assert (alone.status_code, alone.get_data()) == (200, b"")
    assert site.client.get(f"{url()}/frames/2", headers={**SINGLE, "Range": "bytes=0-"}).status_code == 416
    for syntax in (ELE, J2K_LOSSLESS, JPEGXL_RECOMPRESSION):
        kind = {ELE: "application/octet-stream", J2K_LOSSLESS: "image/jp2"}.get(syntax, "image/jxl")
        response = site.client.get(
            f"{url()}/frames/2", headers={"Accept": f"{kind}; transfer-syntax={syntax}"}
        )
        assert response.status_code == 406
        assert response.get_json()["error"]["kind"] == "CannotDecode"


def test_frames_beyond_4_gib_are_found_and_read_where_they_lie(site, monkeypatch):
    """An extended offset table; the file is a hole but for its ends."""
    made = lossy()
    samples.size(made, 4, 1)
    made.NumberOfFrames = 4
    hole = (1 << 31) - 16
    first, last = samples.tile(1), samples.tile(4)
    lengths = [len(first), hole, hole, len(last)]
    offsets = [0]
    for length in lengths[:-1]:
        offsets.append(offsets[-1] + 8 + length)
    assert offsets[3] > 1 << 32
    head = encode_meta(made.SOPClassUID, made.SOPInstanceUID, JPEG) + encode_dataset(made)
    head += element(0x7FE00001, "OV", struct.pack("<4Q", *offsets))
    head += element(0x7FE00002, "OV", struct.pack("<4Q", *lengths))
    head += struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF) + item(b"")
    path = site.archive.spool_path()
    with path.open("wb") as file:
        file.write(head)
        for offset, length in zip(offsets, lengths, strict=True):
            file.seek(len(head) + offset)
            file.write(item(b"")[:4] + struct.pack("<I", length))
        file.seek(len(head) + 8)
        file.write(first)
        file.seek(len(head) + offsets[3] + 8)
        file.write(last + b"\xfe\xff\xdd\xe0\0\0\0\0")
        size = file.tell()
    # Its digest is said, not computed: nobody reads 4 GiB of a hole here.
    staged = site.archive.adopt(path, hashlib.sha256(b"a hole").digest())
    site.archive.store_file(staged, sender=Sender("cli"), **WHO)
    assert frames_of(site.client, "4,1") == [last, first]
    read = []
    chunks = OpenFile.chunks

    def counted(file: OpenFile, offset: int, length: int) -> Iterator[bytes]:
        for piece in chunks(file, offset, length):
            read.append(len(piece))
            yield piece

    monkeypatch.setattr(OpenFile, "chunks", counted)
    end = site.client.get(
        url(), headers={"Accept": "application/dicom; transfer-syntax=*", "Range": "bytes=-8"}
    )
    assert (end.status_code, end.get_data()) == (206, b"\xfe\xff\xdd\xe0\0\0\0\0")
    assert sum(read) == 8  # nothing of what lies before
    assert end.headers["Content-Range"] == f"bytes {size - 8}-{size - 1}/{size}"
    part = site.client.get(f"{url()}/frames/4", headers={"Accept": f"image/jpeg; transfer-syntax={JPEG}"})
    assert part.get_data() == last
    decoded = site.client.get(
        f"{url()}/frames/4", headers={"Accept": f"application/octet-stream; transfer-syntax={ELE}"}
    )
    assert len(decoded.get_data()) == samples.TILE**2 * 3


def fluorescence(syntax: str) -> tuple[bytes, list[np.ndarray]]:
    """Two channels of 12 bits in 16, two tiles each."""
    made = samples.header(1)
    made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    del made.PlanarConfiguration
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    samples.size(made, 2, 1)
    made.NumberOfOpticalPaths, made.NumberOfFrames = 2, 4
    paths = []
    for identifier in ("DAPI", "FITC"):
        path = Dataset()
        path.OpticalPathIdentifier = identifier
        paths.append(path)
    made.OpticalPathSequence = paths
    square = np.arange(samples.TILE**2, dtype=np.uint16).reshape(samples.TILE, samples.TILE)
    channels = [(square * (n + 3)) % 4096 for n in range(4)]
    return part10(made, syntax, [encode(channel, syntax, bits_stored=12) for channel in channels]), channels


@pytest.mark.parametrize("syntax", [ELE, J2K_LOSSLESS])
def test_channels_of_a_fluorescence_slide_keep_their_16_bits(site, syntax):
    file, channels = fluorescence(syntax)
    site.store(file)
    accept = {"Accept": 'multipart/related; type="application/octet-stream"'}
    parts = parts_of(site.client.get(f"{url()}/frames/1,4", headers=accept))
    assert [part.headers["content-type"] for part in parts] == [
        f"application/octet-stream; transfer-syntax={ELE}"
    ] * 2
    assert [part.data for part in parts] == [channels[0].tobytes(), channels[3].tobytes()]
    (whole,) = parts_of(site.client.get(f"{url()}/pixeldata", headers=accept))
    assert whole.data == b"".join(channel.tobytes() for channel in channels)
    for kind, target in (
        ("image/jls", "80"),
        ("image/jxl", "110"),
        ("image/jphc", "201"),
        ("image/jpeg", "70"),
    ):
        answer = site.client.get(f"{url()}/frames/2", headers={"Accept": kind})
        assert answer.headers["Content-Type"] == f"{kind}; transfer-syntax=1.2.840.10008.1.2.4.{target}"
    assert (
        site.client.get(
            f"{url()}/frames/2", headers={"Accept": f"image/jpeg; transfer-syntax={JPEG}"}
        ).status_code
        == 406
    )


@pytest.fixture(scope="module")
def repacked(tmp_path_factory: pytest.TempPathFactory, codec: CodecPool) -> Iterator[Client]:
    """A level whose scanner wrote recompressed JPEG."""
    from converters.codecs.render import FrameFormat
    from converters.codecs.transcode import transcode

    made = lossy()
    samples.size(made, 2, 1)
    form = FrameFormat(JPEG, samples.TILE, samples.TILE, 3, 8, 8, 0, "YBR_FULL_422")
    jpegs = [samples.tile(n).rstrip(b"\0") for n in (1, 2)]
    archive = open_archive(tmp_path_factory.mktemp("repacked") / "data", codec)
    client = create_app(archive, WebSettings()).test_client()
    file = part10(made, JPEGXL_RECOMPRESSION, [transcode(jpeg, form, JPEGXL_RECOMPRESSION) for jpeg in jpegs])
    assert store(client, file).status_code == 200
    yield client
    archive.close()


@pytest.mark.parametrize("accept", [f"image/jpeg; transfer-syntax={JPEG}", "image/jpeg; transfer-syntax=*"])
def test_a_recompressed_jpeg_is_the_same_jpeg_for_those_who_know_no_jpeg_xl(repacked, accept):
    answer = repacked.get(f"{url()}/frames/2", headers={"Accept": accept})
    assert answer.headers["Content-Type"] == f"image/jpeg; transfer-syntax={JPEG}"
    assert answer.get_data() == samples.tile(2).rstrip(b"\0")
    stored = repacked.get(f"{url()}/frames/2", headers={"Accept": "image/jxl"})
    assert stored.headers["Content-Type"] == f"image/jxl; transfer-syntax={JPEGXL_RECOMPRESSION}"


def test_a_jpeg_is_recompressed_on_the_way_out_and_comes_back_the_same(site, repacked):
    made = lossy()
    samples.size(made, 1, 1)
    site.store(part10(made, JPEG, [samples.tile(2).rstrip(b"\0")]))
    sent = site.client.get(f"{url()}/frames/1", headers={"Accept": "image/jxl; transfer-syntax=*"})
    assert sent.headers["Content-Type"] == f"image/jxl; transfer-syntax={JPEGXL_RECOMPRESSION}"
    assert sent.get_data().rstrip(b"\0") == repacked.get(
        f"{url()}/frames/2", headers=SINGLE
    ).get_data().rstrip(b"\0")
