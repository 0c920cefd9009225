"""The files of a table in one version, whatever its format is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TableFiles:
    """
    The files of a table in one version.

    :param names: their paths below the folder of the table
    :param version: name and version of the table
    :param hold_partitions: whether the files have the partition columns too, or the names of folders alone
    """

    names: list[str]
    version: str
    hold_partitions: bool

    def output_of(self, name: str) -> str:
        """
        Return the name of the output for one of the files.

        It is the same name, but programs that read folders would take ``city=S%C3%A3o+Paulo`` for a column, in place of
        the column that the files have.
        """
        if not self.hold_partitions:
            return name
        *folders, last = name.split("/")
        return "/".join([*(folder.replace("=", "-") for folder in folders), last])
