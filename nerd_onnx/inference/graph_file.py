"""
What an ONNX file says about itself: its operators, and its files with weights.

Only the few fields that are needed are read. All others are skipped with their length, the weights too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.model_files import open_regular_file, unreadable
from nerd_onnx.inference.protobuf import byte_fields

# Numbers of fields, by the message that has them; see onnx.proto.
_GRAPHS_OF_MODEL = {7: "graph", 25: "function"}
_FIELDS = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {4: "operator", 5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
_KEY, _VALUE = 1, 2
_MAX_DEPTH = 64


@dataclass
class GraphFile:
    """
    Facts about a graph.

    :param operators: names of its operators, those of inner graphs too
    :param locations: files with weights that it names, relative to its folder
    """

    operators: set[str] = field(default_factory=set)
    locations: set[str] = field(default_factory=set)

    @property
    def mixes_texts(self) -> bool:
        """Whether it has onnxruntime's dynamic quantization, which uses one scale for a whole batch."""
        return any(name.startswith("DynamicQuantize") for name in self.operators)


def read_graph(model_file: Path) -> GraphFile:
    """
    Read the facts about a graph. Of a damaged file, only those before the damage: onnxruntime reports the damage.

    :raises ModelError: when the file cannot be read or is not a regular file; or when the graph has a loop, which may
        never end
    """
    try:
        with open_regular_file(model_file) as file:
            # Not mapped: the process dies of SIGBUS if another program cuts a mapped file.
            content = memoryview(file.read())
    except OSError as err:
        raise unreadable(model_file, err) from err

    found = GraphFile()
    try:
        for number, value in byte_fields(content):
            if number in _GRAPHS_OF_MODEL:
                _read(found, _GRAPHS_OF_MODEL[number], value, 0)
    except ValueError:
        pass

    if "Loop" in found.operators:
        raise ModelError(
            f"{model_file}: has the operator Loop, which may never end; expected a graph without it, as token "
            "classifiers have",
            reason="has-loop",
            file=str(model_file),
        )

    return found


def weights_of(model_file: Path, graph: GraphFile) -> dict[str, bytes]:
    """
    Return the content of the files with weights that are in the folder of a graph, by the name in the graph.

    Files elsewhere are left out: onnxruntime refuses them and says so.

    :raises ModelError: when a file cannot be read or is not a regular file
    """
    folder, weights = model_file.parent, {}
    for name in sorted(graph.locations):
        path = folder / name
        if "\0" in name or not path.exists() or not path.resolve().is_relative_to(folder.resolve()):
            continue
        try:
            with open_regular_file(path) as file:
                weights[name] = file.read()
        except OSError as err:
            raise unreadable(path, err) from err
    return weights


def _read(found: GraphFile, kind: str, message: memoryview, depth: int) -> None:
    """
    Add the facts of a message to those of its file.

    :param kind: the message, a key of :data:`_FIELDS`
    :param depth: number of messages around it
    :raises ValueError: when the message is damaged, or nested too deeply for onnxruntime too
    """
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")

    wanted = _FIELDS[kind]
    for number, value in byte_fields(message):
        inner = wanted.get(number)
        if inner == "operator":
            found.operators.add(bytes(value).decode(errors="replace"))
        elif inner == "external":
            entry = dict(byte_fields(value))
            if bytes(entry.get(_KEY, b"")) == b"location":
                # As the bytes of a file name, which need not be UTF-8.
                found.locations.add(bytes(entry.get(_VALUE, b"")).decode(errors="surrogateescape"))
        elif inner is not None:
            _read(found, inner, value, depth + 1)
