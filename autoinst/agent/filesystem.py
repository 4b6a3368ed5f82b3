"""What kind of file system a folder is on: locks and shared mappings cannot be relied on across a network."""

from __future__ import annotations

import os

NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "coda",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "glusterfs",
        "pvfs2",
        "orangefs",
        "9p",
        "ocfs2",
        "gfs2",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.gcsfuse",
        "fuse.goofys",
        "fuse.davfs",
        "davfs",
    }
)
# Seen by several kernels at once in virtual machines, though not a network's.
SHARED = frozenset({"virtiofs", "vboxsf", "prl_fs", "fuse.grpcfuse", "fuse.vmhgfs-fuse", "fuse"})


def file_system(path: str, mountinfo: str = "/proc/self/mountinfo") -> str | None:
    """Return the type of the file system that holds `path` as proc(5) mountinfo names it; None if unknown."""
    path = os.path.realpath(path)
    best: tuple[int, str] | None = None
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                point = _unescape(fields.split()[4])
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and (best is None or len(point) >= best[0]):  # of mounts on one point the last is on top
                    best = len(point), rest.split()[0]
    except (OSError, IndexError):
        return None
    return None if best is None else best[1]


def _unescape(text: str) -> str:
    for code, char in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(code, char)
    return text
