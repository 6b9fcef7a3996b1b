"""What a person and a machine read after a run: one view of it, as text, HTML and JSON."""
