"""Types that contain themselves, and what is said of values that do not fit."""

from __future__ import annotations

import unittest
from dataclasses import dataclass, field
from typing import Annotated, Any, Dict, List, Optional, Union

from pipeplug._types import Misfit, from_json, hints_of, schema, to_json

Nested = List["Nested"]
Folder = Dict[str, "Folders"]
Folders = List["Folder"]
Value = Union[str, List["Value"], Dict[str, "Value"], None]


@dataclass
class Tree:
    nested: Nested
    folders: Folders
    value: Value
    kids: List[Tree] = field(default_factory=list)
    up: Optional[Tree] = None
    more: Annotated[Optional[List[Value]], "More of them."] = None


def takes(tree: Tree, nested: Nested, value: Value) -> Folder:
    raise NotImplementedError


LEAF: Dict[str, Any] = {"nested": [], "folders": [], "value": None, "kids": [], "up": None, "more": None}
TREE: Dict[str, Any] = {
    "nested": [[], [[], [[]]]],
    "folders": [{"a": [{}, {"b": []}]}],
    "value": [["a", None], {"b": ["c"]}],
    "kids": [LEAF],
    "up": LEAF,
    "more": [["x"]],
}


class Recursive(unittest.TestCase):
    def test_values_stay_the_same(self) -> None:
        tree = from_json(Tree, TREE)
        self.assertIsInstance(tree.kids[0], Tree)
        self.assertEqual(to_json(tree), TREE)
        hints = hints_of(takes)
        self.assertEqual(from_json(hints["nested"], [[[]]]), [[[]]])
        self.assertEqual(from_json(hints["return"], {"a": [{}]}), {"a": [{}]})

    def test_what_does_not_fit_has_its_place(self) -> None:
        for wrong, text in (
            ({"nested": [[], [1]]}, "`nested[1][0]` should be a list, not a number"),
            ({"folders": [{"a": [1]}]}, "`folders[0].a[0]` should be an object, not a number"),
            ({"kids": [{**LEAF, "nested": 1}]}, "`kids[0].nested` should be a list, not a number"),
        ):
            with self.assertRaises(Misfit) as raised:
                from_json(Tree, {**TREE, **wrong})
            self.assertEqual(str(raised.exception), text)
        with self.assertRaises(Misfit) as raised:
            from_json(Tree, {"nested": [], "folders": []})
        self.assertEqual(str(raised.exception), "`value` is missing")

    def test_the_schema_refers_to_itself(self) -> None:
        defs: Dict[str, Any] = {}
        schema(Tree, defs)
        self.assertEqual(defs["Nested"], {"type": "array", "items": {"$ref": "#/$defs/Nested"}})
        self.assertEqual(defs["Folders"], {"type": "array", "items": {"$ref": "#/$defs/Folder"}})


if __name__ == "__main__":
    unittest.main()
