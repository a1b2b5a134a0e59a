"""What all reports share: documents, wording, and the conditions of a run."""
