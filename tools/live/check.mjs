// Decides claims with the engine that browsers get: node check.mjs ENGINE CLAIMS SECONDS, a line of JSON for each.
import fs from "node:fs";
import path from "node:path";
import { gunzipSync } from "node:zlib";
import { pathToFileURL } from "node:url";

const [folder, list, seconds] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(path.join(folder, "pyodide.mjs")));
const wasm = path.join(folder, "pyodide.asm.wasm");
if (!fs.existsSync(wasm)) fs.writeFileSync(wasm, gunzipSync(fs.readFileSync(`${wasm}.gz`)));
const { lock } = JSON.parse(fs.readFileSync(path.join(folder, "manifest.json"), "utf8"));
const python = await loadPyodide({ indexURL: `${folder}/`, lockFileContents: lock });
python.FS.writeFile("/modules.zip", gunzipSync(fs.readFileSync(path.join(folder, "modules.zip.gz"))));
const ask = python.runPython(`
import json, sys
sys.path.insert(0, "/modules.zip")
from kexue_lib.derivation import answers
lambda form, uses, seconds: json.dumps(answers.again(form, json.loads(uses), seconds=seconds))
`);
for (const [chapter, label, { form, evidence, uses }] of JSON.parse(fs.readFileSync(list, "utf8"))) {
  let found;
  try {
    found = JSON.parse(ask(form, JSON.stringify(uses), Number(seconds)));
  } catch (error) {
    found = { answer: "failed", reason: String(error.message).trim().split("\n").pop(), seconds: 0 };
  }
  const why = found.method ?? found.reason ?? "";
  console.log(JSON.stringify({ chapter, label, evidence, answer: found.answer, why, seconds: found.seconds }));
}
