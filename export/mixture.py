"""
Prepare other people's labelled sets for the mixture that the default model is trained on.

    python export/mixture.py FOLDER OUTPUT --demonyms demonyms.txt

Each set follows guidelines of its own. Where they differ from those of the default model (docs/what-it-finds.md), a
tag becomes null, which means unknown: a model that learns two answers to one question gives neither. Only training
rows change. Validation rows stay as their authors labelled them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_export.scoring.f1 import spans_of

COMMON_WORDS = 2  # an organization with this many common words is a description, not a name
LISTS = Path(__file__).with_name("guidelines.json")

Conflict = tuple[str, int]  # the rule and the index of the word


@dataclass(frozen=True)
class Guidelines:
    """
    The word lists of the rules, in lower case except for demonyms.

    :param demonyms: words of nationality: French, Berliners
    :param buildings: last words of the names of buildings
    :param sites: sites and apps, which are products here and organizations elsewhere
    :param titles: words before a name of a person, which are not part of it
    :param deities: gods, which are ``other`` here and persons elsewhere
    """

    demonyms: frozenset[str]
    buildings: frozenset[str]
    sites: frozenset[str]
    titles: frozenset[str]
    deities: frozenset[str]

    @classmethod
    def read(cls, demonyms: Path) -> Guidelines:
        """Read the lists beside this script, and the demonyms: one per line."""
        lists = {name: frozenset(words.split()) for name, words in json.loads(LISTS.read_text("utf-8")).items()}
        return cls(demonyms=frozenset(demonyms.read_text("utf-8").split()), **lists)

    def conflicts(self, words: Sequence[str], tags: Sequence[str | None], known: frozenset[str]) -> Iterator[Conflict]:
        """
        Yield each tag that follows another guideline than the model's.

        :param tags: BIO tags; None where a tag is unknown
        :param known: the types that the sentence is labelled for
        """
        for begin, end, label in spans_of(["O" if tag is None else tag for tag in tags], "IOB2"):
            yield from self._of_entity(words[begin:end], begin, label, known)

        for i, (word, tag) in enumerate(zip(words, tags, strict=True)):
            if tag == "O":
                yield from self._of_other_word(word, i, known)

    def _of_entity(self, words: Sequence[str], begin: int, label: str, known: frozenset[str]) -> Iterator[Conflict]:
        """Yield the conflicts of one entity. :param begin: index of its first word"""
        lower = [word.lower() for word in words]
        rule = self._rule_of(words, lower, label, known)
        if rule is not None:
            yield from ((rule, begin + i) for i in range(len(words)))
        elif label == "person":
            # Only the title becomes unknown; the name behind it stays.
            titles = next((i for i, word in enumerate(lower) if word not in self.titles), len(words))
            yield from (("title", begin + i) for i in range(min(titles, len(words) - 1)))

    def _rule_of(self, words: Sequence[str], lower: Sequence[str], label: str, known: frozenset[str]) -> str | None:
        """Return the first rule that all words of an entity break; None if there is none."""
        if lower[0].startswith("@"):
            return "handle"
        # A set that labels buildings has them apart from locations, as the model has.
        if label == "location" and "building" not in known and lower[-1] in self.buildings:
            return "facility"
        if label == "organization" and sum(map(_is_common, words)) >= COMMON_WORDS:
            return "description"

        # As the only word: the Amazon River is a location, and Jesus Navas a person.
        is_single = len(words) == 1
        if is_single and label in ("organization", "location") and lower[0] in self.sites:
            return "site"
        return "deity" if is_single and label == "person" and lower[0] in self.deities else None

    def _of_other_word(self, word: str, place: int, known: frozenset[str]) -> Iterator[Conflict]:
        """Yield the conflict of a word without an entity."""
        if "location" in known and word in self.demonyms:
            yield "demonym", place
        elif known & {"organization", "product"} and word[:1].isupper() and word.lower() in self.sites:
            yield "site", place


def _is_common(word: str) -> bool:
    """Whether a word is in lower case and not one of the short ones that names have inside (of, the, and)."""
    return word.islower() and len(word) > 3  # noqa: PLR2004


def follow(row: dict[str, Any], guidelines: Guidelines, counts: Counter[str]) -> dict[str, Any]:
    """Return a row in which tags that follow another guideline are null; count them by rule."""
    if row["split"] != "train":
        return row

    tags = list(row["ner_tags"])
    for rule, place in guidelines.conflicts(row["tokens"], row["ner_tags"], frozenset(row["known_types"])):
        tags[place] = None
        counts[rule] += 1
    return {**row, "ner_tags": tags}


def main() -> None:
    """Read every Parquet file of a folder and write it with the same name to another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with one Parquet file per set")
    parser.add_argument("output", type=Path, help="folder to write them to")
    parser.add_argument("--demonyms", type=Path, required=True, help="text file with one demonym per line")
    given = parser.parse_args()

    guidelines = Guidelines.read(given.demonyms)
    given.output.mkdir(parents=True, exist_ok=True)
    for path in sorted(given.folder.glob("*.parquet")):
        table = pq.read_table(path)
        counts: Counter[str] = Counter()
        rows = [follow(row, guidelines, counts) for row in table.to_pylist()]
        # With the table's own schema: a type that is guessed from values is another one where all of them are null.
        pq.write_table(pa.Table.from_pylist(rows, table.schema), given.output / path.name)

        changed = ", ".join(f"{rule} {count}" for rule, count in sorted(counts.items())) or "nothing"
        sys.stdout.write(f"{path.name}: {changed}\n")


if __name__ == "__main__":
    main()
