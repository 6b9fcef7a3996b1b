"""The server under test: its control plane, and the embedded Triton with the models it serves."""
