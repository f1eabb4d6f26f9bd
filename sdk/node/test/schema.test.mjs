// Values against schemas, and what is said of those that do not fit.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

const { misfit } = createRequire(import.meta.url)("../dist/schema.js");

const defs = {
  Tree: {
    type: "object",
    properties: {
      tags: { type: "array", items: { type: "string" }, maxItems: 2 },
      size: { type: "integer", minimum: 0 },
      mood: { enum: ["good", "bad"] },
      kids: { type: "array", items: { $ref: "#/$defs/Tree" } },
      shape: { oneOf: [{ type: "string" }, { type: "boolean" }] },
      none: false,
      numbers: { type: "object", patternProperties: { "^\\d+$": { type: "boolean" } }, additionalProperties: false },
    },
    required: ["tags"],
  },
};

test("the place of a misfit comes first, and what is wrong with it behind that", () => {
  for (const [value, text] of [
    [{}, "tags is missing"],
    [{ tags: [], kids: [{ tags: [1] }] }, "kids[0].tags[0] is 1, and should be string"],
    [{ tags: ["a", "b", "c"] }, "tags has 3 items, and should have 2"],
    [{ tags: [], size: -1 }, "size is -1: the minimum is 0"],
    [{ tags: [], mood: "x" }, 'mood is "x", and should be one of ["good","bad"]'],
    [{ tags: [], shape: 1 }, "shape is 1, which is none of its variants"],
    [{ tags: [], none: 1 }, "none should not be there"],
    [{ tags: [], numbers: { 7: true } }, undefined],
    [{ tags: [], numbers: { 7: 1 } }, "numbers.7 is 1, and should be boolean"],
    [{ tags: [], numbers: { x: true } }, "numbers.x should not be there"],
    [{ tags: [], kids: [{ tags: [] }] }, undefined],
  ]) {
    const found = misfit(value, { $ref: "#/$defs/Tree" }, defs);
    assert.equal(found && `${found.path} ${found.message}`, text);
  }
});
