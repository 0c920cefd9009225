"""Input files: workloads and labelled sentences."""
