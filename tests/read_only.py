"""Folders that cannot be written, for root either: what a shared installation is to its users."""

import contextlib
import os
import shutil
import stat


def without_privileges():
    """What to put before a command so that read-only files are so for it too, or None."""
    if os.name == "nt":
        return None  # the permissions are those of Unix
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")  # root writes where it likes, unless told otherwise
    return setpriv and [setpriv, "--bounding-set=-dac_override,-dac_read_search"]


@contextlib.contextmanager
def made_read_only(folder):
    """Inside, neither the folder nor anything in it can be written."""
    entries = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    modes = {path: path.stat().st_mode for path in entries}
    for path, mode in modes.items():
        path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
