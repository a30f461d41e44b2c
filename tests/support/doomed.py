# SPDX-License-Identifier: Apache-2.0
"""A process that changes an archive and dies on the way: ``FOLDER FILE PART WHEN [VERB]``."""

import sys
from pathlib import Path

from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.codec import DirectCodec
from tests.support.faults import Doomed, kill_myself


def main() -> None:
    folder, file, part, when = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    archive = open_archive(folder, codec=DirectCodec())
    core = archive._core
    prefix = {"blob": "blob/", "record": "record/", "journal": "journal/"}.get(part)
    if prefix is not None:
        method = "put_file" if part == "blob" else "put_bytes"
        core.storage = Doomed(core.storage, method, when, lambda key: key.startswith(prefix))  # type: ignore[assignment]
    elif part == "commit":
        core.index = Doomed(core.index, "write", when, lambda verb: True)  # type: ignore[assignment]
    elif part == "transaction":
        inner = core.index.write

        def write(verb):  # type: ignore[no-untyped-def]
            def doomed():  # type: ignore[no-untyped-def]
                if when == "before":
                    kill_myself()
                verb()
                kill_myself()

            return inner(doomed)

        core.index = Doomed(core.index, "none", when, lambda _: False)  # type: ignore[assignment]
        core.index.write = write  # type: ignore[method-assign]
    verb = sys.argv[5] if len(sys.argv) > 5 else "store"
    if verb == "delete":
        archive.delete(archive.slides(**ASK)[0].study_instance_uid, reason="test", **ASK)
    elif verb == "correct":
        study = archive.slides(**ASK)[0].study_instance_uid
        archive.correct(study, {"PatientName": "Right^Name"}, reason="test", **ASK)
    elif verb in ("recompress", "expand"):
        study = archive.slides(**ASK)[0].study_instance_uid
        list(archive.recompress(study, reason="test", undo=verb == "expand", **ASK))
    else:
        store_bytes(archive, file.read_bytes(), replace=verb == "replace")
    print("acknowledged")


if __name__ == "__main__":
    main()
