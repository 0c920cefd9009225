"""The page "Programs compared" is made from the reports of the benchmarks, the newest of each kind of processor."""

from __future__ import annotations

from typing import Any

from tests.support.scripts import DOCS, docs_script

engines = docs_script("make_engines")


def report(day: str, *flags: str, programs: int = 3, system: str = "Linux x86_64", accuracy: int = 0) -> Any:
    """Return a report with so many programs beside nerd-tag in speed and accuracy."""
    names = ["nerd_tag", "nerd_tag_onnxruntime", *(f"program_{number}" for number in range(9))]
    shape: dict[str, Any] = {
        "speed": {"short": dict.fromkeys(names[: programs + 2])},
        "accuracy": {"peers": dict.fromkeys(names[: accuracy + 2])} if accuracy else None,
    }
    machine = {"system": system, "cpu_flags": list(flags)}
    return engines.Report(day, {"started": day, "machine": machine, "shapes": {"small": shape}})


def test_the_page_is_what_the_reports_say() -> None:
    found = engines.reports()
    assert (DOCS / "engines.md").read_text("utf-8") == engines.page(found), "python docs/make_engines.py"
    assert (DOCS / "engines.svg").read_text("utf-8") == engines.picture(found), "python docs/make_engines.py"


def test_both_kinds_of_processor_are_on_the_page() -> None:
    assert {"with VNNI", "without VNNI"} <= set(engines.of_speed(engines.reports()))


def test_the_newest_report_of_each_kind_of_processor_counts() -> None:
    old, new = report("2026-01-02", "avx2"), report("2026-01-04", "avx2")
    vnni = report("2026-01-03", "avx2", "avx_vnni")
    arm = report("2026-01-01", system="Linux aarch64")
    newest_first = [new, vnni, old, arm]

    assert engines.of_speed(newest_first) == {"with VNNI": vnni, "without VNNI": new, "ARM": arm}


def test_a_report_of_few_programs_does_not_replace_one_of_more() -> None:
    """Kernels of nerd-tag are no other programs."""
    wide, narrow = report("2026-01-01", "avx2"), report("2026-01-02", "avx2", programs=2)
    assert engines.of_speed([narrow, wide]) == {"without VNNI": wide}


def test_f1_is_from_the_newest_report_that_has_it_for_enough_programs() -> None:
    wide = report("2026-01-01", "avx2", programs=0, accuracy=3)
    others = [report("2026-01-03", "avx2", accuracy=1), report("2026-01-02", "avx2")]
    assert engines.of_accuracy([*others, wide]) == wide
    assert engines.of_accuracy(others) is None
