# SPDX-License-Identifier: Apache-2.0
"""Which instances go where, and why; exactly once into the outbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.service import Archive
from archive.values import Sender
from gateway.router import Router, RulesFile, facts_of
from gateway.routing import Rules, load_rules, parse_rules
from gateway.settings import shipped_config
from gateway.settings_read import SettingsError
from tests.support.archives import ASK, SENDER, open_archive, store_bytes
from tests.support.instances import make_instance

SLIDES = "1.2.840.10008.5.1.4.1.1.77.1.6"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path)
    yield opened
    opened.close()


def rules(text: str) -> Rules:
    return parse_rules(text, "routing.toml")


def why_not(archive: Archive, condition: str) -> str | None:
    """Of the only instance, by a rule with this condition."""
    (change,) = archive.changes(0, **ASK)
    instance = archive.instance(
        change.study_instance_uid, change.series_instance_uid, change.sop_instance_uid, **ASK
    )
    found = rules(f'[[rule]]\nname = "r"\ndestinations = ["PACS"]\n{condition}')
    ((_, why),) = found.decisions(facts_of(archive, instance, ASK))  # type: ignore[arg-type]
    return why


def site(dataset: object) -> None:
    """A specimen of skin, stained with haematoxylin."""
    from pydicom.dataset import Dataset

    def code(value: str, meaning: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
        return item

    content = Dataset()
    content.ValueType = "CODE"
    content.ConceptNameCodeSequence = [code("424361007", "Using substance")]
    content.ConceptCodeSequence = [code("12710003", "hematoxylin stain")]
    step = Dataset()
    step.SpecimenPreparationStepContentItemSequence = [content]
    specimen = Dataset()
    specimen.SpecimenIdentifier = "A1"
    specimen.SpecimenPreparationSequence = [step]
    specimen.PrimaryAnatomicStructureSequence = [code("39937001", "Skin")]
    dataset.SpecimenDescriptionSequence = [specimen]  # type: ignore[attr-defined]
    dataset.AccessionNumber = "S26-0001"  # type: ignore[attr-defined]
    dataset.ClinicalTrialProtocolID = "GLP-7"  # type: ignore[attr-defined]


def instance_with_site() -> bytes:
    import io

    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(make_instance(frames=4)))
    site(dataset)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("", None),
        ('modality = "SM"', None),
        ('modality = ["CT", "sm"]', None),
        ('modality = "CT"', "modality is not CT"),
        (f'sop_class = "{SLIDES}"', None),
        ('source = "test*"', None),
        ('source = "SCANNER1"', "source is not SCANNER1"),
        ('via = "dimse"', "via is not dimse"),
        ('image_type = "VOLUME"', None),
        ('not_image_type = "LABEL"', None),
        ('not_image_type = "VOLUME"', "image_type is VOLUME"),
        ('body_site = "skin"', None),
        ('body_site = "39937001"', None),
        ('body_site = "Liver"', "body_site is not Liver"),
        ('stain = "12710003"', None),
        ('stain = "*eosin*"', "stain is not *eosin*"),
        ('protocol_study = "GLP-*"', None),
        ('accession = "S26-????"', None),
        ('accession = "S25-*"', "accession is not S25-*"),
        ('accession = "S26-*"\nmodality = "CT"', "modality is not CT"),
        ("enabled = false", "the rule is not enabled"),
    ],
)
def test_a_rule_matches_when_all_that_it_names_does_and_else_says_why_not(
    archive: Archive, condition: str, why: str | None
) -> None:
    store_bytes(archive, instance_with_site())
    assert why_not(archive, condition) == why


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rule]]\nname = 'a'", "needs destinations"),
        ("[[rule]]\ndestinations = ['A']", "needs a name"),
        ("[[rule]]\nname = 'a'\ndestinations = ['A']\nmodalty = 'SM'", "did you mean 'modality'"),
        ("[[rule]]\nname = 'a'\ndestinations = ['THIS TITLE IS TOO LONG']", "no AE title"),
        ("[[rule]]\nname = 'a'\ndestinations = []", "a text or a list of texts"),
        ("[[rule]]\nname = 'a'\ndestinations = ['A']\ndelay_s = -1", "delay_s"),
        ("[[rule]]\nname = 'a'\ndestinations = ['A']\ncommit = 1", "commit must be true or false"),
        ("[[rule]]\nname = 'a'\ndestinations = ['A']\n" * 2, "two rules are named 'a'"),
        ("rule = 1", r"\[\[rule\]\] tables"),
        ("rules = []", "unknown key 'rules'"),
        ("[[rule", "routing.toml"),
    ],
)
def test_a_mistake_in_the_rules_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        rules(text)


def test_the_example_that_is_shipped_is_right() -> None:
    assert load_rules(shipped_config("routing.toml")).rules


TO_PACS = """
[[rule]]
name = "slides"
modality = "SM"
destinations = ["PACS", "BACKUP"]
commit = true
"""


def follow(archive: Archive, text: str = TO_PACS) -> None:
    import threading

    router = Router(archive, lambda: rules(text), threading.Event())
    while router.follow():
        pass


def test_what_is_stored_after_the_rules_came_is_promised_once_for_each_receiver(archive: Archive) -> None:
    store_bytes(archive, make_instance())
    follow(archive)
    assert archive.duties(**ASK) == []
    stored = [store_bytes(archive, make_instance(study="1.2.7", series="1.2.7.1")) for _ in range(3)]
    for _ in range(2):
        follow(archive)
    duties = archive.duties(**ASK)
    assert sorted(duty.receiver for duty in duties) == ["BACKUP", "PACS"]
    for duty in duties:
        assert duty.payload["commit"] is True
        assert duty.payload["instances"] == [one.sop_instance_uid for one in stored]


def test_two_workers_that_follow_at_once_promise_once(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    follow(archive)
    store_bytes(archive, make_instance())
    slow = Router(archive, lambda: rules(TO_PACS), threading.Event())
    promises = slow.promises

    def late(changes: object) -> object:
        made = promises(changes)  # type: ignore[arg-type]
        follow(archive)
        for duty in archive.duties(**ASK):
            if duty.state == "waiting":
                archive.cancel_duty(duty.id, "out of the way", **ASK)
        return made

    monkeypatch.setattr(slow, "promises", late)
    slow.follow()
    assert [duty.state for duty in archive.duties(**ASK)] == ["cancelled", "cancelled"]


def test_an_instance_that_rules_cannot_be_asked_of_does_not_hold_up_the_others(archive: Archive) -> None:
    import io

    import pydicom

    by_stain = '[[rule]]\nname = "r"\ndestinations = ["PACS"]\nstain = "*stain*"\n'
    follow(archive, by_stain)
    odd = pydicom.dcmread(io.BytesIO(make_instance(frames=4)))
    odd.add_new(0x00400560, "LO", "no sequence")  # a stranger's idea of SpecimenDescriptionSequence
    out = io.BytesIO()
    odd.save_as(out)
    store_bytes(archive, out.getvalue())
    stored = store_bytes(archive, instance_with_site())
    follow(archive, by_stain)
    assert [duty.payload["instances"] for duty in archive.duties(**ASK)] == [[stored.sop_instance_uid]]


def test_nothing_goes_back_to_the_peer_that_sent_it(archive: Archive) -> None:
    follow(archive)
    store_bytes(archive, make_instance(), sender=Sender("dimse", "PACS"))
    follow(archive)
    assert [duty.receiver for duty in archive.duties(**ASK)] == ["BACKUP"]


def test_a_broken_rules_file_leaves_the_rules_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "routing.toml"
    path.write_text(TO_PACS)
    current = RulesFile(path)
    path.write_text(TO_PACS.replace("slides", "all slides"))
    assert current().rules[0].name == "all slides"
    path.write_text("[[rule")
    assert current().rules[0].name == "all slides"
    path.unlink()
    assert current().rules[0].name == "all slides"


def test_the_sender_of_an_instance_is_known(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    uids = (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)
    assert archive.sender_of(archive.instance(*uids, **ASK), **ASK) == SENDER
