"""Reports of benchmarks and nerd-eval, rendered as Markdown and as one self-contained page."""
