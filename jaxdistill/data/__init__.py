"""Text, vocabularies and batches: numpy only."""
