# SPDX-License-Identifier: Apache-2.0
"""The ``coverslip`` command: finds the subcommand, turns refusals into one line and a code."""

import importlib
import sys
from collections.abc import Sequence

import click

from gateway.cli import exit_codes
from gateway.cli.errors import Finished

# name -> module of gateway.cli; the command is the attribute ``command``
COMMANDS = {
    "serve": "serve_cmd",
    "web": "roles_cmd.web",
    "dimse": "roles_cmd.dimse",
    "worker": "roles_cmd.worker",
    "watch": "roles_cmd.watch",
    "migrate": "migrate_cmd",
    "convert": "convert_cmd",
    "inspect": "inspect_cmd",
    "ingest": "ingest_cmd",
    "find": "find_cmd",
    "worklist": "worklist_cmd",
    "export": "export_cmd",
    "send": "send_cmd",
    "outbox": "outbox_cmd",
    "routing": "routing_cmd",
    "original": "original_cmd",
    "correct": "correct_cmd",
    "delete": "delete_cmd",
    "reject": "reject_cmd",
    "recompress": "recompress_cmd",
    "verify": "verify_cmd",
    "reindex": "reindex_cmd",
    "recover": "recover_cmd",
    "gc": "gc_cmd",
    "quarantine-list": "quarantine_cmd",
    "quarantine-show": "quarantine_cmd.show",
    "quarantine-resolve": "quarantine_cmd.resolve",
    "backup": "backup_cmd",
    "restore": "restore_cmd",
    "config": "config_cmd",
    "doctor": "doctor_cmd",
    "demo-data": "demo_cmd",
    "version": "version_cmd",
}


class _Lazy(click.Group):
    """Imports a subcommand's module only when it is used or listed."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(".")
        found: click.Command = getattr(
            importlib.import_module(f"gateway.cli.{module}"), attribute or "command"
        )
        return found


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def coverslip() -> None:
    """DICOM-native archive and gateway for digital pathology.

    Example: coverslip serve --data ./data --demo
    """


def _one_line(message: str) -> str:
    return " ".join(message.split()) or "refused"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code (see ``gateway.cli.exit_codes``)."""
    try:
        coverslip.main(
            args=None if arguments is None else list(arguments), prog_name="coverslip", standalone_mode=False
        )
        return exit_codes.SUCCESS
    except Finished as finished:
        return finished.code
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return exit_codes.USAGE
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "coverslip"
        text = f"{_one_line(error.format_message())} (see {path} --help)"
        code = exit_codes.code_of(error) or exit_codes.USAGE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - outermost edge
        known = exit_codes.code_of(error)
        if known is None:
            from gateway import logs

            logs.setup("cli")
            logs.log_fault(error)
            return exit_codes.FAULT
        code, text = known, _message(error)
    print(f"coverslip: {text}", file=sys.stderr)
    return code


def _message(error: BaseException) -> str:
    if isinstance(error, (KeyboardInterrupt, click.exceptions.Abort)):
        return "interrupted"
    if isinstance(error, OSError) and error.strerror:
        return _one_line(f"{error.filename or 'input or output'}: {error.strerror}")
    return _one_line(str(error))
