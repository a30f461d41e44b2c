# SPDX-License-Identifier: Apache-2.0
"""The management API, in the shapes that the pages read."""

import pytest

from archive.access import EVERYTHING, Principal
from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from tests.dicomweb import samples
from tests.dicomweb.conftest import store

WHO = {"principal": Principal("tester", "cli"), "scope": EVERYTHING}


def slide(number):
    """Another slide: a study of its own with one level."""
    root = f"{samples.ROOT}.{100 + number}"
    return samples.volume(study=root, series=f"{root}.1")


def test_the_work_list_has_a_line_for_each_slide_with_its_thumbnail(client):
    store(client, samples.volume(), samples.label())
    (line,) = client.get("/api/slides").get_json()["slides"]
    assert line["container_identifier"] == "C-1"
    assert line["patient_name"] == "Müller^Jörg"
    assert line["number_of_instances"] == 2
    assert (line["total_pixel_matrix_columns"], line["total_pixel_matrix_rows"]) == (48, 32)
    assert line["stored"].endswith("+00:00")
    thumbnail = client.get(line["thumbnail"], headers={"Accept": "image/jpeg"})
    assert thumbnail.status_code == 200


def test_the_work_list_is_paged_by_cursor(client):
    store(client, *map(slide, range(5)))
    seen, after = [], ""
    while True:
        page = client.get(f"/api/slides?limit=2&after={after}").get_json()
        seen += [line["study_instance_uid"] for line in page["slides"]]
        after = page["next"]
        if after is None:
            break
    assert len(seen) == len(set(seen)) == 5


def test_the_work_list_searches_names_and_identifiers(client):
    store(client, samples.volume())
    for text, count in [("muller", 1), ("C-1", 1), ("P1", 1), ("nobody", 0), ("%", 0)]:
        page = client.get("/api/slides", query_string={"search": text}).get_json()
        assert len(page["slides"]) == count, text


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "after=nonsense"])
def test_bad_numbers_and_cursors_are_400(client, query):
    response = client.get(f"/api/slides?{query}")
    assert response.status_code == 400
    assert response.get_json()["error"]["status"] == 400


def test_jobs_show_what_an_operator_may_see(client, archive):
    archive.enqueue("ingest", {"name": "slide.svs", "path": "/secret/slide.svs"}, **WHO)
    response = client.get("/api/jobs")
    (job,) = response.get_json()["jobs"]
    assert set(job) == {"id", "kind", "name", "state", "progress", "message", "created", "updated"}
    assert (job["kind"], job["name"], job["state"]) == ("ingest", "slide.svs", "waiting")
    assert b"secret" not in response.get_data()


def test_quarantine_shows_the_reason(client, archive):
    with archive.stage() as staging:
        staging.write(b"bad")
        staged = staging.finish()
    archive.quarantine(staged, "broken.svs", "truncated at byte 3", source="watch", **WHO)
    (item,) = client.get("/api/quarantine").get_json()["quarantined"]
    assert (item["name"], item["reason"], item["size_bytes"]) == ("broken.svs", "truncated at byte 3", 3)


def test_changes_are_read_by_sequence_number(client):
    store(client, samples.volume(), samples.label())
    first = client.get("/api/changes?after=0&limit=1").get_json()
    assert [change["action"] for change in first["changes"]] == ["stored"]
    rest = client.get(f"/api/changes?after={first['last']}").get_json()
    assert [change["seq"] for change in rest["changes"]] == [first["last"] + 1]
    last = client.get(f"/api/changes?after={rest['last']}").get_json()
    assert last == {"changes": [], "last": rest["last"]}


def test_the_system_names_version_folders_and_mode(archive):
    settings = WebSettings(version="1.2.3", watch_folders=("incoming",))
    system = create_app(archive, settings).test_client().get("/api/system").get_json()
    assert system == {"version": "1.2.3", "watch_folders": ["incoming"], "auth_mode": "open"}
