"""Where the rows of a stage are worked on: this machine, or many through Ray."""
