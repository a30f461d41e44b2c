# SPDX-License-Identifier: Apache-2.0
"""The log: JSON lines on stderr, without patient data.

Our own modules log UIDs, AE titles, digests and request ids, never values. What others
log (pydicom quotes the values it dislikes) is taken from WARNING on, reduced to its
template and place. Exceptions are written as type and frames; their text only where
the class promises that it names no values. File names go through :func:`hashed`.
"""

import hashlib
import json
import logging
import os
import re
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType

OURS = ("gateway", "archive", "dicomweb", "converters", "__main__")
# Classes whose str() holds no attribute value, by where their docstrings say so.
PLAIN_SPOKEN = ("archive.errors", "archive.part10.errors", "converters.errors", "gateway.settings")
URL_QUERY = re.compile(r"(/[^\s?\"']*)\?[^\s\"']*")
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def hashed(name: str) -> str:
    """A stand-in for a file or person's name: equal names give equal stand-ins."""
    return "name-" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def is_ours(logger: str) -> bool:
    return logger.partition(".")[0] in OURS


def without_query(text: str) -> str:
    """``text`` with the query string of every path in it dropped."""
    return URL_QUERY.sub(r"\1", text)


def exception_fields(error: BaseException) -> dict[str, object]:
    """Type, frames and, where it is safe, text of an exception and of its causes."""
    fields: dict[str, object] = {"type": type(error).__qualname__}
    if any(base.__module__ in PLAIN_SPOKEN for base in type(error).__mro__):
        fields["text"] = without_query(str(error))
    elif isinstance(error, OSError) and error.strerror:
        fields["text"] = error.strerror  # without the path
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    fields["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and cause is not error:
        fields["cause"] = exception_fields(cause)
    return fields


class JsonLines(logging.Formatter):
    """One JSON object a line; ``extra`` of our own loggers becomes fields."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "pid": os.getpid(),
            "logger": record.name,
        }
        if is_ours(record.name):
            line["message"] = without_query(record.getMessage())
            for name, value in vars(record).items():
                if name not in STANDARD and isinstance(value, (str, int, float)):
                    line[name] = without_query(value) if isinstance(value, str) else value
        else:
            # A message without arguments may be an f-string: values are in it already.
            line["message"] = str(record.msg) if record.args else "(text withheld)"
            line["at"] = f"{record.pathname}:{record.lineno}"
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = exception_fields(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True)


class _Admitted(logging.Filter):
    """Others' messages from a level on; ours have their level already."""

    def __init__(self, others_level: int) -> None:
        super().__init__()
        self._others_level = others_level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._others_level or is_ours(record.name)


def setup(role: str, level: str = "info", others_level: int = logging.WARNING) -> None:
    """Send all logging, warnings and uncaught exceptions of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(role))
    handler.addFilter(_Admitted(others_level))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a failing handler would print the record, values and all
    log = logging.getLogger("gateway.logs")

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.critical("uncaught", exc_info=(kind, error, trace))

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            log.critical("uncaught in a thread", exc_info=args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            log.error("uncaught in a finaliser", exc_info=args.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable


def log_fault(error: BaseException) -> None:
    """A fault of ours at the outermost edge: one line with type and frames."""
    logging.getLogger("gateway").critical("a fault of Coverslip", exc_info=error)
