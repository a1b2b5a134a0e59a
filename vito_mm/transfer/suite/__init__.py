"""Many fine-tuning runs through the stock runners: planned, timed, launched, resumed."""
