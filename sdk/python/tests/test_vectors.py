"""The codec against the test vectors of the wire, which all languages share."""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from pipeplug._chunks import BrokenStream, Chunk, Encoder, Skipped
from pipeplug._decoder import Decoder

VECTORS = Path(
    os.environ.get(
        "PIPEPLUG_VECTORS",
        str(Path(__file__).parents[3] / "crates" / "pipeplug-wire" / "tests" / "vectors"),
    )
)


def vectors() -> Iterator[Tuple[Optional[str], Dict[str, Any]]]:
    for name in ("standard", "classic", "detect"):
        file = json.loads((VECTORS / f"{name}.json").read_text())
        for vector in file["vectors"]:
            yield file["format"], vector


def shown(event: Union[Chunk, Skipped]) -> Dict[str, Any]:
    if not isinstance(event, Skipped):
        thread_id, direction, command, data = event
        return {
            "chunk": {
                "thread_id": str(thread_id),
                "direction": direction,
                "command": command,
                "buffer": data.hex(),
            }
        }
    found: Dict[str, Any] = {
        "thread_id": str(event.thread_id),
        "direction": str(event.direction),
        "reason": event.reason,
        "command_len": str(event.command_len),
        "buffer_len": str(event.buffer_len),
    }
    if event.limit is not None:
        found["limit"] = str(event.limit)
    if event.is_reserved:
        found["reserved"] = True
    return {"skipped": found}


def decode(
    format: Optional[str], vector: Dict[str, Any], pieces: List[bytes]
) -> Tuple[List[Dict[str, Any]], Optional[Dict[str, Any]], Optional[str]]:
    limits = vector.get("limits", {})
    decoder = Decoder(format)
    decoder.command_limit = limits.get("command", decoder.command_limit)
    decoder.buffer_limit = limits.get("buffer", decoder.buffer_limit)
    error = None
    try:
        for piece in pieces:
            decoder.feed(piece)
        decoder.end()
    except BrokenStream as broken:
        error = {"field": broken.field, "offset": broken.offset, "kind": broken.kind}
    return [shown(event) for event in decoder.events], error, decoder.format


class Vectors(unittest.TestCase):
    def test_each_stream_gives_its_events_however_it_is_cut(self) -> None:
        count = 0
        for kind, vector in vectors():
            data = bytes.fromhex(vector["bytes"])
            cuts = [[data], [data[i : i + 1] for i in range(len(data))]]
            cuts += [[data[:i], data[i:]] for i in range(1, len(data))]
            for pieces in cuts:
                with self.subTest(format=kind, name=vector["name"], pieces=len(pieces)):
                    events, error, told = decode(kind, vector, [p for p in pieces if p])
                    self.assertEqual(events, vector["events"])
                    self.assertEqual(error, vector.get("error"))
                    if kind is None:
                        self.assertEqual(told, vector.get("told"))
            count += 1
        self.assertGreater(count, 100)

    def test_chunks_are_written_as_in_the_vectors(self) -> None:
        for kind, vector in vectors():
            if vector.get("canonical") is False or "error" in vector:
                continue
            if any("skipped" in event for event in vector["events"]):
                continue
            encoder = Encoder(kind or vector.get("told", "standard"))
            written = b""
            for event in vector["events"]:
                chunk = event["chunk"]
                data = bytes.fromhex(chunk["buffer"])
                written += encoder.header(int(chunk["thread_id"]), chunk["direction"], chunk["command"], len(data))
                written += data
            with self.subTest(format=kind, name=vector["name"]):
                self.assertEqual(written.hex(), vector["bytes"].replace(" ", ""))


if __name__ == "__main__":
    unittest.main()
