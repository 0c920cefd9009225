"""Compressed inputs by their bytes: several members, padding, damage, other bytes after the end, and bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from nerd_onnx.errors import InputError
from nerd_onnx.storage.decompression import DAMAGED_COMPRESSION, decompressed
from nerd_onnx.storage.input_stream import ByteStream
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.signatures import bytes_to_tell, is_compressed
from tests.support.failures import fails

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}
LINES = [f"line {i} {random.Random(i).random()}".encode() for i in range(20_000)]
CONTENT = b"".join(line + b"\n" for line in LINES)


def lines_of(path: Path) -> list[bytes]:
    with ByteStream(Location(str(path))) as stream:
        return [line for _, line in stream.lines()]


@pytest.fixture(params=PACKERS)
def pack(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    """Return a compressor."""
    return PACKERS[request.param]


def test_any_member_boundaries(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Members may be empty, end inside of a line, or be larger than the pieces that are read."""
    ends = [0, 0, 3, 70_000, 70_001, 300_000, len(CONTENT), len(CONTENT)]
    members = [CONTENT[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    (tmp_path / "named.txt").write_bytes(b"".join(map(pack, members)))
    assert lines_of(tmp_path / "named.txt") == LINES


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_zeros_may_follow(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    for zeros in (4, 1 << 16):
        (tmp_path / "a").write_bytes(pack(b"a\n") + bytes(zeros) + pack(b"b\n") + bytes(zeros))
        assert lines_of(tmp_path / "a") == [b"a", b"b"]


def test_every_cut_is_found(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    whole = pack(b"a\n" * 9) + pack(b"b\n")
    for size in range(11, len(whole)):
        (tmp_path / "a").write_bytes(whole[:size])
        if size == len(pack(b"a\n" * 9)):
            assert lines_of(tmp_path / "a") == [b"a"] * 9
            continue
        with fails(InputError, "damaged-compression", file=str(tmp_path / "a")):
            lines_of(tmp_path / "a")


@pytest.mark.parametrize("junk", [b"junk", b"\0\0\0\1", b'{"text": "a"}\n'])
def test_other_bytes_after_the_end(pack: Callable[[bytes], bytes], junk: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack(CONTENT) + junk)
    with fails(InputError, "damaged-compression", file=str(tmp_path / "a")):
        lines_of(tmp_path / "a")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])  # zstandard.compress adds no checksum
def test_a_changed_bit(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = bytearray(pack(CONTENT))
    content[len(content) // 2] ^= 1
    (tmp_path / "a").write_bytes(content)
    with fails(InputError, "damaged-compression", file=str(tmp_path / "a")):
        lines_of(tmp_path / "a")


@pytest.mark.slow
@pytest.mark.parametrize("pack", [lzma.compress, bz2.compress])
def test_much_from_little_is_read_in_pieces(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack(bytes(64 << 20)))
    with (tmp_path / "a").open("rb") as file:
        reader = decompressed(file.peek(), file)
        assert reader.read(10) == bytes(10)
        assert reader.raw.tell() <= 1 << 20


@pytest.mark.parametrize("text", [b"BZhao met Anna\n", b"BZh9\n", b"BZ", b"BZh", b"BZh11AY&S\n", b"\n"])
def test_a_text_is_not_taken_for_bzip2(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(text)
    with ByteStream(Location(str(tmp_path / "a"))) as stream:
        assert [line for _, line in stream.lines(blank=True)] == text.splitlines()


def test_what_a_stream_is_shows_after_few_bytes(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"")
    known = 0
    while known < bytes_to_tell(packed[:known]):
        known += 1
    assert is_compressed(packed[:known])
    assert known <= 10
    assert bytes_to_tell(b'{"te') == bytes_to_tell(b"Paris\n") == 4


def test_single_bytes_through_a_pipe(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    packed = io.BytesIO(pack(b"Anna\nRome\n"))

    def write() -> None:
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            while byte := packed.read(1):
                pipe.write(byte)

    writing = threading.Thread(target=write)
    writing.start()
    assert lines_of(tmp_path / "pipe") == [b"Anna", b"Rome"]
    writing.join()


def test_a_damaged_stream_says_so_each_time_it_is_read(pack: Callable[[bytes], bytes]) -> None:
    """Python 3.14 raises another error when a decompressor of bzip2 is used again."""
    packed = bytearray(pack(os.urandom(100_000).hex().encode()))
    packed[len(packed) // 2 :] = b"\xaa" * (len(packed) - len(packed) // 2)
    reader = decompressed(bytes(packed[:16]), io.BufferedReader(io.BytesIO(packed)))

    for _ in range(3):
        with pytest.raises(DAMAGED_COMPRESSION):
            reader.read(1 << 20)
