"""What is compared: one file a peer, each run as a user runs it, a whole process from file to file."""
