"""Whether a process runs a search: told from outside, without touching its lock.

Taking the lock for a moment, were it a shared one, would make a search that starts just then
believe that another runs. Linux lists all locks of the machine, so that one only has to read. Of
processes on other machines, and in containers that are not seen from here, nothing is known.
"""

from __future__ import annotations

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")


def holder(path: Path) -> int | None:
    """The process of this machine that holds a file's lock; ``None`` where none is known of."""
    try:
        status = os.stat(path)
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    # "1: FLOCK  ADVISORY  WRITE 1234 08:01:56789 0 EOF": device numbers in hex, then the inode.
    # On NFS the same call makes a POSIX lock. Who waits for one has "->" in the second place.
    for line in lines:
        words = line.split()
        if len(words) < 6 or words[1] not in ("FLOCK", "POSIX"):
            continue
        try:
            _, _, inode = words[5].split(":")
            # The device is not compared: a layered file system (of a container, say) tells of
            # another in stat than in this list.
            if int(inode) == status.st_ino and _plausible(int(words[4]), path):
                return int(words[4])
        except ValueError:
            continue
    return None


def _plausible(process: int, path: Path) -> bool:
    """Whether a process has that file open; assumed where it may not be asked."""
    try:
        opened = list(Path(f"/proc/{process}/fd").iterdir())
    except FileNotFoundError:
        return False  # it has ended meanwhile
    except OSError:
        return True
    target = str(path.resolve())
    for link in opened:
        try:
            if os.readlink(link) == target:
                return True
        except OSError:
            continue
    return False
