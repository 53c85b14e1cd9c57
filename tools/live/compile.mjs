// Compiles modules with the Python that browsers run: node compile.mjs PYODIDE LIST TARGET
// LIST is a JSON file of pairs [path of a source or "", name in the archive]; TARGET the archive.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [pyodide, list, target] = process.argv.slice(2).map((name) => path.resolve(name));
const { loadPyodide } = await import(pathToFileURL(path.join(pyodide, "pyodide.mjs")));
const python = await loadPyodide({ indexURL: pyodide });
const sources = JSON.parse(fs.readFileSync(list, "utf8"));
for (const folder of ["/sources", "/target"]) python.FS.mkdirTree(folder);
python.FS.mount(python.FS.filesystems.NODEFS, { root: path.dirname(target) }, "/target");
const listed = sources.map(([file, name], number) => {
  if (file) python.FS.writeFile(`/sources/${number}`, fs.readFileSync(file));
  return [file && `/sources/${number}`, name];
});
python.runPython(fs.readFileSync(path.join(path.dirname(fileURLToPath(import.meta.url)), "pack.py"), "utf8"));
python.globals.set("listed", python.toPy(listed));
python.runPython(`pack([tuple(pair) for pair in listed], "/target/${path.basename(target)}")`);
