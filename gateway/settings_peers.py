# SPDX-License-Identifier: Apache-2.0
"""The DICOM peers that ``dimse.peers`` and ``dimse.peers_file`` name."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from archive.peer import Peer
from gateway.renewed import Renewed
from gateway.settings import DimseSettings
from gateway.settings_read import SettingsError, toml_file


def read_peers(dimse: DimseSettings) -> tuple[Peer, ...]:
    """All of them, the file's as it is now. Raises SettingsError: a file that cannot be read,
    what is no peer, an AE title named twice."""
    found: dict[str, Peer] = {}
    for where, table in [*_inline(dimse), *_of_file(dimse)]:
        try:
            peer = Peer.from_mapping(table)
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from None
        if peer.ae_title in found:
            raise SettingsError(
                f"{where}: {peer.ae_title} is named twice (one peer may have several networks)"
            )
        found[peer.ae_title] = peer
    return tuple(found.values())


def configured_peers(dimse: DimseSettings) -> Callable[[], tuple[Peer, ...]]:
    """Gives them as they are now, for any thread; a file that became unreadable is logged,
    and what it said before stays. Raises SettingsError at this call only."""
    return Renewed([peers_path(dimse)] if dimse.peers_file else [], lambda: read_peers(dimse)).current


def peers_path(dimse: DimseSettings) -> Path:
    return Path(dimse.peers_file).absolute()


def _inline(dimse: DimseSettings) -> list[tuple[str, dict[str, object]]]:
    found = []
    for peer in dimse.peers:
        table = {
            name: [*value] if isinstance(value, tuple) else value for name, value in asdict(peer).items()
        }
        found.append(("dimse.peers", table))
    return found


def _of_file(dimse: DimseSettings) -> list[tuple[str, dict[str, object]]]:
    if not dimse.peers_file:
        return []
    content = toml_file(peers_path(dimse))
    where = str(dimse.peers_file)
    tables = content.pop("peers", [])
    if content:
        raise SettingsError(f"{where}: unknown {next(iter(content))} (only [[peers]] tables)")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{where}: peers must be [[peers]] tables")
    return [(where, table) for table in tables]
