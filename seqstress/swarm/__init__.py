"""The only package that imports locust: users, lifecycle, live progress. Import locust before anything else."""
