# SPDX-License-Identifier: Apache-2.0
"""What a query finds, against a brute-force oracle on both databases (PS3.4 C.2.2.2)."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from archive.access import EVERYTHING, NOTHING, Scope
from archive.errors import BadQuery
from archive.index import query as query_module
from archive.index.attributes import EXTRACTED, tag_path, vr_of
from archive.index.columns import COLUMNS, Level, to_json
from archive.index.database import Index
from archive.index.plan import Seek
from archive.index.query import Kind, Query, compile, parse_match, ways
from archive.index.search import cursor_of
from tests.archive.index.fill import empty, fill, instance_of

# ---- the oracle --------------------------------------------------------------------


def plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(letter for letter in decomposed if not "\u0300" <= letter <= "\u036f")
    return unicodedata.normalize("NFKC", kept).strip()


def alike(pattern: str, text: str) -> bool:
    parts = (".*" if letter == "*" else "." if letter == "?" else re.escape(letter) for letter in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def oracle(vr: str, asked: str, values: list[str]) -> bool:
    """Whether an attribute with these values matches a key, by the letter."""
    if not asked or (set(asked) == {"*"} and vr not in ("UI", "DA", "TM", "IS", "DS")):
        return True
    if vr == "UI":
        return any(value in re.split(r"[,\\]", asked) for value in values)
    if vr == "PN":
        groups = [plain(group) for value in values for group in value.split("=")]
        wanted = [plain(group) for group in asked.split("=") if group.strip("*")]
        return all(
            any(
                alike(one, group) or (one.endswith("^*") and alike(one[:-2], group))
                for group in groups
                if group
            )
            for one in wanted
        )
    if vr in ("DA", "TM"):
        low, dash, high = asked.partition("-")
        high = high if dash else low
        if vr == "TM":  # what a stored time leaves out is zero
            values = [f"{value[:6]:0<6}.{value[7:]:0<6}" for value in values]
        return any(value >= low and (not high or value[: len(high)] <= high) for value in values)
    if vr in ("IS", "DS"):
        return any(float(value) == float(one) for value in values for one in asked.split("\\"))
    return any(alike(one, value) for value in values for one in asked.split("\\"))


Record = dict[str, object]
STUDY = ("PatientName", "PatientID", "AccessionNumber", "StudyDate", "StudyTime")
SERIES = ("Modality", "SeriesNumber", "PerformedProcedureStepStartDate")
PATHS = {
    "SpecimenDescriptionSequence.SpecimenIdentifier": "SpecimenDescriptionSequence",
    "RequestAttributesSequence.RequestedProcedureID": "RequestAttributesSequence",
    "OpticalPathSequence.ObjectiveLensPower": "OpticalPathSequence",
}
LEVEL_OF = (
    dict.fromkeys((*STUDY, "StudyInstanceUID", "ModalitiesInStudy"), Level.STUDY)
    | dict.fromkeys((*SERIES, "SeriesInstanceUID"), Level.SERIES)
    | dict.fromkeys(
        ("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "ImageType", "ContainerIdentifier", *PATHS),
        Level.INSTANCE,
    )
)


def values_of(record: Record, key: str) -> list[str]:
    if key in PATHS:
        last = key.rpartition(".")[2]
        found = [item[last] for item in record.get(PATHS[key], [])]
    else:
        value = record.get(key, "")
        found = value if isinstance(value, list) else [value]
    return [str(value) for value in found if str(value)]


def expected(records: list[Record], level: Level, keys: dict[str, str]) -> set[str]:
    """UIDs at a level: some record below the entity fulfils all keys at once."""
    uid = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")[level - 1]
    found = set()
    for record in records:
        hit = True
        for key, asked in keys.items():
            if key == "ModalitiesInStudy":
                same = [one for one in records if one["StudyInstanceUID"] == record["StudyInstanceUID"]]
                hit &= oracle("CS", asked, [str(one["Modality"]) for one in same])
            else:
                hit &= oracle(vr_of(tag_path(key)), asked, values_of(record, key))
        if hit:
            found.add(str(record[uid]))
    return found


def asked(index: Index, level: Level, keys: dict[str, str], scope: Scope = EVERYTHING) -> list[str]:
    name = ("study.study_instance_uid", "series.series_instance_uid", "instance.sop_instance_uid")[level - 1]
    matches = tuple(parse_match(tag_path(key), vr_of(tag_path(key)), text) for key, text in keys.items())
    return [row[name] for row in index.find(Query(level, matches, combined=False), scope).rows]


# ---- what is in the archive and what is asked ----------------------------------------

NAMES = [
    "", "Doe^John", "DÖE^John", "doe^Jane", "Müller", "Straße^A", "Doe", "Doe^[x]%_",
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
]  # fmt: skip
TEXTS = ["", "S-1", "s-1", "S-10", "S_1", "S%1", "[S]", "S 1", "é", "Z"]
DATES = ["", "20200101", "20200131", "20201231", "20210101"]
TIMES = ["", "10", "1000", "103000", "103000.5", "235959.999999"]
UIDS = ["1.2.1", "1.2.10", "1.2.2", "1.2.3"]


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    made: list[Record] = []
    for study in range(draw(st.integers(1, 3))):
        common = {
            "StudyInstanceUID": UIDS[study],
            "PatientName": draw(st.sampled_from(NAMES)),
            "PatientID": draw(st.sampled_from(TEXTS)),
            "AccessionNumber": draw(st.sampled_from(TEXTS)),
            "StudyDate": draw(st.sampled_from(DATES)),
            "StudyTime": draw(st.sampled_from(TIMES)),
        }
        for series in range(draw(st.integers(1, 2))):
            of_series = {
                "SeriesInstanceUID": f"{UIDS[study]}.{series}",
                "Modality": draw(st.sampled_from(["SM", "ANN", ""])),
                "SeriesNumber": draw(st.sampled_from(["1", "2", "10"])),
                "PerformedProcedureStepStartDate": draw(st.sampled_from(DATES)),
            }
            for number in range(draw(st.integers(1, 2))):
                made.append(
                    common
                    | of_series
                    | {
                        "SOPInstanceUID": f"{UIDS[study]}.{series}.{number}",
                        "SOPClassUID": draw(st.sampled_from(UIDS)),
                        "InstanceNumber": str(number),
                        "ImageType": ["ORIGINAL", draw(st.sampled_from(["VOLUME", "LABEL"]))],
                        "ContainerIdentifier": draw(st.sampled_from(TEXTS)),
                        "SpecimenDescriptionSequence": [
                            {"SpecimenIdentifier": one}
                            for one in draw(st.lists(st.sampled_from(TEXTS[1:]), max_size=2, unique=True))
                        ],
                        "RequestAttributesSequence": [
                            {"RequestedProcedureID": one}
                            for one in draw(st.lists(st.sampled_from(TEXTS[1:]), max_size=1))
                        ],
                        "OpticalPathSequence": [
                            {"ObjectiveLensPower": one}
                            for one in draw(st.lists(st.sampled_from(["20", "40.0"]), max_size=1))
                        ],
                    }
                )
    return made


def spoilt(texts: list[str]) -> st.SearchStrategy[str]:
    """A value, or one with a wildcard somewhere, or both of two."""
    value = st.sampled_from([text for text in texts if text])

    def spoil(text: str, at: int, wildcard: str) -> str:
        at %= len(text) + 1
        return text[:at] + wildcard + text[at + 1 :]

    return st.one_of(
        value,
        st.builds(spoil, value, st.integers(0, 20), st.sampled_from(["*", "?", "**", "*?"])),
        value.map(lambda text: text[:1] + "*"),
        value.map(lambda text: "*" + text[-1:]),
    )


def listed(one: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(one, min_size=1, max_size=3).map("\\".join)


def ranges(values: list[str]) -> st.SearchStrategy[str]:
    value = st.sampled_from([text for text in values if text])
    both = st.tuples(value, value).map(lambda pair: "-".join(sorted(pair)))
    return st.one_of(value, value.map(lambda text: text + "-"), value.map(lambda text: "-" + text), both)


KEYS: dict[str, st.SearchStrategy[str]] = {
    "PatientName": spoilt([*NAMES, "müller", "DOE^*", "Doe^*", "山田^太郎", "yamada*=山田*"]),
    "PatientID": listed(spoilt(TEXTS)),
    "AccessionNumber": spoilt(TEXTS),
    "StudyDate": ranges(DATES),
    "StudyTime": ranges(["10", "1000", "1030", "103000", "103000.5", "23"]),
    "StudyInstanceUID": st.sampled_from(["1.2.1", "1.2.1,1.2.2", "1.2.1\\1.2.9", "1.2"]),
    "ModalitiesInStudy": listed(st.sampled_from(["SM", "ANN", "S?", "XX"])),
    "Modality": listed(st.sampled_from(["SM", "ANN", "*M", "XX"])),
    "SeriesNumber": st.sampled_from(["1", "01", "2\\10", "3"]),
    "PerformedProcedureStepStartDate": ranges(DATES),
    "SeriesInstanceUID": st.sampled_from(["1.2.1.0", "1.2.1.0,1.2.2.1"]),
    "SOPInstanceUID": st.sampled_from(["1.2.1.0.0", "1.2.1.0.0,1.2.2.0.1"]),
    "SOPClassUID": st.sampled_from(UIDS),
    "InstanceNumber": st.sampled_from(["0", "1", "1.0"]),
    "ImageType": st.sampled_from(["VOLUME", "LABEL", "ORIGINAL", "VOL*", "VOLUME\\LABEL"]),
    "ContainerIdentifier": listed(spoilt(TEXTS)),
    "SpecimenDescriptionSequence.SpecimenIdentifier": listed(spoilt(TEXTS)),
    "RequestAttributesSequence.RequestedProcedureID": spoilt(TEXTS),
    "OpticalPathSequence.ObjectiveLensPower": st.sampled_from(["20", "20.0", "40", "10\\40"]),
}
KEY_SETS = st.lists(st.sampled_from(sorted(KEYS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: KEYS[name] | st.just("") for name in names})
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(made=records(), queries=st.lists(KEY_SETS, min_size=6, max_size=6))
def test_every_level_finds_what_the_oracle_finds(
    index: Index, made: list[Record], queries: list[dict[str, str]]
) -> None:
    empty(index)
    fill(index, [instance_of(record) for record in made])
    for keys in queries:
        for level in Level:
            found = asked(index, level, keys)
            assert len(found) == len(set(found))
            assert set(found) == expected(made, level, keys), (level, keys)
            for seek, uids in by_every_way(index, level, keys):
                assert uids == found, (level, keys, seek)


def by_every_way(
    index: Index, level: Level, keys: dict[str, str]
) -> Iterator[tuple[Seek | None, list[object]]]:
    """What is found from each place that a query may start at, two rows a page."""
    name = ("study.study_instance_uid", "series.series_instance_uid", "instance.sop_instance_uid")[level - 1]
    matches = tuple(parse_match(tag_path(key), vr_of(tag_path(key)), text) for key, text in keys.items())
    query = Query(level, matches, combined=False).with_keys(EXTRACTED)
    for seek in (None, *ways(query, EVERYTHING, index.dialect)):
        uids: list[object] = []
        after = None
        while True:
            sql, parameters = compile(query, EVERYTHING, index.dialect, seek=seek, after=after, limit=2)
            with index.read() as database:
                cursor = database.execute_sql(sql, parameters)
                columns = [column[0] for column in cursor.description]
                rows = [dict(zip(columns, values, strict=True)) for values in cursor.fetchall()]
            uids += [row[name] for row in rows]
            if len(rows) < 2:
                break
            after = cursor_of(rows[-1], level)
        yield seek, uids


def variants(texts: list[str]) -> list[str]:
    """Every value, every way to put a wildcard into it, and other spellings."""
    found = set(texts)
    for text in texts:
        found |= {text.upper(), text.lower(), text + "^*", "*" + text + "*"}
        for at in range(len(text) + 1):
            for wildcard in ("*", "?"):
                found |= {text[:at] + wildcard + text[at:], text[:at] + wildcard + text[at + 1 :]}
                found.add(text[:at] + wildcard)
    return sorted(found)


def all_ranges(values: list[str]) -> list[str]:
    some = [value for value in values if value]
    pairs = [f"{low}-{high}" for low in some for high in some if low <= high]
    return [*some, *pairs, *(f"{one}-" for one in some), *(f"-{one}" for one in some)]


@pytest.mark.parametrize(
    ("key", "values", "queries"),
    [
        ("PatientName", NAMES, variants([*NAMES, "müller", "山田^太郎", "=山田^太郎"])),
        ("PatientID", TEXTS, variants(TEXTS)),
        ("ContainerIdentifier", TEXTS, variants(TEXTS)),
        ("StudyDate", DATES, all_ranges(DATES)),
        ("StudyTime", TIMES, all_ranges(["09", "10", "1000", "1030", "103000", "103000.5", "23", "2359"])),
    ],
)
def test_no_form_of_a_key_finds_more_or_less_than_the_oracle(
    index: Index, key: str, values: list[str], queries: list[str]
) -> None:
    made: list[Record] = [
        {
            "StudyInstanceUID": f"1.{number}",
            "SeriesInstanceUID": f"1.{number}.1",
            "SOPInstanceUID": f"1.{number}.1.1",
            "SOPClassUID": "1.2",
            key: value,
        }
        for number, value in enumerate(values)
    ]
    fill(index, [instance_of(record) for record in made])
    for query in queries:
        found = set(asked(index, Level.STUDY, {key: query}))
        assert found == expected(made, Level.STUDY, {key: query}), query


# ---- a small archive for the rest ------------------------------------------------------


def slide(study: int, series: int, number: int, **more: object) -> Dataset:
    return instance_of(
        {
            "StudyInstanceUID": f"1.{study}",
            "SeriesInstanceUID": f"1.{study}.{series}",
            "SOPInstanceUID": f"1.{study}.{series}.{number}",
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6",
            "StudyDate": f"202001{study + 1:02}",
            "StudyTime": "120000",
            "PatientID": f"P{study}",
            "Modality": "SM",
            "InstanceNumber": number,
        }
        | more
    )


@pytest.fixture
def slides(index: Index) -> Index:
    """Four studies of two series of three instances."""
    fill(index, [slide(a, b, c) for a in range(4) for b in range(2) for c in range(3)])
    return index


ALL = [Query(level) for level in Level]


@pytest.mark.parametrize("level", list(Level))
def test_a_scope_of_nothing_shows_nothing_at_any_level_whatever_is_asked(slides: Index, level: Level) -> None:
    for keys in ({}, {"PatientID": "P1"}, {"Modality": "SM"}, {"SOPInstanceUID": "1.1.0.0"}):
        assert asked(slides, level, keys)
        assert asked(slides, level, keys, NOTHING) == []
    for limit in (None, 0, 1):
        found = slides.find(Query(level, limit=limit), NOTHING)
        assert (found.rows, found.remaining) == ([], 0)
    assert list(slides.iterate(Query(level), NOTHING)) == []


@pytest.mark.parametrize("level", list(Level))
def test_a_scope_holds_together_with_every_key(slides: Index, level: Level) -> None:
    mine = Scope("study.patient_id = ? OR study.patient_id = ?", ("P1", "P2"))

    assert {uid[:3] for uid in asked(slides, level, {}, mine)} == {"1.1", "1.2"}
    assert {uid[:3] for uid in asked(slides, level, {"Modality": "SM"}, mine)} == {"1.1", "1.2"}
    assert asked(slides, level, {"PatientID": "P3"}, mine) == []
    counted = slides.find(Query(level, limit=0), mine)
    assert counted.remaining == {Level.STUDY: 2, Level.SERIES: 4, Level.INSTANCE: 12}[level]


def test_a_scope_with_percent_signs_is_taken_as_written(slides: Index) -> None:
    scope = Scope("study.patient_id LIKE 'P%' AND study.patient_id <> '%s'")

    assert len(slides.find(Query(Level.STUDY), scope).rows) == 4


@pytest.mark.parametrize("level", list(Level))
def test_pages_meet_and_say_how_much_is_left(slides: Index, level: Level) -> None:
    everything = slides.find(Query(level), EVERYTHING).rows
    total = len(everything)
    for limit in (1, 2, 3, total, total + 1):
        seen = []
        while True:
            page = slides.find(Query(level, limit=limit, offset=len(seen)), EVERYTHING)
            seen += page.rows
            assert page.remaining == total - len(seen)
            assert page.exact
            if not page.remaining:
                break
        assert seen == everything


@pytest.mark.parametrize("level", list(Level))
def test_newest_studies_come_first_and_within_them_what_was_stored_first(slides: Index, level: Level) -> None:
    rows = slides.find(Query(level), EVERYTHING).rows

    def place(row: Record) -> tuple[object, object]:
        return row["series.id"], row["instance.id"]

    keys = [(row["study.study_date"], row["study.id"]) for row in rows]
    assert keys == sorted(keys, reverse=True)
    if level == Level.INSTANCE:
        for before, after in pairwise(rows):
            if before["study.id"] == after["study.id"]:
                assert (before["series.id"], before["instance.id"]) < (
                    after["series.id"],
                    after["instance.id"],
                )


def test_a_page_behind_a_known_one_starts_at_its_last_row_not_at_the_first(
    slides: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    real = query_module.compile

    def noting(*given: object, **named: object) -> object:
        used.append(named["after"])
        return real(*given, **named)

    monkeypatch.setattr("archive.index.search.compile", noting)
    first = slides.find(Query(Level.INSTANCE, limit=5), EVERYTHING)
    second = slides.find(Query(Level.INSTANCE, limit=5, offset=5), EVERYTHING)
    assert used[0] is None
    assert used[1] is not None
    monkeypatch.undo()

    rows = slides.find(Query(Level.INSTANCE), EVERYTHING).rows
    assert first.rows + second.rows == rows[:10]
    fill(slides, [slide(9, 0, 0, StudyDate="20300101")])
    moved = slides.find(Query(Level.INSTANCE, limit=5, offset=5), EVERYTHING)
    assert moved.rows[0]["instance.id"] == rows[4]["instance.id"], "an old anchor was used on new data"


def test_a_stream_of_rows_is_fetched_by_the_page(slides: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.index.search.PAGE", 5)
    rows = slides.find(Query(Level.INSTANCE), EVERYTHING).rows

    assert list(slides.iterate(Query(Level.INSTANCE), EVERYTHING)) == rows
    assert list(slides.iterate(Query(Level.INSTANCE, limit=7), EVERYTHING)) == rows[:7]
    assert list(slides.iterate(Query(Level.INSTANCE, limit=7, offset=3), EVERYTHING)) == rows[3:10]


def test_uids_of_the_path_constrain(slides: Index) -> None:
    study = Query(Level.INSTANCE, study_instance_uid="1.2")
    series = Query(Level.INSTANCE, study_instance_uid="1.2", series_instance_uid="1.2.1")
    wrong = Query(Level.INSTANCE, study_instance_uid="1.1", series_instance_uid="1.2.1")

    assert [len(slides.find(one, EVERYTHING).rows) for one in (study, series, wrong)] == [6, 3, 0]


def test_a_range_of_dates_and_one_of_times_are_one_range_of_instants(index: Index) -> None:
    times = [("20200101", "090000"), ("20200101", "110000"), ("20200102", "090000"), ("20200103", "110000"),
             ("20200103", "09"), ("20200104", "090000"), ("", "100000"), ("20200102", "")]  # fmt: skip
    fill(index, [slide(n, 0, 0, StudyDate=day, StudyTime=clock) for n, (day, clock) in enumerate(times)])

    def found(day: str, clock: str, *, combined: bool = True) -> set[int]:
        matches = (parse_match("00080020", "DA", day), parse_match("00080030", "TM", clock))
        rows = index.find(Query(Level.STUDY, matches, combined=combined), EVERYTHING).rows
        return {int(row["study.study_instance_uid"][2:]) for row in rows}

    assert found("20200101-20200103", "10-10") == {1, 2, 4, 7}
    assert found("20200101-20200103", "10-") == {1, 2, 3, 4, 7}
    assert found("-20200102", "-10") == {0, 1, 2, 7}
    assert found("20200103-", "10-") == {3, 5}
    assert found("20200101-20200103", "10-12", combined=False) == {1, 3}
    assert found("20200101", "10-12") == {1}


def test_a_series_start_is_an_instant_too(index: Index) -> None:
    starts = [("20200101", "090000"), ("20200101", "110000"), ("20200102", "090000"), ("20200103", "110000")]
    fill(index, [
        slide(n, 0, 0, PerformedProcedureStepStartDate=day, PerformedProcedureStepStartTime=clock)
        for n, (day, clock) in enumerate(starts)
    ])  # fmt: skip
    matches = (parse_match("00400244", "DA", "20200101-20200103"), parse_match("00400245", "TM", "10-10"))
    for level in (Level.SERIES, Level.INSTANCE):
        rows = index.find(Query(level, matches), EVERYTHING).rows
        assert [row["study.study_instance_uid"] for row in rows] == ["1.2", "1.1"]


def test_a_date_time_with_an_offset_is_compared_as_an_instant(index: Index) -> None:
    def scan(number: int, moment: str, **more: object) -> Dataset:
        return slide(number, 0, 0, AcquisitionDateTime=moment, **more)

    fill(index, [
        scan(0, "20200101120000+0000"), scan(1, "20200101130000+0100"), scan(2, "20200101120000+0100"),
        scan(3, "20200101120000", TimezoneOffsetFromUTC="-0500"), scan(4, "202001"),
    ])  # fmt: skip

    def found(text: str) -> set[int]:
        match = parse_match("0008002A", "DT", text)
        rows = index.find(Query(Level.STUDY, (match,)), EVERYTHING).rows
        return {int(row["study.study_instance_uid"][2:]) for row in rows}

    assert found("20200101120000+0000") == {0, 1}
    assert found("20200101110000+0000-20200101120000+0000") == {0, 1, 2}
    assert found("202001011700+0000") == {3}
    assert found("2020010112") == {0, 2, 3}
    assert found("2020") == {0, 1, 2, 3, 4}
    assert found("20200101121500-") == {1}
    assert found("-20200101") == {0, 1, 2, 3, 4}


def test_the_count_of_a_filtered_query_stops_at_its_cap(
    slides: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.index.search.COUNT_CAP", 5)
    modality = parse_match("00080060", "CS", "SM")

    found = slides.find(Query(Level.INSTANCE, (modality,), limit=1), EVERYTHING)
    assert (found.remaining, found.exact) == (4, False)
    everything = slides.find(Query(Level.INSTANCE, limit=1), EVERYTHING)
    assert (everything.remaining, everything.exact) == (23, True), "from the kept counters"


def test_a_corrected_date_moves_a_study_and_all_below_it(slides: Index) -> None:
    fill(slides, [slide(1, 0, 7, ContainerIdentifier="C"), slide(3, 0, 7, ContainerIdentifier="C")])
    study = slides.models.Study
    change = study.update(study_date="20300101").where(study.study_instance_uid == "1.1")
    slides.write(lambda: change.execute())

    for level in Level:
        rows = slides.find(Query(level, (parse_match("00080060", "CS", "SM"),)), EVERYTHING).rows
        assert rows[0]["study.study_instance_uid"] == "1.1"
        assert len(rows) == (4, 8, 26)[level - 1]
    found = asked(slides, Level.INSTANCE, {"ContainerIdentifier": "C"})
    assert found == ["1.1.0.7", "1.3.0.7"], "keys are in the order of their studies"
    assert asked(slides, Level.STUDY, {"StudyDate": "20300101-"}) == ["1.1"]


def test_names_are_found_by_their_sound(index: Index) -> None:
    names = ["Müller^Jörg", "Miller^Georg", "Meier^Hans Peter", "Mayer^Anna", "山田^太郎", "Schmidt^Karl", ""]
    fill(index, [slide(n, 0, 0, PatientName=name) for n, name in enumerate(names)])

    def found(text: str, level: Level = Level.STUDY) -> set[int]:
        match = parse_match("00100010", "PN", text, fuzzy=True)
        rows = index.find(Query(level, (match,)), EVERYTHING).rows
        return {int(row["study.study_instance_uid"][2:]) for row in rows}

    assert found("mueller") == {0, 1}
    assert found("Muler^Jork") == {0, 1}, "Georg sounds like Jörg"
    assert found("Muler^Anna") == set()
    assert found("peter mair") == {2}
    assert found("Mai*") == {0, 1, 2, 3}
    assert found("Carl Schmitt", Level.INSTANCE) == {5}
    assert found("山田") == {4}
    assert found("*ller*") == {0, 1}
    assert found("*") == set(range(7))
    assert found("Kowalski") == set()


def test_an_empty_value_is_matched_where_asked_for(index: Index) -> None:
    fill(index, [
        slide(0, 0, 0, PatientID="", ContainerIdentifier="C"), slide(1, 0, 0, InstanceNumber=None),
        slide(2, 0, 0, Modality="", StudyDate=""),
    ])  # fmt: skip

    def found(key: str, text: str = '""', level: Level = Level.STUDY) -> set[int]:
        path = tag_path(key)
        match = parse_match(path, vr_of(path), text, empty=True, multiple=True)
        rows = index.find(Query(level, (match,)), EVERYTHING).rows
        return {int(row["study.study_instance_uid"][2:]) for row in rows}

    assert found("PatientID") == {0}
    assert found("ContainerIdentifier") == {1, 2}
    assert found("ContainerIdentifier", '""\\C') == {0, 1, 2}
    assert found("InstanceNumber", level=Level.INSTANCE) == {1}
    assert found("ModalitiesInStudy") == {2}
    assert found("Modality", '""\\CT') == {2}
    assert found("StudyDate") == {2}
    assert found("StudyDate", "20200101\\20200102-20200109") == {0, 1}
    assert found("SpecimenDescriptionSequence.SpecimenIdentifier") == {0, 1, 2}


def test_pages_and_rare_keys_are_served_by_an_index_not_by_sorting(slides: Index) -> None:
    """On SQLite the plan can be read; on PostgreSQL it depends on the table's size."""
    if slides.dialect != "sqlite":
        return
    container = parse_match("00400512", "LO", "S-1")
    image_type = parse_match("00080008", "CS", "LABEL")
    columns = parse_match("00480006", "UL", "1000")
    patient = parse_match("00100020", "LO", "P1")
    spine = ("study_by_place", "series_by_place", "instance_by_place")
    for level in Level:
        for query, needed in (
            (Query(level), spine[level - 1]),
            (Query(level, (container,)), "attribute_by_folded"),
            (Query(level, (image_type,)), "attribute_by_folded"),
            (Query(level, (columns,)), "instance_by_total_pixel_matrix_columns"),
            (Query(level, (patient,)), "study_by_patient_id"),
        ):
            for after in (None, (1 << 60, 5, 5)[:level]):
                (*_, seek) = (None, *ways(query, EVERYTHING, "sqlite"))
                sql, parameters = compile(query, EVERYTHING, "sqlite", seek=seek, after=after, limit=25)
                with slides.read() as database:
                    plan = [row[3] for row in database.execute_sql(f"EXPLAIN QUERY PLAN {sql}", parameters)]
                inner = plan[: next(n for n, step in enumerate(plan) if step.startswith("SCAN page"))]
                assert any(needed in step for step in inner), plan
                whole = "USE TEMP B-TREE FOR ORDER BY"
                assert whole not in inner, plan


# ---- parsing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vr", "text"),
    [
        ("DA", "2020"), ("DA", "20201301"), ("DA", "20200101-20201301"), ("DA", "yesterday"), ("DA", "-"),
        ("DA", "20200102-20200101"), ("DA", "20200101-20200102\\20200103"), ("DA", "2020-01-01"),
        ("TM", "25"), ("TM", "1061"), ("TM", "1+"), ("DA", "2020*"),
        ("DT", "20200101250000"), ("DT", "20200230120000+0000"),
        ("UI", "1.2.*"), ("UI", "1.2.x"), ("UI", "1" * 65), ("IS", "one"), ("DS", "1e"), ("US", "*"),
        ("SQ", "x"), ("OB", "x"), ("LO", "x" * 1025), ("LO", "*a*b*c*d*e*f*g*h*i*"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_of_its_form_is_refused(vr: str, text: str) -> None:
    with pytest.raises(BadQuery) as told:
        parse_match("00100020", vr, text)
    assert text not in str(told.value), "a refusal is logged: it must not repeat the value"


@pytest.mark.parametrize("vr", ["PN", "LO", "UI", "DA", "TM", "DT", "IS", "SQ", "OB", "UN"])
@pytest.mark.parametrize("text", ["", " ", "\0"])
def test_an_empty_value_matches_everything(vr: str, text: str) -> None:
    assert parse_match("00100010", vr, text).kind == Kind.UNIVERSAL


def test_a_list_of_many_uids_is_one_key(slides: Index) -> None:
    uids = [
        f"1.{study}.{series}.{number}" for study in range(20) for series in range(2) for number in range(9)
    ]

    found = asked(slides, Level.INSTANCE, {"SOPInstanceUID": ",".join(uids)})

    assert len(found) == 24
    with pytest.raises(BadQuery):
        parse_match("00080018", "UI", ",".join(f"1.{n}" for n in range(501)))


@pytest.mark.parametrize("offset", [-1, 1_000_001])
def test_an_offset_out_of_bounds_is_refused(offset: int) -> None:
    with pytest.raises(BadQuery):
        Query(Level.STUDY, offset=offset)


def test_a_key_that_is_not_supported_is_ignored(slides: Index) -> None:
    comments = parse_match("00104000", "LT", "nothing like it")

    assert len(slides.find(Query(Level.STUDY, (comments,)), EVERYTHING).rows) == 4


def test_paths_are_keywords_or_tags() -> None:
    assert tag_path("Modality") == tag_path("00080060") == "00080060"
    assert tag_path("SpecimenDescriptionSequence.00400551") == "00400560.00400551"
    assert tag_path("0040a043.CodeValue") == "0040A043.00080100"
    for bad in ("NoSuchKeyword", "0008", "", "Modality.", "0008006G"):
        with pytest.raises(BadQuery):
            tag_path(bad)


# ---- what is returned ------------------------------------------------------------------

REQUIRED = {
    Level.STUDY: [
        "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName",
        "TimezoneOffsetFromUTC", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
        "StudyInstanceUID", "StudyID", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
    ],
    Level.SERIES: [
        "Modality", "TimezoneOffsetFromUTC", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber",
        "NumberOfSeriesRelatedInstances", "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
    ],
    Level.INSTANCE: [
        "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated",
        "NumberOfFrames", "AvailableTransferSyntaxUID",
    ],
}  # fmt: skip
MATCHING = [
    "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName", "PatientName",
    "PatientID", "StudyInstanceUID", "StudyID", "Modality", "SeriesInstanceUID", "SeriesNumber",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
    "RequestAttributesSequence.ScheduledProcedureStepID", "RequestAttributesSequence.RequestedProcedureID",
    "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "ContainerIdentifier",
    "SpecimenDescriptionSequence.SpecimenIdentifier", "SpecimenDescriptionSequence.SpecimenUID", "ImageType",
    "FrameOfReferenceUID", "PyramidUID", "BarcodeValue",
]  # fmt: skip


def test_every_required_key_can_be_matched_and_has_the_dictionarys_vr() -> None:
    for key in MATCHING:
        path = tag_path(key)
        column = COLUMNS.get(path)
        assert (column is not None and column.matchable) or path in EXTRACTED, key
    for path, vr in EXTRACTED.items():
        assert vr == vr_of(path), path
    for tag, column in COLUMNS.items():
        assert column.vr == vr_of(tag), tag


@pytest.mark.parametrize("level", list(Level))
def test_a_row_becomes_dicom_json_with_all_that_the_standard_requires(slides: Index, level: Level) -> None:
    fill(slides, [slide(8, 0, 0, StudyDate="20400101", PatientName="A^B=C", SeriesNumber=3, Rows=256)])
    row = slides.find(Query(level, limit=1), EVERYTHING).rows[0]

    full, missing = to_json(row, level, include=["00081030", "00400512", "00080060"], parents=True)
    narrow, _ = to_json(row, level, parents=False)

    for one in Level:
        if one <= level:
            assert {tag_path(keyword) for keyword in REQUIRED[one]} <= full.keys()
    assert {tag_path(keyword) for keyword in REQUIRED[level]} <= narrow.keys()
    assert full["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Ideographic": "C"}]}
    assert full["00081030"] == {"vr": "LO"}
    assert "00400512" in missing
    assert ("00080060" in missing) is (level == Level.STUDY)
    if level == Level.INSTANCE:
        assert narrow["00280010"] == {"vr": "US", "Value": [256]}
        assert narrow["0020000D"] == {"vr": "UI", "Value": ["1.8"]}
    assert list(full) == sorted(full)
