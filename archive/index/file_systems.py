# SPDX-License-Identifier: Apache-2.0
"""Where a SQLite database may not be: its locks and shared memory fail on network shares."""

from pathlib import Path

_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "afs",
    "ceph",
    "9p",
    "gluster",
    "lustre",
    "beegfs",
    "sshfs",
    "s3fs",
    "rclone",
)


def network_file_system(folder: Path) -> str:
    """The type of the network file system that a folder is on (``nfs4``, ``fuse.sshfs``);
    empty for a local or unknown one. A folder that is not there yet: where it would be."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        device = folder.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""  # not Linux, or out of reach: SQLite will say so itself
    wanted = f"{device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00}"
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        kind = rest.partition(" ")[0]
        if fields.split()[2] == wanted and kind.removeprefix("fuse.").startswith(_NETWORK):
            return kind
    return ""
