"""The card of a bundle: what it is, where it comes from, and every measured figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerd_export.conversion.gate import VIEWS, F1Row, Verdict
from nerd_export.conversion.sensitivity import title
from nerd_export.models.names import DEFAULT_MODEL
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.native_network import NATIVE_BITS
from nerd_onnx.machine.cpu import cpu_features, processor_kind

if TYPE_CHECKING:
    from nerd_export.conversion.repair import Repair

_SHOWN_COSTS = 10
_EXAMPLES = (  # in the window on the hub where visitors try a model
    "Angela Merkel met Barack Obama at the Adlon hotel in Berlin, and Reuters wrote about it.",
    "Ada Lovelace wrote about the Analytical Engine of Charles Babbage in London.",
)
_BASE_OF_DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"  # where the weights of the default model began


def bundle_card(
    name: str,
    bundle: Bundle,
    *,
    lineage: Mapping[str, Any],
    verdict: Verdict,
    repair: Repair | None,
    texts: int,
    calibration: Mapping[str, Any] | None = None,
) -> str:
    """
    Return the text of the bundle's ``README.md``, with the metadata that the Hugging Face hub reads.

    :param texts: number of texts on which the bundle was compared
    :param calibration: recorded calibration of the scores; None if nothing was fitted
    """
    return f"""---
{_front_matter(name, bundle, lineage, verdict)}
---

# {name}

Named-entity tagger for [nerd-onnx](https://pypi.org/project/nerd-onnx/): {_levels(bundle.labels)}, quantization
**{bundle.quantization}**, {bundle.model_file.stat().st_size / 1e6:.1f} MB.

```
nerd-tag --model {name} input.parquet output.parquet
```

transformers runs it as well, through optimum: `ORTModelForTokenClassification.from_pretrained("{name}")` in a
`token-classification` pipeline.{_case_note(bundle)}

So does transformers.js, which looks for the graph elsewhere unless it is told:

```js
const options = {{ subfolder: "", model_file_name: "{bundle.model_file.stem}", dtype: "fp32" }};
const tag = await pipeline("token-classification", "{name}", options);
```

## Against its PyTorch original

On {texts:,} texts ({verdict.comparison.tokens:,} tokens, {verdict.comparison.entities:,} entities) through the same
runtime{_note(verdict)}:

{verdict_table(verdict)}
{"".join(_kinds_of_text(verdict))}{"".join(_repaired(repair))}{"".join(_by_label(verdict.rows))}{"".join(scores_section(calibration))}
## Where it comes from

{_source(lineage)}{_base(lineage)}{_averaged(lineage)}.
Exported and measured on {_machine()} with {_versions(lineage)}.
{_computed_by(verdict)}
`nerd.json` holds the recipe, labels, all figures, the versions and a fingerprint of every file;
`nerd-export --check {name}` measures again on your machine.
"""


def _case_note(bundle: Bundle) -> str:
    """Return the note on letter case, which other programs do not pass to the model."""
    if not bundle.letter_case:
        return ""
    return (
        " They do not pass letter case, so that fewer\nentities are found: `nerd-tag` passes the case of each word as "
        "`token_type_ids` (0 no capital, 1 a capital in\nfront, 2 capitals only, 3 other), and other programs leave "
        "them 0."
    )


def verdict_table(verdict: Verdict) -> str:
    """Return the measurements of the gate as a Markdown table: original, fp32 graph and bundle side by side."""
    found, fp32, speed, sizes = verdict.comparison, verdict.fp32, verdict.speed, verdict.sizes
    rows = [
        ("entity agreement (F1)", "", f"{fp32.entity_agreement:.4f}", f"{found.entity_agreement:.4f}", ""),
        ("labels changed", "", f"{fp32.labels_changed:.3%}", f"{found.labels_changed:.3%}", ""),
        (
            "largest logit difference",
            "",
            f"{fp32.max_logit_difference:.3g}",
            f"{found.max_logit_difference:.3g}",
            "",
        ),
        ("texts changed by batch, order or threads", "", "", f"{sum(verdict.neighbours.values())}", ""),
        *(_f1_cells(row) for row in _main_rows(verdict)),
        ("size, MB", *(f"{sizes[form] / 1e6:.1f}" for form in ("original", "fp32", "bundle")), ""),
    ]
    if speed:
        rates = (f"{rate:,.1f}" for rate in (speed.original, speed.fp32, speed.bundle))
        rows.append(("texts per second, this machine", *rates, f"{speed.ratio:.2f} times"))

    lines = ["| | PyTorch | fp32 ONNX | bundle | bundle against PyTorch |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


def _main_rows(verdict: Verdict) -> list[F1Row]:
    """Return the rows of the gated and reported splits; files that only fit scores have a table of their own."""
    return [row for row in verdict.rows if row.gated or not row.fits]


def _kinds_of_text(verdict: Verdict) -> Iterator[str]:
    """Yield the section on the further files that scores were fitted on: raw text, coarse labels."""
    rows = [row for row in verdict.rows if row.fits and not row.gated and row.view == "raw"]
    if not rows:
        return

    yield (
        "\n## By kind of text\n\nRaw text, coarse labels, and only the labels that each file has. Scores and threshold "
        "were fitted on\nthese files and on validation together.\n\n| file | sentences | precision | recall | F1 | F1, "
        "PyTorch |\n|---|---|---|---|---|---|\n"
    )
    for row in rows:
        found = verdict.metrics[row.split]["bundle"]
        figures = " | ".join(f"{found['raw'][kind]:.4f}" for kind in ("precision", "recall", "f1"))
        yield f"| {row.split} | {found['sentences']:,} | {figures} | {row.original:.4f} |\n"


def _f1_cells(row: F1Row) -> tuple[str, str, str, str, str]:
    interval = f"{row.difference.value:+.4f} ({row.difference.low:+.4f} to {row.difference.high:+.4f})"
    name = f"F1, {row.split}, {VIEWS[row.view]}"
    return name, f"{row.original:.4f}", f"{row.fp32:.4f}", f"{row.bundle:.4f}", interval


def _front_matter(name: str, bundle: Bundle, lineage: Mapping[str, Any], verdict: Verdict) -> str:
    """Return the metadata of the card, made by the hub's own library, with the results in its ``model-index``."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="token-classification",
            task_name="Named entity recognition",
            dataset_type=verdict.metrics[row.split]["source"].rsplit(".", 1)[0],
            dataset_name=verdict.metrics[row.split]["source"],
            dataset_split=row.split,
            metric_type=kind,
            metric_name=f"{kind}, {VIEWS[row.view]}",
            metric_value=round(float(verdict.metrics[row.split]["bundle"][row.view][kind]), 5),
        )
        for row in _main_rows(verdict)
        for kind in ("precision", "recall", "f1")
    ]
    data = ModelCardData(
        model_name=name,
        eval_results=results or None,
        library_name="nerd-onnx",
        pipeline_tag="token-classification",
        tags=["named-entity-recognition", "onnx", bundle.quantization.replace(" ", "-")],
        base_model=name_on_hub(lineage.get("base_model")),
        license=lineage.get("licence"),
        widget=[{"text": text} for text in _EXAMPLES],
    )
    return str(data.to_yaml())


def name_on_hub(model: str | None) -> str | None:
    """Return the hub's name of a base model; None for a folder, because the hub refuses a card with a path."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if model is None:
        return None
    if model == DEFAULT_MODEL:
        return _BASE_OF_DEFAULT

    try:
        validate_repo_id(model)
    except HFValidationError:
        return None
    return None if Path(model).exists() else model


def _levels(labels: LabelSet) -> str:
    if labels.has_fine_level:
        return f"{len(labels.fine_types)} fine types in {len(labels.types)} coarse ones"
    return f"{len(labels.types)} types"


def scores_section(calibration: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the section on the meaning of scores."""
    if calibration is None:
        return

    errors = ", ".join(f"{name} {error:.4f}" for name, error in calibration["expected_calibration_error"].items())
    before = ", ".join(f"{name} {error:.4f}" for name, error in calibration["before"].items())
    fitted_on = calibration["fitted_on"]
    yield (
        "\n## Scores\n\nA score is the probability that borders and coarse type of an entity are right: "
        f"{calibration['method']}, fitted on {fitted_on['candidates']:,} candidates in the plain text of "
        f"{', '.join(fitted_on['splits'])}. Of candidates that overlap, the most probable is taken. Expected "
        f"calibration error: {errors}; of the mean probability of the words: {before}. Entities with a score below "
        f"{calibration['f1_threshold']:.3f} are left out (change this with `--min-score`): with this threshold, F1 was "
        "about best on the same text, in five-fold cross-validation.\n"
    )

    right = calibration.get("fine_types_right", {})
    # Weights that are all 1 have no effect, and a section on them would puzzle.
    if any(share["with"] != share["without"] for share in right.values()):
        shares = ", ".join(f"{name} {share['with']:.1%} ({share['without']:.1%})" for name, share in right.items())
        yield (
            "\nThe fine type of an entity is the one with the largest probability times a weight (`fine_weights` in "
            "`nerd.json`), fitted on the same text: some types are more frequent there than in the training data. "
            "Share of entities with the right fine type, where borders and coarse type are right (without weights): "
            f"{shares}.\n"
        )


def _note(verdict: Verdict) -> str:
    return f" ({verdict.comparison.note})" if verdict.comparison.note else ""


def _repaired(repair: Repair | None) -> Iterator[str]:
    """Yield the section on the layers that the sensitivity pass kept in fp32."""
    if repair is None:
        return
    yield f"\n## Kept in fp32\n\nWith everything in 8 bits the gate refused it ({'; '.join(repair.faults)}); its "
    yield f"speed was {repair.speed_before.bundle:,.1f} texts per second. The cost of each layer alone (mean "
    yield "square difference of the logits, in units of their variance), the highest first:\n\n"
    yield "| layer | cost | now |\n|---|---|---|\n"
    # Two layers more than were kept show where the cost falls off.
    for cost in repair.costs[: max(_SHOWN_COSTS, len(repair.kept) + 2)]:
        yield f"| {title(cost.name)} | {cost.error:.2e} | {'fp32' if cost.name in repair.kept else 'int8'} |\n"


def _by_label(rows: Sequence[F1Row]) -> Iterator[str]:
    """Yield the section with F1 of every label, at the finest level, on given words of the first split."""
    views = [row for row in rows if row.split == rows[0].split and row.view.endswith("words")]
    if not views:
        return
    # The finest level is the last view.
    row = views[-1]
    yield f"\n## F1 by type ({row.split}, {VIEWS[row.view]})\n\n| type | PyTorch | bundle |\n|---|---|---|\n"
    for label, (before, after) in row.labels.items():
        yield f"| {label} | {before:.4f} | {after:.4f} |\n"


def _source(lineage: Mapping[str, Any]) -> str:
    """Return what was exported. A bundle stands in for its original, whose checkpoint was not available."""
    bundle = lineage["bundle"]
    if bundle is None:
        return f"Checkpoint `{lineage['checkpoint']}`"

    behind = bundle["lineage"].get("checkpoint")
    return (
        f"Exported again from the bundle `{lineage['checkpoint']}` (graph {bundle['sha256'][:12]}). The\n"
        f"PyTorch original here has the weights of that graph. The bundle was exported from checkpoint `{behind}`"
    )


def _base(lineage: Mapping[str, Any]) -> str:
    training = lineage.get("training") or {}
    data = training.get("data") or {}
    text = f", fine-tuned from `{lineage['base_model']}`" if lineage.get("base_model") else ""
    if data:
        text += f" on {data['train_sentences']:,} sentences (`{data['train'].rsplit('/', 1)[-1]}`)"
    return text


def _averaged(lineage: Mapping[str, Any]) -> str:
    names = ", ".join(f"`{name}`" for name in lineage["averaged_with"])
    return f"; its weights are the mean of its own and those of {names}" if names else ""


def _computed_by(verdict: Verdict) -> str:
    """Return the sentence on what computed the figures, scores and thresholds."""
    if NATIVE_BITS in verdict.kernels:
        return (
            "The native encoder computed the figures, scores and thresholds: its bits are the same on every processor. "
            "Where\nit is not installed, onnxruntime computes, and near ties may fall otherwise."
        )
    return f"onnxruntime computed the figures, scores and thresholds (kernels: {verdict.kernels})."


def _machine() -> str:
    return f"{processor_kind()} ({', '.join(cpu_features()) or 'no known features'})"


def _versions(lineage: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {lineage['versions'][name]}" for name in ("torch", "optimum-onnx", "onnxruntime"))
