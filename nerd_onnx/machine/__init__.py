"""Facts about this machine and this process: processors, instruction sets, memory."""
