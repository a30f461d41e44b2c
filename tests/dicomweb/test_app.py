# SPDX-License-Identifier: Apache-2.0
"""What holds for every route: hosts, headers, one error shape, scopes, CORS, probes."""

import re

import pytest

from archive.access import EVERYTHING, NOTHING, OpenPolicy, Principal
from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from tests.dicomweb import samples
from tests.dicomweb.conftest import ANNOTATIONS, LABEL, LEVEL, WEB, open_archive, store

STUDY = f"{WEB}/studies/{samples.STUDY}"
SERIES = f"{STUDY}/series/{samples.SERIES}"
ANY = {"Accept": "*/*"}

READABLE = [
    f"{WEB}/studies", f"{WEB}/series", f"{WEB}/instances", f"{STUDY}/series", f"{STUDY}/instances",
    f"{SERIES}/instances", STUDY, SERIES, LEVEL,
    f"{STUDY}/metadata", f"{SERIES}/metadata", f"{LEVEL}/metadata",
    f"{LEVEL}/frames/1", f"{LEVEL}/frames/1,2", f"{LEVEL}/frames/1?x=y",
    f"{LEVEL}/bulkdata/00480105/0/00282000", f"{ANNOTATIONS}/bulkdata/006A0002/0/00660022",
    f"{LEVEL}/frames/1/rendered", f"{LEVEL}/rendered", f"{LABEL}/rendered",
    f"{STUDY}/thumbnail", f"{SERIES}/thumbnail", f"{LEVEL}/thumbnail", f"{LEVEL}/frames/1/thumbnail",
    "/api/slides", "/api/jobs", "/api/quarantine", "/api/changes", "/api/system", "/api/openapi.json",
    "/metrics", "/",
]  # fmt: skip
# What is stored lossless is given as it is only to those who say so.
AS_STORED = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


class Nobody(OpenPolicy):
    """Everything is allowed, nothing is visible."""

    def scope(self, principal):
        return NOTHING


@pytest.fixture(scope="module")
def blind(tmp_path_factory, codec):
    """A client whose scope sees nothing of an archive that holds four instances."""
    made = open_archive(tmp_path_factory.mktemp("blind") / "data", codec, policy=OpenPolicy())
    client = create_app(made, WebSettings()).test_client()
    store(client, samples.volume(), samples.lossless(), samples.label(), samples.annotations())
    made._core.policy = Nobody()
    yield client
    made.close()


@pytest.mark.parametrize("url", READABLE)
def test_every_route_answers_and_carries_the_headers(reader, url):
    response = reader.get(url, headers=AS_STORED if url in (STUDY, SERIES) else ANY)
    assert response.status_code == 200, response.get_data()[:300]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["X-Request-Id"])
    if url.startswith(WEB):
        assert "Accept" in response.headers["Vary"]
        assert response.headers["Cache-Control"].startswith("private")


@pytest.mark.parametrize("url", [url for url in READABLE if url.startswith(WEB)])
def test_a_scope_that_sees_nothing_is_shown_nothing(blind, url):
    response = blind.get(url, headers=ANY)
    assert response.status_code in (204, 404)
    # No hint in the body either: what is hidden looks like what never was.
    missing = blind.get(url.replace(samples.ROOT, f"{samples.ROOT}.77"), headers=ANY)
    assert missing.status_code == response.status_code
    if response.status_code == 404:
        hidden, absent = (answer.get_json()["error"] for answer in (response, missing))
        assert hidden["kind"] == absent["kind"]
        assert hidden["message"] == absent["message"].replace(f"{samples.ROOT}.77", samples.ROOT)


def test_a_scope_that_sees_nothing_has_an_empty_work_list(blind):
    assert blind.get("/api/slides").get_json() == {"slides": [], "next": None}
    assert blind.get("/api/changes").get_json()["changes"] == []


@pytest.mark.parametrize("url", [url for url in READABLE if url != "/metrics"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example"])
def test_a_foreign_host_reaches_nothing(reader, url, host):
    response = reader.get(url, headers={**ANY, "Host": host})
    assert response.status_code == 403
    assert response.get_json()["error"]["kind"] == "Forbidden"
    assert b"evil" not in response.get_data()


def test_no_url_repeats_what_host_claims(reader):
    for host in ("localhost:6666", "127.0.0.1"):
        response = reader.get(f"{WEB}/studies", headers={**ANY, "Host": host})
        (url,) = response.get_json(force=True)[0]["00081190"]["Value"]
        assert url == f"http://{host.partition(':')[0]}{STUDY}"


def test_forwarded_headers_of_strangers_change_nothing(reader):
    headers = {
        **ANY,
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "9.9.9.9",
    }
    response = reader.get(f"{WEB}/studies", headers=headers)
    assert response.get_json(force=True)[0]["00081190"]["Value"] == [f"http://localhost{STUDY}"]


def test_public_url_is_in_every_url(shared_archive):
    settings = WebSettings(public_url="https://slides.example/cs")
    client = create_app(shared_archive, settings).test_client()
    headers = {**ANY, "Host": "slides.example"}
    (study,) = client.get(f"{WEB}/studies", headers=headers).get_json(force=True)
    assert study["00081190"]["Value"] == [f"https://slides.example/cs{STUDY}"]
    metadata = client.get(f"{ANNOTATIONS}/metadata", headers=headers).get_data(as_text=True)
    assert f'"BulkDataURI":"https://slides.example/cs{ANNOTATIONS}/bulkdata/' in metadata


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/nothing", 404),
        ("DELETE", f"{WEB}/studies", 405),
        ("POST", LEVEL, 405),
        ("GET", "/dicom-web//studies", 404),
    ],
)
def test_wrong_turns_have_the_one_error_shape(reader, method, url, status):
    response = reader.open(url, method=method, headers=ANY)
    assert response.status_code == status
    error = response.get_json()["error"]
    assert error["status"] == status
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert ("Allow" in response.headers) == (status == 405)


def test_a_fault_of_ours_says_nothing_of_what_it_met(app, archive, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("/srv/data/PATIENT^NAME.dcm")

    monkeypatch.setattr(archive, "slides", fail)
    monkeypatch.setattr(archive, "instance", fail)
    monkeypatch.setattr(archive, "stored_frames", fail)
    for url in ("/api/slides", f"{LEVEL}/frames/1", f"{LEVEL}/metadata"):
        response = app.test_client().get(url, headers=ANY)
        assert response.status_code == 500
        assert response.get_json()["error"]["kind"] == "InternalError"
        assert b"PATIENT" not in response.get_data()
        assert b"/srv" not in response.get_data()


def test_without_credentials_everything_is_401(shared_archive):
    client = create_app(shared_archive, WebSettings(), authenticate=lambda environ: None).test_client()
    for url in READABLE:
        if url in ("/", "/metrics"):
            continue
        response = client.get(url, headers=ANY)
        assert response.status_code == 401, url
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_the_principal_is_who_authentication_names(archive, monkeypatch):
    seen = []
    monkeypatch.setattr(
        archive, "slides", lambda *, principal, scope, **rest: seen.append((principal, scope)) or []
    )
    client = create_app(archive, WebSettings(), authenticate=lambda environ: "ada").test_client()
    response = client.get("/api/slides")
    assert seen == [(Principal("ada", "dicomweb", "127.0.0.1", response.headers["X-Request-Id"]), EVERYTHING)]


# ---- CORS -------------------------------------------------------------------------

PREFLIGHT = {
    "Origin": "https://viewer.example",
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}


def test_no_cors_unless_origins_are_configured(reader):
    for response in (
        reader.options(f"{WEB}/studies", headers=PREFLIGHT),
        reader.get(f"{WEB}/studies", headers={**ANY, "Origin": "https://viewer.example"}),
    ):
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


def test_a_listed_origin_may_read_and_others_may_not(shared_archive):
    settings = WebSettings(cors_origins=("https://viewer.example",))
    client = create_app(shared_archive, settings, authenticate=lambda environ: None).test_client()
    preflight = client.options(f"{LEVEL}/frames/1", headers=PREFLIGHT)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://viewer.example"
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "Origin" in preflight.headers["Vary"]
    stranger = client.options(f"{WEB}/studies", headers={**PREFLIGHT, "Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in stranger.headers
    # 401 must be readable, since viewers sign in only after it
    refused = client.get(f"{LEVEL}/frames/1", headers={**ANY, "Origin": "https://viewer.example"})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://viewer.example"
    assert "ETag" in refused.headers["Access-Control-Expose-Headers"]


VIEWER = {"Origin": "https://viewer.example"}
FRAME = f"{LEVEL}/frames/1"


@pytest.fixture(scope="module")
def shared(shared_archive):
    """A client of a server that one other origin may read."""
    settings = WebSettings(cors_origins=("https://viewer.example",))
    return create_app(shared_archive, settings).test_client()


@pytest.mark.parametrize(
    ("url", "headers", "status"),
    [
        (FRAME, ANY, 200),
        (f"{FRAME},2", ANY, 200),
        (f"{FRAME}?long=way", ANY, 200),
        (FRAME, {**ANY, "Authorization": "Bearer x"}, 200),
        (FRAME, {**ANY, "Cookie": "session=x"}, 200),
        (FRAME, {"Accept": "image/jpeg", "Range": "bytes=0-3"}, 206),
        (FRAME, {"Accept": "image/jpeg", "Range": "bytes=99999-"}, 416),
        (FRAME, {"Accept": "*/*", "If-None-Match": "*"}, 304),
        (f"{FRAME},2", {"Accept": "*/*", "If-None-Match": "*"}, 304),
        (f"{LEVEL}/metadata", {"Accept": "*/*", "If-None-Match": "*"}, 304),
        (f"{LEVEL}/frames/0", ANY, 400),
        (f"{LEVEL}/frames/99", ANY, 404),
        (f"{WEB}/nothing", ANY, 404),
        (FRAME, {"Accept": "image/gif"}, 406),
        (f"{WEB}/studies?PatientID=nobody", ANY, 204),
        (f"{LEVEL}/rendered", ANY, 200),
    ],
)
def test_every_answer_says_who_may_read_it_and_that_it_varies(shared, url, headers, status):
    listed = shared.get(url, headers={**headers, **VIEWER})
    assert listed.status_code == status
    assert listed.headers["Access-Control-Allow-Origin"] == "https://viewer.example"
    assert listed.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Content-Range" in listed.headers["Access-Control-Expose-Headers"]
    for others in (listed, *(shared.get(url, headers={**headers, **more}) for more in ({}, STRANGER))):
        assert (others.status_code, len(others.headers.getlist("Vary"))) == (status, 1)
        assert "Origin" in others.headers["Vary"].split(", ")
        if others is not listed:
            assert not [name for name, _ in others.headers if name.startswith("Access-Control")]


STRANGER = {"Origin": "https://evil.example"}


@pytest.mark.parametrize("origin", [VIEWER, STRANGER, {"Origin": "null"}])
def test_a_viewer_on_the_internet_may_ask_an_archive_within_only_where_it_is_listed(shared, origin):
    asked = {**PREFLIGHT, **origin, "Access-Control-Request-Private-Network": "true"}
    found = shared.options(FRAME, headers=asked).headers.get("Access-Control-Allow-Private-Network")
    assert found == ("true" if origin is VIEWER else None)
    assert "Access-Control-Allow-Private-Network" not in shared.options(FRAME, headers=PREFLIGHT).headers


# ---- probes and description ---------------------------------------------------------


def test_probes_answer_to_any_name(reader):
    assert reader.get("/healthz", headers={"Host": "10.1.2.3"}).status_code == 200
    ready = reader.get("/readyz", headers={"Host": "10.1.2.3"})
    assert ready.get_json() == {"ready": True, "checks": {"database": "ok", "storage": "ok", "disk": "ok"}}


def test_readiness_is_503_when_a_part_fails(app, archive, monkeypatch):
    monkeypatch.setattr(archive, "ready", lambda: {"database": "ok", "storage": "not writable"})
    response = app.test_client().get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["checks"]["storage"] == "not writable"


def test_metrics_say_what_the_outbox_holds(archive):
    archive.promise("PACS", "forward", {}, principal=Principal("ada", "cli"), scope=EVERYTHING)
    client = create_app(archive, WebSettings(), authenticate=lambda environ: "ada").test_client()
    text = client.get("/metrics").get_data(as_text=True)
    assert 'coverslip_outbox{state="waiting"} 1' in text.splitlines()
    assert 'coverslip_outbox{state="failed"} 0' in text.splitlines()


def test_metrics_count_requests_by_route_and_never_by_value(client):
    store(client, samples.volume())
    client.get(f"{LEVEL}/frames/1", headers=ANY)
    client.get(f"{LEVEL}/frames/1,2", headers=ANY)
    client.get(f"{LEVEL}/frames/99", headers=ANY)
    text = client.get("/metrics").get_data(as_text=True)
    assert 'coverslip_http_requests_total{route="wado.frame",status="200"} 1.0' in text
    assert 'coverslip_http_requests_total{route="wado.frame",status="404"} 1.0' in text
    assert 'coverslip_http_requests_total{route="wado.retrieve_frames",status="200"} 1.0' in text
    assert 'coverslip_cache{name="instance_cache_hits"}' in text
    assert samples.ROOT not in text


def test_the_openapi_document_describes_every_route(app, reader):
    described = reader.get("/api/openapi.json").get_json()
    operations = [
        (path, method, operation)
        for path, item in described["paths"].items()
        for method, operation in item.items()
    ]
    methods = {
        (re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert {(path, method) for path, method, _ in operations} == methods
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)
    for path, _, operation in operations:
        assert operation["summary"], path
        assert {parameter["name"] for parameter in operation["parameters"]} == set(
            re.findall(r"{([^}]+)}", path)
        )
