"""``python -m nerd_onnx.cli`` is ``nerd-tag``."""

from __future__ import annotations

from nerd_onnx.cli.tag import main

main()
