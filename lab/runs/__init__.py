"""The run folder on disk: records, commands, queue, trash, summaries. No torch."""
