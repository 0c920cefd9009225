"""pandas: the entities of a text column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from nerd_onnx.integrations.columns import entities_of
from nerd_onnx.tagger import Tagger

if TYPE_CHECKING:
    import pandas as pd


def entities(texts: pd.Series, tagger: Tagger) -> pd.Series:
    """
    Return the entities of a column: one list of dicts per row, None for missing values, with the same index.

    Its name is that of the new column: of a tagger with several text columns, the one that belongs to this column.

    :raises InputError: when the column does not contain strings
    """
    import pandas as pd

    # pandas writes missing values as NaN; from_pandas makes them null.
    found = entities_of(tagger, pa.array(texts, from_pandas=True))
    return pd.Series(found.to_pylist(), index=texts.index, name=tagger.options.new_column_of(texts.name), dtype=object)
