/** Checks of JSON values against the part of JSON Schema (2020-12) that descriptions of services use. */

/** JSON Schema. */
export type Schema = boolean | { readonly [key: string]: unknown };

/** Place and reason of a value that does not fit. */
export interface Misfit {
  /** Path of the value, such as `user.name`. Empty for the whole. */
  path: string;
  /** What is said of the value, such as `is missing`. */
  message: string;
}

type Defs = Readonly<Record<string, Schema>>;

/** Returns the first misfit of a value, or undefined if it fits. */
export function misfit(value: unknown, schema: Schema, defs: Defs = {}, path = ""): Misfit | undefined {
  if (schema === true) return undefined;
  if (schema === false) return { path, message: "should not be there" };
  const reference = schema.$ref;
  if (typeof reference === "string") {
    const target = defs[reference.replace(/^#\/\$defs\//, "")];
    const found = target === undefined ? undefined : misfit(value, target, defs, path);
    if (found !== undefined) return found;
  }
  return (
    typeMisfit(value, schema, path) ??
    choiceMisfit(value, schema, defs, path) ??
    boundsMisfit(value, schema, path) ??
    objectMisfit(value, schema, defs, path) ??
    listMisfit(value, schema, defs, path)
  );
}

/** Adds the defaults of arguments that are missing. */
export function withDefaults(value: Record<string, unknown>, schema: Schema | undefined): Record<string, unknown> {
  if (typeof schema !== "object") return value;
  const result = { ...value };
  for (const [name, property] of Object.entries(schemas(schema.properties))) {
    const isGiven = Object.hasOwn(result, name);
    if (!isGiven && typeof property === "object" && "default" in property) result[name] = property.default;
  }
  return result;
}

function typeMisfit(value: unknown, schema: Exclude<Schema, boolean>, path: string): Misfit | undefined {
  const types = schema.type;
  if (types === undefined) return undefined;
  const list = Array.isArray(types) ? (types as string[]) : [types as string];
  if (list.some((type) => isOfType(value, type))) return undefined;
  return { path, message: `is ${excerpt(value)}, and should be ${list.join(" or ")}` };
}

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case "null":
      return value === null;
    case "array":
      return Array.isArray(value);
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    default:
      return typeof value === type;
  }
}

function choiceMisfit(value: unknown, schema: Exclude<Schema, boolean>, defs: Defs, path: string): Misfit | undefined {
  const text = JSON.stringify(value);
  const { const: only, enum: values, allOf, anyOf, oneOf, not } = schema as Record<string, unknown>;
  if ("const" in schema && JSON.stringify(only) !== text) {
    return { path, message: `is ${excerpt(value)}, and should be ${excerpt(only)}` };
  }
  if (Array.isArray(values) && !values.some((item) => JSON.stringify(item) === text)) {
    return { path, message: `is ${excerpt(value)}, and should be one of ${excerpt(values)}` };
  }
  for (const each of (allOf as Schema[] | undefined) ?? []) {
    const found = misfit(value, each, defs, path);
    if (found !== undefined) return found;
  }
  for (const choices of [anyOf, oneOf] as (Schema[] | undefined)[]) {
    if (choices === undefined) continue;
    const found = choices.map((each) => misfit(value, each, defs, path));
    const fits = found.filter((each) => each === undefined).length;
    if (fits === 0)
      return found.length === 1 && found[0]
        ? found[0]
        : { path, message: `is ${excerpt(value)}, which is none of its variants` };
  }
  if (not !== undefined && misfit(value, not as Schema, defs, path) === undefined) {
    return { path, message: `should not be ${excerpt(value)}` };
  }
  return undefined;
}

function boundsMisfit(value: unknown, schema: Exclude<Schema, boolean>, path: string): Misfit | undefined {
  const bound = (key: string): number | undefined =>
    typeof schema[key] === "number" ? (schema[key] as number) : undefined;
  const number = typeof value === "number" ? value : undefined;
  const length = typeof value === "string" ? [...value].length : undefined;
  const outside: [number | undefined, string, (value: number, bound: number) => boolean][] = [
    [number, "minimum", (a, b) => a < b],
    [number, "maximum", (a, b) => a > b],
    [number, "exclusiveMinimum", (a, b) => a <= b],
    [number, "exclusiveMaximum", (a, b) => a >= b],
    [length, "minLength", (a, b) => a < b],
    [length, "maxLength", (a, b) => a > b],
  ];
  for (const [actual, key, isOutside] of outside) {
    const limit = bound(key);
    if (actual !== undefined && limit !== undefined && isOutside(actual, limit)) {
      return { path, message: `is ${excerpt(value)}: the ${key} is ${limit}` };
    }
  }
  return undefined;
}

function objectMisfit(value: unknown, schema: Exclude<Schema, boolean>, defs: Defs, path: string): Misfit | undefined {
  if (!isOfType(value, "object")) return undefined;
  const object = value as Record<string, unknown>;
  const properties = schemas(schema.properties);
  for (const name of (schema.required as string[] | undefined) ?? []) {
    if (!Object.hasOwn(object, name)) return { path: pathOf(path, name), message: "is missing" };
  }
  const patterns = Object.entries(schemas(schema.patternProperties));
  const others = schema.additionalProperties as Schema | undefined;
  for (const [name, item] of Object.entries(object)) {
    const pattern = patterns.find(([pattern]) => new RegExp(pattern, "u").test(name));
    const property = Object.hasOwn(properties, name) ? properties[name] : (pattern?.[1] ?? others);
    const found = property === undefined ? undefined : misfit(item, property, defs, pathOf(path, name));
    if (found !== undefined) return found;
  }
  return undefined;
}

function listMisfit(value: unknown, schema: Exclude<Schema, boolean>, defs: Defs, path: string): Misfit | undefined {
  if (!Array.isArray(value)) return undefined;
  const { minItems, maxItems } = schema;
  if (typeof minItems === "number" && value.length < minItems)
    return { path, message: `has ${value.length} items, and should have ${minItems}` };
  if (typeof maxItems === "number" && value.length > maxItems)
    return { path, message: `has ${value.length} items, and should have ${maxItems}` };
  const first = (schema.prefixItems as Schema[] | undefined) ?? [];
  const items = schema.items as Schema | undefined;
  for (const [index, item] of value.entries()) {
    const each = first[index] ?? items;
    const found = each === undefined ? undefined : misfit(item, each, defs, `${path}[${index}]`);
    if (found !== undefined) return found;
  }
  return undefined;
}

function schemas(value: unknown): Record<string, Schema> {
  return (typeof value === "object" && value !== null ? value : {}) as Record<string, Schema>;
}

function pathOf(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

function excerpt(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}
