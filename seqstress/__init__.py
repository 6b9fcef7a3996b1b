"""seqstress: load and correctness tester for the sequence batcher of NVIDIA Triton Inference Server."""

__version__ = "0.1.0"
