"""From files to examples, from examples to token batches, from batches to packed batches."""
