# SPDX-License-Identifier: Apache-2.0
"""DELETE: gone for every door, told to the trail, and a right of its own."""

import pytest

from archive.access import EVERYTHING, Action, OpenPolicy, Principal
from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from tests.dicomweb import samples
from tests.dicomweb.conftest import LABEL, LEVEL, WEB, open_archive, store

STUDY = f"{WEB}/studies/{samples.STUDY}"
SERIES = f"{STUDY}/series/{samples.SERIES}"
ANY = {"Accept": "*/*"}
JSON = {"Accept": "application/dicom+json"}
BELOW = ["", "/metadata", "/frames/1", "/rendered", "/thumbnail"]


def audit(archive):
    events = archive._core.index.models.AuditEvent
    with archive._core.index.read():
        return [(row.code, row.action, row.event) for row in events.select().order_by(events.id)]


def test_a_deleted_instance_is_410_at_every_resource_and_the_others_stay(client):
    store(client, samples.volume(), samples.label())
    assert client.get(f"{LEVEL}/frames/1", headers=ANY).status_code == 200  # held by the caches
    response = client.delete(LEVEL)
    assert (response.status_code, response.get_data()) == (204, b"")
    assert "Content-Type" not in response.headers
    for resource in BELOW:
        assert client.get(f"{LEVEL}{resource}", headers=ANY).status_code == 410, resource
    assert client.get(f"{LABEL}/metadata", headers=JSON).status_code == 200
    (found,) = client.get(f"{STUDY}/instances", headers=JSON).get_json(force=True)
    assert found["00080018"]["Value"] == [f"{samples.SERIES}.3"]


@pytest.mark.parametrize("resource", [STUDY, SERIES])
def test_a_deleted_study_or_series_is_410_and_found_no_more(client, resource):
    store(client, samples.volume(), samples.label())
    assert client.delete(resource).status_code == 204
    for path in (resource, f"{resource}/metadata", LEVEL, LABEL):
        assert client.get(path, headers=ANY).status_code == 410, path
    assert client.get(f"{WEB}/studies", headers=JSON).status_code == 204


def test_what_was_deleted_cannot_be_deleted_again_but_stored(client):
    store(client, samples.volume())
    assert client.delete(LEVEL).status_code == 204
    assert client.delete(LEVEL).status_code == 410
    assert client.delete(STUDY).status_code == 410
    assert store(client, samples.volume()).status_code == 200
    assert client.get(f"{LEVEL}/metadata", headers=JSON).status_code == 200


def test_what_never_was_is_404(client):
    store(client, samples.volume())
    for path in (f"{WEB}/studies/1.2.3", f"{STUDY}/series/1.2.3", f"{SERIES}/instances/1.2.3"):
        assert client.delete(path).status_code == 404, path
    assert client.get(f"{LEVEL}/metadata", headers=JSON).status_code == 200


def test_who_when_and_why_are_in_the_trail(client, archive):
    store(client, samples.volume())
    client.delete(f"{STUDY}?reason=sent%20twice")
    code, action, event = audit(archive)[-1]
    assert (code, action) == ("110105", "D")
    assert "sent twice" in event
    assert "operator" in event
    assert samples.STUDY in event


def test_a_reason_that_is_no_line_of_text_is_400_and_deletes_nothing(client):
    store(client, samples.volume())
    for reason in ("x" * 257, "a%0Ab"):
        assert client.delete(f"{STUDY}?reason={reason}").status_code == 400
    assert client.get(f"{LEVEL}/metadata", headers=JSON).status_code == 200


class Keeper(OpenPolicy):
    def allows(self, principal, action):
        return action is not Action.DELETE


def test_deleting_is_a_right_and_its_refusal_is_in_the_trail(tmp_path):
    archive = open_archive(tmp_path / "data", policy=Keeper())
    client = create_app(archive, WebSettings()).test_client()
    store(client, samples.volume())
    assert client.delete(STUDY).status_code == 403
    assert client.get(f"{LEVEL}/metadata", headers=JSON).status_code == 200
    assert audit(archive)[-1][0] == "110113"
    archive.close()


def test_a_foreign_page_cannot_delete(client):
    store(client, samples.volume())
    assert client.delete(STUDY, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.delete(STUDY, headers={"Origin": "http://localhost"}).status_code == 204


def test_bytes_stay_until_garbage_is_collected_and_then_go(client, archive):
    store(client, samples.volume())
    client.delete(STUDY)
    who = {"principal": Principal("tester", "cli"), "scope": EVERYTHING}
    assert archive.collect_garbage(**who) == 0
    core = archive._core
    later = core.now_us() + 25 * 3600 * 1_000_000
    clock = core.clock
    core.clock = lambda: clock().fromtimestamp(later / 1e6, tz=clock().tzinfo)
    assert archive.collect_garbage(**who) == 1
    assert client.get(LEVEL, headers=ANY).status_code == 410


def test_a_rebuilt_index_remembers(client, archive):
    store(client, samples.volume(), samples.label())
    client.delete(LEVEL)
    archive.reindex(principal=Principal("tester", "cli"), scope=EVERYTHING)
    assert client.get(LEVEL, headers=ANY).status_code == 410
    assert client.get(f"{LABEL}/metadata", headers=JSON).status_code == 200
