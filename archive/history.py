# SPDX-License-Identifier: Apache-2.0
"""The journal as a whole: which of its entries hold for an instance."""

from collections.abc import Iterator

from archive.access import Principal
from archive.core import Core
from archive.errors import ArchiveError, Changed
from archive.journal import KEEP, READMIT, RECOMPRESS, Entry, KeptObject, Move, Revision, decode_entry
from archive.record import BlobRef, blob_key
from archive.values import Finding

RECOVERY = Principal("coverslip", "recover")


class Journal:
    """All entries, read once. ``ended``: (record, SOP Instance UID) -> the entry that
    deleted or replaced it; ``readmitted``: what a later one brought back; ``revisions``:
    corrections of each, oldest first; ``kept``: non-patient instances by SOP Instance UID, and
    when. ``broken``: keys of entries that cannot be read, and why. ``mark``: of the core, when
    it was read."""

    def __init__(self, core: Core) -> None:
        self.mark = core.journal_mark()
        self.entries: list[Entry] = []
        self.broken: dict[str, str] = {}
        for key in core.storage.keys("journal/"):
            try:
                with core.storage.open(key) as file:
                    self.entries.append(decode_entry(key, file.pread(0, file.size)))
            except ArchiveError as error:
                self.broken[key] = str(error)
        self.ended: dict[tuple[str, str], Entry] = {}
        self.readmitted: set[tuple[str, str]] = set()
        for entry in self.entries:
            places = {(target.record, target.sop_instance_uid) for target in entry.targets}
            if entry.action == READMIT:
                self.readmitted |= places & self.ended.keys()
                for place in places:
                    self.ended.pop(place, None)
            else:
                self.readmitted -= places
                self.ended.update(dict.fromkeys(places, entry))
        self.revisions: dict[tuple[str, str], list[tuple[Entry, Revision]]] = {}
        for entry in self.entries:
            for revision in entry.revisions:
                spot = (revision.target.record, revision.target.sop_instance_uid)
                self.revisions.setdefault(spot, []).append((entry, revision))
        self.kept: dict[str, tuple[Entry, KeptObject]] = {}
        for entry in self.entries:
            for kept in entry.objects:
                self.kept.pop(kept.sop_instance_uid, None)
                if entry.action == KEEP:
                    self.kept[kept.sop_instance_uid] = (entry, kept)
        # Of each blob that was ever moved the last move: record -> (instance, position) -> which.
        self.moves: dict[str, dict[tuple[str, int], tuple[Entry, Move]]] = {}
        for entry in self.entries:
            for move in entry.moves:
                where = (move.target.sop_instance_uid, move.position)
                self.moves.setdefault(move.target.record, {})[where] = (entry, move)

    def still_holds(self, core: Core) -> None:
        """Call inside ``index.write``. Raises Changed when others have written entries since:
        what these say last is not known here."""
        if core.journal_mark() != self.mark:
            raise Changed

    def packed(self, core: Core, record: str) -> dict[tuple[str, int], BlobRef]:
        """Blobs of a record's instances that are stored recompressed, by SOP Instance UID and
        position: as the last entry says, or, where storage lacks that form, as it is there."""
        found = {}
        for place, (entry, move) in self.moves.get(record, {}).items():
            forms = [move.packed, move.blob]
            wanted = forms if entry.action == RECOMPRESS else forms[::-1]
            there = [ref for ref in wanted if core.storage.stat(blob_key(ref.digest)) == ref.size_bytes]
            if move.packed in there[:1]:
                found[place] = move.packed
        return found

    def findings(self) -> Iterator[Finding]:
        for key, reason in self.broken.items():
            yield Finding("journal", key, reason)
