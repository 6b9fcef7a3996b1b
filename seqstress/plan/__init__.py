"""What is sent: sequences and their expected answers, drawn from a seed before anything leaves. Pure."""
