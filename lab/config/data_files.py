"""The endings of the data files that the lab reads."""

PLAIN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
PACKED, TABLE = ".gz", ".parquet"
TEXT = (*PLAIN, *(kind + PACKED for kind in PLAIN))
ENDINGS = (*TEXT, TABLE)
