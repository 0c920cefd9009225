"""The CPUs that this process may use, and the int8 kernels of its processor."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from nerd_onnx.machine import cpu as module
from nerd_onnx.machine.cpu import available_cpus, cpu_features


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host of 64 processors, whose control group files a test may write."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(module, "_CGROUP_V2", tmp_path / "cpu.max")
    monkeypatch.setattr(module, "_CGROUP_V1", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 64), ("150000 100000", 2), ("50000 100000", 1), ("nonsense", 64)]
)
def test_a_version_2_quota_bounds_the_threads(host: Path, quota: str, cpus: int) -> None:
    (host / "cpu.max").write_text(quota)
    assert available_cpus() == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", 64), ("400000", 4)])
def test_a_version_1_quota_bounds_the_threads(host: Path, quota: str, cpus: int) -> None:
    (host / "cpu.cfs_quota_us").write_text(quota)
    (host / "cpu.cfs_period_us").write_text("100000")
    assert available_cpus() == cpus


def test_without_a_quota_affinity_decides(host: Path) -> None:
    assert not list(host.iterdir())
    assert available_cpus() == 64


def test_features_are_those_the_processor_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fpu avx2 avx512_vnni\n")
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    assert cpu_features() == ("avx2", "avx512_vnni")
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "gone")
    assert cpu_features() == ()


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "avx2 avx512f avx512_vnni", "int8, VNNI"),
        ("x86_64", "avx2 avx_vnni", "int8, VNNI"),
        ("x86_64", "avx2 avx512f", "int8, AVX-512"),
        ("x86_64", "avx2", "int8, AVX2"),
        ("AMD64", "", "int8, AVX2"),
        ("aarch64", "asimddp", "int8, dot product"),
        ("arm64", "", "int8, no dot product"),
    ],
)
def test_the_kernels_are_named_by_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, flags: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert module.integer_kernels() == expected


def test_the_thread_plan_says_what_bounds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cgroup_quota", lambda: 0.5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert module.thread_plan(None) == "1, the container's quota of 0.5 processors"
    assert module.thread_plan(3) == "3, as asked"
    monkeypatch.setattr(module, "_cgroup_quota", lambda: None)
    assert module.thread_plan(None) == "4, the processors this process may use"
