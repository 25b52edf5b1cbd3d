"""Several processes or threads: collectives, sharding (FSDP), CPU threads."""
