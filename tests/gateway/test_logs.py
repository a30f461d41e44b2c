# SPDX-License-Identifier: Apache-2.0
"""The log holds what operators need and no value of a patient."""

import json
import logging
import subprocess
import sys
import warnings

import pytest

from archive.errors import NoSuchStudy
from gateway.logs import JsonLines, exception_fields, hashed, without_query

CANARY = "CANARY^PATIENT"


def logged(
    name: str, message: str, *arguments: object, error: BaseException | None = None, **extra: object
) -> dict[str, object]:
    record = logging.getLogger(name).makeRecord(
        name,
        logging.WARNING,
        __file__,
        1,
        message,
        arguments,
        (type(error), error, error.__traceback__) if error else None,
        extra=extra,
    )
    found: dict[str, object] = json.loads(JsonLines("web").format(record))
    return found


def test_a_line_says_role_process_and_our_own_message_with_its_fields() -> None:
    line = logged("gateway.dimse.store", "stored %s", "1.2.3", peer="SCANNER1", seconds=1.5)
    assert line["message"] == "stored 1.2.3"
    assert (line["role"], line["peer"], line["seconds"], line["level"]) == ("web", "SCANNER1", 1.5, "warning")
    assert isinstance(line["pid"], int)


@pytest.mark.parametrize(
    ("message", "arguments", "shown"),
    [
        (f"Invalid value {CANARY}", (), "(text withheld)"),
        ("Invalid value %s for VR %s", (CANARY, "UI"), "Invalid value %s for VR %s"),
    ],
)
def test_the_message_of_another_library_is_reduced_to_template_and_place(message, arguments, shown) -> None:
    line = logged("pydicom", message, *arguments)
    assert line["message"] == shown
    assert str(line["at"]).startswith(__file__)


def test_query_strings_are_dropped_wherever_a_path_stands() -> None:
    assert (
        without_query(f"GET /dicom-web/studies?PatientName={CANARY} took 3 s")
        == "GET /dicom-web/studies took 3 s"
    )
    assert without_query("is it there? yes") == "is it there? yes"
    line = logged("gateway.web", "GET %s", f"/a?q={CANARY}", path=f"/b?q={CANARY}")
    assert CANARY not in json.dumps(line)


def test_the_text_of_an_exception_is_shown_only_where_it_names_no_value() -> None:
    assert exception_fields(NoSuchStudy("1.2.3"))["text"] == "no study 1.2.3"
    assert "text" not in exception_fields(ValueError(CANARY))
    assert exception_fields(FileNotFoundError(2, "No such file or directory", CANARY))["text"] == (
        "No such file or directory"
    )


def test_causes_and_frames_of_an_exception_are_shown_without_text() -> None:
    try:
        try:
            int(CANARY)
        except ValueError as error:
            raise KeyError(CANARY) from error
    except KeyError as error:
        line = logged("gateway", "failed", error=error)
    text = json.dumps(line)
    assert CANARY not in text
    assert "ValueError" in text
    assert "test_logs.py" in text


def test_a_line_break_in_a_value_makes_no_second_line() -> None:
    record = logging.makeLogRecord({"name": "gateway", "msg": "from %s", "args": ("A\n{}",)})
    assert "\n" not in JsonLines("web").format(record)


def test_equal_names_give_equal_stand_ins_and_no_name() -> None:
    assert hashed(CANARY) == hashed(CANARY) != hashed("other")
    assert "CANARY" not in hashed(CANARY)


def test_nothing_that_a_process_can_utter_shows_a_value() -> None:
    """Warnings, uncaught exceptions of the process, of a thread and of a finaliser, a bad log call."""
    program = f"""
import logging, threading, warnings
from gateway import logs
logs.setup("test")
warnings.warn("{CANARY}")
logging.getLogger("pydicom").warning(f"bad {CANARY}")
logging.getLogger("pydicom").info("%s", "{CANARY}")
logging.getLogger("gateway").info("%d", "{CANARY}")
class Ended:
    def __del__(self): raise ValueError("{CANARY}")
def work(): raise ValueError("{CANARY}")
thread = threading.Thread(target=work); thread.start(); thread.join()
Ended()
raise ValueError("{CANARY}")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert CANARY not in done.stderr
    messages = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert messages[-3:] == ["uncaught in a thread", "uncaught in a finaliser", "uncaught"]
    assert "(text withheld)" in messages


def test_setting_up_the_log_leaves_this_process_alone() -> None:
    assert warnings.showwarning.__module__ != "logging"
