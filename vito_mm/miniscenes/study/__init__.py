"""The study: variants of the method, pre-trained and compared on MiniScenes."""
