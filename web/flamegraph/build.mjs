// Bundles the page: script, style and markup, into the folder that the crate embeds.
//     node build.mjs [FOLDER]
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build, transform } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const folder = resolve(process.argv[2] ?? join(here, "../../crates/strandline-flame/assets"));

const target = ["chrome103", "firefox113", "safari16.4"];
const bundle = await build({
  absWorkingDir: here,
  entryPoints: ["src/main.ts"],
  bundle: true,
  minify: true,
  format: "iife",
  target,
  charset: "utf8",
  write: false,
  legalComments: "none",
});
const script = bundle.outputFiles[0].text;
const source = readFileSync(join(here, "src/style.css"), "utf8");
const style = (await transform(source, { loader: "css", minify: true, target, charset: "utf8" })).code;

// The page runs this script and no other: a name that were taken for markup could do nothing.
const allow = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
const page = readFileSync(join(here, "page.html"), "utf8")
  .replace("%script%", allow(script))
  .replace("%style%", allow(style));

mkdirSync(folder, { recursive: true });
for (const [name, text] of [["flamegraph.js", script], ["flamegraph.css", style], ["page.html", page]]) {
  writeFileSync(join(folder, name), text);
}
