"""Block on LoRA against full fine-tuning."""

from docs_blocks.markdown import with_source
from lab.analysis.lora_rank import summary_sentence
from lab.analysis.recorded_results import is_recorded, load_result
from lab.experiments.lora_rank_report import rank_table, trial_table


def lora_rank() -> str:
    """Return the results of every rank, and the learning rates that it tried."""
    if not is_recorded("lora_rank"):
        return "These runs are not recorded yet."
    table = load_result("lora_rank")
    text = f"{summary_sentence(table)}\n\n{rank_table(table)}\n\n{trial_table(table)}\n"
    return with_source(text, table, "lora_rank")


BLOCKS = {"lora-rank": lora_rank}
