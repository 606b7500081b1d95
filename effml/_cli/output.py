"""Files that appear whole or not at all."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from effml._cli.errors import CommandError


@contextmanager
def staged(folder):
    """Yield a temporary folder whose files move to `folder` when the block succeeds; a failure leaves nothing behind.

    It lies in the nearest folder above `folder` that exists, so that the moves are renames on one file system.
    An existing `folder` keeps its other files.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"--out {str(folder)!r} is a file; name a folder.")
    above = next(parent for parent in folder.parents if parent.exists())
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise CommandError(f"--out {str(folder)!r} cannot be written to.")
    try:
        stage = Path(tempfile.mkdtemp(prefix=".effml-", dir=above))
    except OSError as error:
        raise CommandError(f"--out {str(folder)!r} cannot be written: {error.strerror} ({str(above)!r}).") from None
    try:
        yield stage
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(stage.rglob("*")):
                if path.is_file():
                    place = folder / path.relative_to(stage)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, place)
        except OSError as error:
            raise CommandError(f"--out {str(folder)!r} cannot be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
