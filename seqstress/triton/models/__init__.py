"""Python files that run inside Triton's model stubs, never inside seqstress: copied, not imported."""
