"""Parquet: read row group by row group, and write it."""
