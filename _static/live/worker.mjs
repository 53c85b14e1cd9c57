// The proof engine in a worker: Python for browsers, the engine's modules, and one question after the other.

const folder = new URL("engine/", import.meta.url);
let python = null;

function tell(message) {
  self.postMessage(message);
}

// What is large is sent compressed and kept by the browser's cache under an address that names the version.
async function bytes(name, manifest, seen) {
  const address = new URL(`${name}?${manifest.version}`, folder);
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status})`);
  const counted = answer.body.pipeThrough(
    new TransformStream({
      transform(chunk, out) {
        seen.bytes += chunk.byteLength;
        tell({ stage: "loading", share: Math.min(1, seen.bytes / manifest.bytes) });
        out.enqueue(chunk);
      },
    }),
  );
  const stream = name.endsWith(".gz") ? counted.pipeThrough(new DecompressionStream("gzip")) : counted;
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function start() {
  const manifest = await (await fetch(new URL("manifest.json", folder))).json();
  const seen = { bytes: 0 };
  const large = ["pyodide.asm.wasm.gz", "python_stdlib.zip", "modules.zip.gz"];
  const [{ loadPyodide }, wasm, library, modules] = await Promise.all([
    import(new URL("pyodide.mjs", folder)),
    ...large.map((name) => bytes(name, manifest, seen)),
  ]);
  const given = { "pyodide.asm.wasm": [wasm, "application/wasm"], "python_stdlib.zip": [library, "application/zip"] };
  const plain = self.fetch;
  self.fetch = (asked, options) => {
    const [body, type] = given[new URL(asked.url ?? asked, folder).pathname.split("/").pop()] ?? [];
    return body ? Promise.resolve(new Response(body, { headers: { "content-type": type } })) : plain(asked, options);
  };
  tell({ stage: "starting" });
  const found = await loadPyodide({ indexURL: folder.href, lockFileContents: manifest.lock });
  self.fetch = plain;
  found.FS.writeFile("/modules.zip", modules);
  found.runPython(`
import json, sys
sys.path.insert(0, "/modules.zip")
from kexue_lib.derivation import answers
def ask(name, arguments, tell):
    heard = {} if name == "exercise" else {"tell": tell}
    return json.dumps(getattr(answers, name)(*json.loads(arguments), **heard))
`);
  return found.globals.get("ask");
}

self.onmessage = async ({ data: { id, name, given } }) => {
  try {
    python ??= start();
    const ask = await python;
    tell({ id, stage: "deciding" });
    const tested = (points) => tell({ id, stage: "proving", points });
    tell({ id, result: JSON.parse(ask(name, JSON.stringify(given), tested)) });
  } catch (error) {
    python = null;
    tell({ id, failed: String(error.message ?? error).trim().split("\n").pop() });
  }
};
