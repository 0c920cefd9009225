"""The files that are tagged: workloads and labelled sentences."""
