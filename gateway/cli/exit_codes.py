# SPDX-License-Identifier: Apache-2.0
"""What the command's exit code says: one code for each kind of refusal.

Classes are named, not imported, so that a command loads only what it uses. A class
without a row has its nearest base's code. ``docs/errors.md`` is written from here by
``coverslip config docs --write``; a test compares, and looks up every name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SUCCESS = 0
FAULT = 1
USAGE = 2
FINDINGS = 40
SOME_FAILED = 41
NOT_READY = 42
INTERRUPTED = 62


@dataclass(frozen=True, slots=True)
class ExitCode:
    """``classes`` are dotted names; ``advice`` is what an operator can do."""

    code: int
    classes: Sequence[str]
    meaning: str
    advice: str


EXIT_CODES: Sequence[ExitCode] = (
    ExitCode(SUCCESS, (), "Done.", ""),
    ExitCode(FAULT, (), "A fault of Coverslip itself.", "Report it with the log line."),
    ExitCode(USAGE, ("click.exceptions.UsageError",), "The command line is wrong.", "See --help."),
    ExitCode(
        3,
        ("gateway.settings_read.SettingsError",),
        "A setting is unknown, of the wrong type or not allowed.",
        "See `coverslip config check` and docs/settings.md.",
    ),
    ExitCode(
        4,
        ("gateway.supervisor.AlreadyServing",),
        "The data folder is served already.",
        "Stop that server, or name another folder with --data.",
    ),
    ExitCode(
        5,
        ("gateway.supervisor.CannotListen",),
        "An address is taken or not this machine's.",
        "Choose another port, or 0 for a free one.",
    ),
    ExitCode(6, ("archive.errors.NotFound",), "Nothing of that name.", "See `coverslip find`."),
    ExitCode(7, ("archive.errors.Gone",), "It was deleted.", ""),
    ExitCode(8, ("archive.errors.NotAllowed",), "Not allowed to this user.", ""),
    ExitCode(
        9,
        ("archive.errors.DuplicateInstance",),
        "The instance is stored already with other pixels.",
        "The file is in quarantine; an operator must decide.",
    ),
    ExitCode(10, ("archive.errors.StudyMismatch",), "The file is of another study than named.", ""),
    ExitCode(
        11,
        ("archive.errors.Unreadable", "archive.part10.errors.Part10Error"),
        "Not DICOM, truncated or malformed.",
        "The message says what and where.",
    ),
    ExitCode(12, ("archive.errors.UnsupportedSopClass",), "A SOP class that is not stored here.", ""),
    ExitCode(13, ("archive.errors.UnsupportedTransferSyntax",), "An unknown transfer syntax.", ""),
    ExitCode(14, ("archive.errors.CannotTranscode",), "No way to the form that was asked for.", ""),
    ExitCode(
        15, ("archive.errors.CannotDecode",), "Stored pixels cannot be decoded.", "Run `coverslip verify`."
    ),
    ExitCode(
        16, ("archive.errors.TooLarge",), "Larger than a limit allows.", "See `limits` in the settings."
    ),
    ExitCode(17, ("archive.errors.StorageFull",), "No space left.", "Free space; nothing was half-stored."),
    ExitCode(
        18,
        ("archive.errors.StorageFailed",),
        "The medium refused to write or read.",
        "See the system's log; check permissions.",
    ),
    ExitCode(
        19,
        ("archive.errors.Damaged",),
        "Stored bytes are missing or differ from their digest.",
        "Run `coverslip verify`; restore from a backup.",
    ),
    ExitCode(20, ("archive.errors.BadQuery",), "A search value is not of its attribute's form.", ""),
    ExitCode(21, ("archive.errors.Busy",), "Too much at once.", "Try again."),
    ExitCode(
        22,
        ("archive.errors.StoreTooNew",),
        "The data folder was written by a newer release.",
        "Use that release; nothing was changed.",
    ),
    ExitCode(23, ("archive.errors.Held",), "A hold or retention forbids the change.", ""),
    ExitCode(24, ("archive.errors.SourceChanged",), "The file changed while it was read.", "Try again."),
    ExitCode(26, ("archive.errors.LeaseLost",), "The job is another worker's by now.", ""),
    ExitCode(
        27,
        ("archive.errors.RejectionRefused", "archive.errors.TransactionInUse"),
        "A rejection note or storage commitment that does not fit what is stored or asked for.",
        "The message says why.",
    ),
    ExitCode(
        43,
        ("archive.errors.BadOrder", "archive.errors.StepRefused"),
        "A worklist item or performed step lacks something, or has a value that its attribute cannot hold.",
        "The message names the attribute.",
    ),
    ExitCode(
        25, ("archive.errors.ArchiveError",), "Another refusal of the archive.", "The message says which."
    ),
    ExitCode(
        30,
        ("converters.errors.UnreadableSlide", "converters.errors.AmbiguousSlide"),
        "No reader knows the file.",
        "`coverslip inspect` says why each refused.",
    ),
    ExitCode(
        31,
        ("converters.errors.UnsupportedCompression", "converters.errors.UnsupportedPixels"),
        "The slide's compression or pixels are not supported.",
        "",
    ),
    ExitCode(
        32, ("converters.errors.DamagedSlide",), "The slide is damaged or ends too early.", "Copy it again."
    ),
    ExitCode(
        33,
        (
            "converters.errors.MissingPixelSpacing",
            "converters.errors.MissingFocalPlaneSpacing",
            "converters.errors.BadMetadata",
        ),
        "Metadata is missing or of the wrong form.",
        "Give it with --metadata.",
    ),
    ExitCode(
        34,
        ("converters.errors.TargetExists", "gateway.errors.TargetNotEmpty"),
        "The target exists already or is not empty.",
        "Name another folder; nothing was overwritten.",
    ),
    ExitCode(35, ("converters.errors.VerificationFailed",), "What was written differs from its source.", ""),
    ExitCode(
        29,
        ("converters.errors.MissingCompanion", "converters.errors.MissingLibrary"),
        "A file that belongs to the slide, or a library that its format needs, is not there.",
        "Put the slide's files together as the scanner wrote them; install what the message names.",
    ),
    ExitCode(
        28,
        ("converters.errors.NotEnoughMemory",),
        "Decoding or encoding needs more memory than a process may have.",
        "Raise `convert.memory_bytes`; the slide may be sound.",
    ),
    ExitCode(36, ("converters.errors.ConversionError",), "Another refusal of a converter.", ""),
    ExitCode(37, ("gateway.errors.BadBackup",), "The backup is damaged or incomplete.", "Use another one."),
    ExitCode(
        38,
        ("gateway.cli.errors.CannotRead", "builtins.OSError"),
        "A file or folder cannot be read or written.",
        "The message names it.",
    ),
    ExitCode(39, ("gateway.errors.MissingProgram",), "A program or package that is needed is absent.", ""),
    ExitCode(
        44,
        ("gateway.delivery.DeliveryError",),
        "A receiver cannot be reached, or does not take what it is sent.",
        "The message says why; the same command again sends what is missing.",
    ),
    ExitCode(FINDINGS, (), "The check found something wrong.", "It is listed on the standard output."),
    ExitCode(SOME_FAILED, (), "Some of several files failed.", "They are listed; the others are done."),
    ExitCode(NOT_READY, ("gateway.supervisor.StartFailed",), "The server could not start.", "See its log."),
    ExitCode(INTERRUPTED, ("builtins.KeyboardInterrupt", "click.exceptions.Abort"), "Interrupted.", ""),
)

_BY_CLASS = {name: row.code for row in EXIT_CODES for name in row.classes}


def code_of(error: BaseException) -> int | None:
    """The exit code of a refusal, by its class or nearest base; None for a fault of ours."""
    for base in type(error).__mro__:
        found = _BY_CLASS.get(f"{base.__module__}.{base.__qualname__}")
        if found is not None:
            return found
    return None


def markdown() -> str:
    """The whole of docs/errors.md."""
    lines = [
        "# Exit codes",
        "",
        "<!-- Written by `coverslip config docs --write` from gateway/cli/exit_codes.py; do not edit. -->",
        "",
        "A refusal is exactly one line on standard error, `coverslip: ` and what happened, and a code that",
        "says of which kind it is. No message holds a value of a patient.",
        "",
        "| code | what happened | what to do | classes |",
        "|---|---|---|---|",
    ]
    for row in EXIT_CODES:
        classes = ", ".join(f"`{name.rpartition('.')[2]}`" for name in row.classes)
        lines.append(f"| {row.code} | {row.meaning} | {row.advice} | {classes} |")
    return "\n".join(lines) + "\n"
