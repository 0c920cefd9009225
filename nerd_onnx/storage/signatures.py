"""What a file is by its first bytes, whatever its name says: compressions that are read, and formats that are not."""

from __future__ import annotations

import re
from dataclasses import dataclass

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# A frame that decoders skip begins with one of 16 bytes and these. pzstd writes one before each frame with data.
_SKIPPABLE_REST = b"\x2a\x4d\x18"
_SKIPPABLE_FIRST = range(0x50, 0x60)
XZ_MAGIC = b"\xfd7zXZ\0"
# The first three bytes may begin a text: "BZhao wrote". After the digit follow the mark of a block, which is the digits
# of pi, or that of the end of an empty stream, the digits of its square root.
_BZIP2_MAGIC = re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)")
_BZIP2_START = b"BZh"
_BZIP2_BYTES = 10
_OTHER_BYTES = 4
ARROW_MAGIC = b"ARROW1\0\0"
# The mark before each message. Streams of before 2019 have none, and are known by their names alone.
ARROW_STREAM_MAGIC = b"\xff\xff\xff\xff"
FEATHER_1_MAGIC = b"FEA1\0"

_DECOMPRESS = "decompress it first; gzip, Zstandard, xz and bzip2 are read as they are"
FEATHER_1_ADVICE = (
    "write it again as version 2, for example with pyarrow: feather.write_feather(feather.read_table(OLD), NEW)"
)
_TWICE = "it is compressed twice; decompress it once"
_AS_ARROW = "give --format arrow, or end its name in .arrow; if it is compressed as a whole, decompress it first"
_UNPACK = "unpack it first"
_CONVERT = "convert it to Parquet or JSON Lines"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_ADVICE = "fetch the file itself with git lfs pull"
_SURE_BYTES = 16  # no text begins with a signature of so many letters
_TO_UTF8 = "convert it to UTF-8, for example with iconv -t UTF-8"


@dataclass(frozen=True)
class Signature:
    """
    Bytes that show a file format.

    :param name: of the format, as messages show it
    :param magic: the bytes
    :param advice: what to do with such a file
    :param at: place of the bytes in the file
    """

    name: str
    magic: bytes
    advice: str
    at: int = 0


# In the order in which they are tried: the mark of UTF-32 begins with that of UTF-16.
_SIGNATURES = (
    Signature("Parquet", b"PAR1", "give --format parquet, or end its name in .parquet"),
    Signature("encrypted Parquet", b"PARE", "decrypt it first"),
    Signature("Arrow", ARROW_MAGIC, _AS_ARROW),
    Signature("Arrow stream", ARROW_STREAM_MAGIC, _AS_ARROW),
    Signature("Feather version 1", FEATHER_1_MAGIC, FEATHER_1_ADVICE),
    Signature("ORC", b"ORC", _CONVERT),
    Signature("Avro", b"Obj\x01", _CONVERT),
    Signature("SQLite", b"SQLite format 3\0", _CONVERT),
    Signature("DuckDB", b"DUCK", _CONVERT, at=8),
    Signature("HDF5", b"\x89HDF\r\n", _CONVERT),
    Signature("PDF", b"%PDF-", "extract its text into Parquet or JSON Lines"),
    Signature("gzip", GZIP_MAGIC, _TWICE),
    Signature("Zstandard", ZSTD_MAGIC, _TWICE),
    Signature("bzip2", b"1AY&SY", _TWICE, at=4),
    Signature("xz", XZ_MAGIC, _TWICE),
    Signature("LZ4", b"\x04\x22\x4d\x18", _DECOMPRESS),
    Signature("Snappy", b"\xff\x06\0\0sNaPpY", _DECOMPRESS),
    Signature("zip", b"PK\x03\x04", _UNPACK),
    Signature("7z", b"7z\xbc\xaf\x27\x1c", _UNPACK),
    Signature("tar", b"ustar", _UNPACK, at=257),
    Signature("a pointer of Git LFS", LFS_POINTER, LFS_ADVICE),
    Signature("UTF-32", b"\xff\xfe\0\0", _TO_UTF8),
    Signature("UTF-32", b"\0\0\xfe\xff", _TO_UTF8),
    Signature("UTF-16", b"\xff\xfe", _TO_UTF8),
    Signature("UTF-16", b"\xfe\xff", _TO_UTF8),
    # JSON without a mark, in either order of bytes.
    Signature("UTF-16", b"{\0", _TO_UTF8),
    Signature("UTF-16", b"\0{", _TO_UTF8),
)
SIGNATURE_BYTES = max(signature.at + len(signature.magic) for signature in _SIGNATURES)


def is_gzip(head: bytes) -> bool:
    """Whether first bytes are those of gzip."""
    return head.startswith(GZIP_MAGIC)


def is_zstd(head: bytes) -> bool:
    """Whether the first four bytes or more are those of Zstandard, or of a frame that its decoders skip."""
    return head.startswith(ZSTD_MAGIC) or (head[1:4] == _SKIPPABLE_REST and head[0] in _SKIPPABLE_FIRST)


def is_xz(head: bytes) -> bool:
    """Whether the first four bytes or more are those of xz."""
    return head.startswith(XZ_MAGIC[:_OTHER_BYTES])


def is_bzip2(head: bytes) -> bool:
    """Whether the first ten bytes or more are those of bzip2."""
    return _BZIP2_MAGIC.match(head) is not None


def is_compressed(head: bytes) -> bool:
    """Whether first bytes are those of a compression that is read; see :func:`bytes_to_tell`."""
    return is_gzip(head) or is_zstd(head) or is_xz(head) or is_bzip2(head)


def is_arrow(head: bytes) -> bool:
    """Whether first bytes are those of Arrow IPC, as a file or a stream, or of its forerunner, Feather version 1."""
    return head.startswith((ARROW_MAGIC, ARROW_STREAM_MAGIC, FEATHER_1_MAGIC))


def is_feather_1(head: bytes) -> bool:
    """Whether first bytes are those of Feather version 1."""
    return head.startswith(FEATHER_1_MAGIC)


def bytes_to_tell(head: bytes) -> int:
    """Return how many first bytes must be known to decide whether they are compressed, from those known so far."""
    # As few as possible: a program that writes one short line to a pipe may wait for its answer.
    return _BZIP2_BYTES if head[:_OTHER_BYTES].startswith(_BZIP2_START) else _OTHER_BYTES


def foreign_text(head: bytes) -> Signature | None:
    """
    Return the format that first bytes show, if they are no text.

    Any text may begin like a file of ORC: with the name "ORCID". Only bytes that are no letters are sure, many letters,
    and bzip2.
    """
    found = foreign_format(head)
    if found is None or is_bzip2(head):
        return found

    is_text = found.magic.isascii() and found.magic.decode("ascii").isprintable() and len(found.magic) < _SURE_BYTES
    return None if is_text else found


def foreign_format(head: bytes) -> Signature | None:
    """Return the format that first bytes show; None for JSON Lines, other text, and formats that are not known."""
    return next((found for found in _SIGNATURES if head.startswith(found.magic, found.at)), None)
