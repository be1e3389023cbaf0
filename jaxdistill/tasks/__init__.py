"""Tasks to fine-tune a model for: their data, rows and scores."""
