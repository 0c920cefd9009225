"""Reports made of sections, as Markdown and as one self-contained page; benchmarks and nerd-eval fill them."""
