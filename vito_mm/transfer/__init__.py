"""Fine-tuning runs: tasks, planning, checks before the start, execution and the report."""
