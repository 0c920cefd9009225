"""The memory of this process, as the system counts it."""

from __future__ import annotations

from mmap import mmap

from nerd_onnx.machine.memory import peak_rss_bytes, resident_bytes

MB = 1_000_000


def test_memory_that_is_used_is_counted_and_its_peak_is_remembered() -> None:
    before, peak_before = resident_bytes(), peak_rss_bytes()
    content = mmap(-1, 64 * MB)  # of the system: an allocator may have pages left that are counted already
    content[::4096] = b"x" * len(content[::4096])  # a page counts when it is written to

    assert resident_bytes() > before + 60 * MB
    high = peak_rss_bytes()
    assert high >= max(peak_before, before + 60 * MB)

    content.close()
    assert peak_rss_bytes() > high - 2 * MB  # Linux counts pages per thread, and adds them up from time to time
