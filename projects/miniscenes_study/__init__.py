"""The demo and the study: examples of use on MiniScenes, not part of the library."""
