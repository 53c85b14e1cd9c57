// Bundles the part of MathJax that the book's pages use into _static/mathjax/tex-chtml.js: 460 kB in one request, where
// the published bundle has 1.2 MB (its menu, and code for browsers of 2010). The sources are those of MathJax 3.2.2,
// unchanged. Run once for a new version, in a folder outside the book:
//
//   npm install mathjax-full@3.2.2 esbuild@0.21 && node <book>/tools/bundle_mathjax.js
//
// Fonts and the TeX extensions that pages load on demand are copied from the same package.

const fs = require("fs");
const path = require("path");

const packages = path.join(process.cwd(), "node_modules");
const esbuild = require(path.join(packages, "esbuild"));
const mathjax = path.join(packages, "mathjax-full");
const target = path.join(__dirname, "..", "_static", "mathjax");
const EXTENSIONS = (
  "action amscd bbox boldsymbol braket cancel cases centernot color colortbl empheq enclose extpfeil gensymb html " +
  "mathtools textcomp textmacros unicode upgreek verb"
).split(" ");

const entry = `
import "./components/src/startup/init.js";
import {Loader} from "./js/components/loader.js";
import "./components/src/core/core.js";
import "./components/src/input/tex/tex.js";
import "./components/src/output/chtml/chtml.js";
import "./components/src/output/chtml/fonts/tex/tex.js";
import "./components/src/a11y/assistive-mml/assistive-mml.js";
Loader.preLoad("loader", "startup", "core", "input/tex", "output/chtml", "output/chtml/fonts/tex.js", "a11y/assistive-mml");
import "./components/src/startup/startup.js";
`;

// The package compiles its TypeScript to ES5; taking the TypeScript itself lets esbuild write today's JavaScript.
const typescriptInstead = {
  name: "typescript-instead",
  setup(build) {
    build.onResolve({ filter: /\.js$/ }, (asked) => {
      const file = path.resolve(asked.resolveDir, asked.path);
      const source = file.replace(path.join(mathjax, "js"), path.join(mathjax, "ts")).replace(/\.js$/, ".ts");
      return file !== source && !file.includes("components" + path.sep + "src") && fs.existsSync(source) ? { path: source } : null;
    });
  },
};

esbuild
  .build({
    stdin: { contents: entry, resolveDir: mathjax },
    bundle: true,
    minify: true,
    target: "es2020",
    define: { global: "window", __dirname: '""' },
    outfile: path.join(target, "tex-chtml.js"),
    banner: { js: "/* MathJax 3.2.2, https://www.mathjax.org, Apache License 2.0; bundled by tools/bundle_mathjax.js */" },
    tsconfigRaw: { compilerOptions: { useDefineForClassFields: false, experimentalDecorators: true, target: "es2020" } },
    plugins: [typescriptInstead],
  })
  .then(() => {
    const copy = (from, to) => fs.cpSync(path.join(mathjax, from), path.join(target, to), { recursive: true });
    copy("LICENSE", "LICENSE");
    copy("es5/output/chtml/fonts/woff-v2", "output/chtml/fonts/woff-v2");
    for (const name of EXTENSIONS) copy(`es5/input/tex/extensions/${name}.js`, `input/tex/extensions/${name}.js`);
    console.log(`${fs.statSync(path.join(target, "tex-chtml.js")).size} bytes`);
  });
