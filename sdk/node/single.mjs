// Makes one file of the library, and one of its types, for projects that keep a copy (`pipeplug new --lang node`):
//
//     node single.mjs FOLDER
//
// The modules follow each other in the order of their imports, with names of their own: none may be in two of them.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL(".", import.meta.url));
const HEAD = `// The library pipeplug for Node in one file, made of sdk/node/src by sdk/node/single.mjs. Do not change it here.
// SPDX-License-Identifier: MIT OR Apache-2.0
`;
const IMPORT = /^import (type )?\{([^}]*)\} from "([^"]+)";\n/gm;
const REEXPORT = /^export (?:type )?\{([^}]*)\} from "[^"]+";\n/gm;
const DECLARATION =
  /^(?:export )?(?:declare )?(?:abstract )?(?:async )?(?:function\*?|class|const|let|var|interface|type|enum) (\w+)/gm;

function bundle(directory, extension) {
  const order = [];
  const outside = new Map();
  const words = (list) =>
    list
      .split(",")
      .map((word) => word.trim())
      .filter((word) => word !== "");
  const visit = (file, importers) => {
    if (order.some((module) => module.file === file) || importers.includes(file)) return;
    const text = readFileSync(join(directory, `${file}${extension}`), "utf8");
    for (const [, type, names, from] of text.matchAll(IMPORT)) {
      if (from.startsWith("./")) {
        visit(from.slice(2, -3), [...importers, file]);
        continue;
      }
      const known = outside.get(from) ?? new Set();
      for (const word of words(names)) known.add(type && extension === ".js" ? "" : word.replace(/^type /, ""));
      outside.set(from, known);
    }
    for (const [from] of text.matchAll(REEXPORT)) visit(/"\.\/(.*)\.js"/.exec(from)[1], [...importers, file]);
    order.push({ file, text });
  };
  visit("index", []);

  const owners = new Map();
  for (const { file, text } of order) {
    for (const [, name] of text.matchAll(DECLARATION)) {
      const owner = owners.get(name) ?? file;
      if (owner !== file) throw new Error(`${name} is in ${owner} and in ${file}: rename one of them`);
      owners.set(name, file);
    }
  }
  const exported = words([...order.at(-1).text.matchAll(REEXPORT)].map(([, names]) => names).join(",")).sort();
  const imports = [...outside]
    .sort()
    .map(([from, names]) => `import { ${[...names].sort().join(", ")} } from "${from}";`);
  const modules = order.slice(0, -1).map(({ text }) =>
    text
      .replace(IMPORT, "")
      .replace(/^export (?!\{)/gm, "")
      .replace(/^export \{\};\n/gm, "")
      .trim(),
  );
  return `${HEAD}\n${imports.join("\n")}\n\n${modules.join("\n\n")}\n\nexport { ${exported.join(", ")} };\n`;
}

const target = process.argv[2];
if (target === undefined) throw new Error("usage: node single.mjs FOLDER");
const built = mkdtempSync(join(tmpdir(), "pipeplug-single-"));
try {
  const tsc = join(ROOT, "node_modules", ".bin", "tsc");
  const options = ["--module", "ES2022", "--moduleResolution", "bundler", "--outDir", built, "--stripInternal"];
  execFileSync(tsc, ["-p", ROOT, ...options], { stdio: "inherit" });
  writeFileSync(join(target, "pipeplug.js"), bundle(built, ".js"));
  writeFileSync(join(target, "pipeplug.d.ts"), bundle(built, ".d.ts"));
} finally {
  rmSync(built, { recursive: true });
}
