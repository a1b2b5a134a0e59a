"""Pictures of a network: where its attention lies, and which frames it takes for alike."""
