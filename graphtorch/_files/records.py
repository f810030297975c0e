"""The records of a file that `save` wrote, by name."""

from __future__ import annotations

from typing import Any


class PyTorchFileReader:
    """Reads records of a saved file: ``data.pkl`` and ``data/0``, ``data/1``, ...

    Raises:
        RuntimeError: it is no such file.
    """

    def __init__(self, name_or_buffer: Any):
        import zipfile  # not before a file is read

        try:
            self._zip = zipfile.ZipFile(name_or_buffer)
        except zipfile.BadZipFile as error:
            raise RuntimeError(f"PytorchStreamReader failed reading zip archive: {error}") from None
        self._folder = self._zip.namelist()[0].partition("/")[0] + "/"

    def get_record(self, name: str) -> bytes:
        """The bytes of a record. Raises RuntimeError: there is none of that name."""
        if not self.has_record(name):
            raise RuntimeError(f"PytorchStreamReader failed locating file {name}: file not found")
        return self._zip.read(self._folder + name)

    def has_record(self, name: str) -> bool:
        """Whether there is a record of that name."""
        return self._folder + name in self._zip.namelist()

    def get_all_records(self) -> list[str]:
        """The names of all records."""
        return [n.removeprefix(self._folder) for n in self._zip.namelist()]


__all__ = ["PyTorchFileReader"]
