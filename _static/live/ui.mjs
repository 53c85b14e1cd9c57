// What a reader sees of the live proofs: a claim decided again, a statement changed, an answer marked, a page to play on.

const SAYS = {
  proved: "proved",
  checked: "checked, not proved",
  false: "false",
  undefined: "undefined somewhere",
  undecided: "not decided",
  "nothing to check": "nothing to check",
  unreadable: "not readable",
};

function element(name, classes = "", text = "") {
  const made = document.createElement(name);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  return made;
}

async function typeset(box) {
  if (window.MathJax?.typesetPromise) await window.MathJax.typesetPromise([box]);
}

// --- the engine -----------------------------------------------------------------------------------------------------

const engine = {
  worker: null,
  waiting: new Map(),
  count: 0,

  // The answer, and the question's number, by which it can be stopped.
  ask(name, given, progress) {
    const id = ++this.count;
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject, progress, name, given }));
    this.send(id);
    return { id, answer };
  },

  send(id) {
    if (!this.worker) {
      this.worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
      this.worker.onmessage = ({ data }) => this.hear(data);
      this.worker.onerror = () => this.end("The proof engine could not be started; is the page offline?");
    }
    const { name, given } = this.waiting.get(id);
    this.worker.postMessage({ id, name, given });
  },

  hear({ id, stage, share, points, result, failed }) {
    if (stage) {
      for (const [key, { progress }] of this.waiting) if (id === undefined || key === id) progress(stage, share, points);
      return;
    }
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (failed) reject(new Error(failed));
    else resolve(result);
  },

  // A worker can only be ended whole; the other questions are put to a new one.
  stop(id) {
    this.waiting.get(id)?.reject(new Error("Stopped."));
    this.waiting.delete(id);
    this.worker?.terminate();
    this.worker = null;
    for (const other of this.waiting.keys()) this.send(other);
  },

  end(reason) {
    this.worker?.terminate();
    this.worker = null;
    const stopped = [...this.waiting.values()];
    this.waiting.clear();
    for (const { reject } of stopped) reject(new Error(reason));
  },
};

const files = new Map();

function known(chapter) {
  const address = new URL(`facts/${chapter}.json`, import.meta.url);
  if (!files.has(chapter)) {
    const asked = fetch(address).then((answer) => answer.json());
    asked.catch(() => files.delete(chapter));
    files.set(chapter, asked);
  }
  return files.get(chapter);
}

async function claimOf(card) {
  const [chapter, label] = card.id.replace(/^claim-/, "").split(/-(?=[^-]*$)/);
  return (await known(chapter)).claims[label];
}

// --- asking and answering -------------------------------------------------------------------------------------------

// Runs one question beside a line that says how far it is and a button that stops it. Null where the box is busy.
async function decide(box, name, given) {
  if (box.dataset.busy) return null;
  box.dataset.busy = "yes";
  const before = document.activeElement;
  const line = element("span", "live-progress");
  line.setAttribute("aria-hidden", "true"); // what is spoken does not tick
  const spoken = element("span", "live-spoken");
  const stop = element("button", "live-stop", "Stop");
  stop.type = "button";
  const start = performance.now();
  let words = "Loading the proof engine";
  const show = () => {
    line.textContent = `${words}, ${Math.round((performance.now() - start) / 1000)} s`;
    const now = words.replace(/, \d+ %/, "");
    if (spoken.textContent !== now) spoken.textContent = now;
  };
  const progress = (stage, share, points) => {
    if (stage === "loading") words = `Loading the proof engine, ${Math.round(100 * share)} %`;
    else if (stage === "proving") words = points ? `True at ${points} points; looking for a proof` : "Looking for a proof";
    else words = stage === "starting" ? "Starting the proof engine" : "Deciding";
    show();
  };
  box.replaceChildren(spoken, line, stop);
  show();
  const clock = setInterval(show, 1000);
  try {
    const { id, answer } = engine.ask(name, given, progress);
    stop.addEventListener("click", () => engine.stop(id));
    return await answer;
  } catch (error) {
    return { answer: "stopped", reason: error.message };
  } finally {
    clearInterval(clock);
    delete box.dataset.busy;
    if (document.activeElement === stop) before?.focus();
  }
}

// What needs a file of the site, in a box that says so where the file cannot be loaded.
async function loaded(box, load) {
  try {
    return await load();
  } catch {
    box.replaceChildren(element("span", "", "This needs a file of the site that could not be loaded; is the page offline?"));
    return null;
  }
}

function badge(answer) {
  const tone = { proved: "proved", checked: "checked" }[answer] ?? "refused";
  return element("span", `badge-evidence badge-${tone}`, SAYS[answer] ?? answer);
}

// The answer in words and formulas.
async function report(box, found, told = "") {
  if (found === null) return;
  const { answer, method, reason, seconds, values, formula } = found;
  if (answer === "stopped") {
    box.replaceChildren(element("span", "", reason));
    return;
  }
  const head = element("p", "live-verdict");
  const words = told || method || (values ? "" : reason);
  const took = seconds < 0.1 ? "less than 0.1" : seconds?.toFixed(1);
  const time = seconds === undefined ? "" : ` Decided here in ${took} s.`;
  head.append(badge(answer), words ? ` ${words}${/[.?!]$/.test(words) ? "" : "."}` : "", time);
  box.replaceChildren(head);
  if (values) {
    const put = values.map(([name, value]) => String.raw`${name} = ${value}`).join(String.raw`,\quad `);
    const at = element("div", "live-math tex2jax_process");
    at.append("At ", String.raw`\(${put}\)`, formula ? " it reads" : ":");
    if (values.length) box.append(at);
    if (formula && values.length) box.append(element("div", "live-math tex2jax_process", String.raw`\[${formula}\]`));
    const why = reason?.match(/^(.+) against (.+)$/);
    const [left, right] = formula ? ["left side", "right side"] : ["your answer", "the solution"];
    if (why) box.append(element("p", "live-verdict", `${left} ${why[1]}, ${right} ${why[2]}`));
    else if (answer === "undefined") box.append(element("p", "live-verdict", `where ${reason} is undefined`));
  } else if (formula && box.dataset.formula) {
    box.append(element("div", "live-math tex2jax_process", String.raw`\[${formula}\]`));
  }
  await typeset(box);
}

function answerBox() {
  const box = element("div", "live-answer");
  box.setAttribute("role", "status");
  return box;
}

function style() {
  if (document.querySelector("link[data-live]")) return;
  const link = element("link");
  link.rel = "stylesheet";
  link.href = new URL("live.css", import.meta.url);
  link.dataset.live = "yes";
  document.head.append(link);
  // What marks the values in a formula is an extension that MathJax loads at its first use: while there is a network.
  const first = element("div", "tex2jax_process", String.raw`\(\class{put-in}{0}\)`);
  first.hidden = true;
  document.body.append(first);
  typeset(first).then(() => first.remove());
}

// --- on a card ------------------------------------------------------------------------------------------------------

function boxOf(card) {
  let box = card.querySelector(".live-again");
  if (!box) card.append((box = Object.assign(answerBox(), { className: "live-answer live-again" })));
  return box;
}

export async function again(card) {
  style();
  const box = boxOf(card);
  const claim = await loaded(box, () => claimOf(card));
  const found = claim && (await decide(box, "again", [claim.form, claim.uses]));
  if (!found) return;
  const same = found.answer === claim.evidence;
  const words = same ? `again, as the book says: ${found.method}` : undefined;
  await report(box, found, words ?? (found.method && `the book says ${claim.evidence}; here ${found.method}`));
}

export async function change(card) {
  style();
  const claim = await loaded(boxOf(card), () => claimOf(card));
  const old = card.querySelector(".live-editor");
  if (old) {
    old.remove();
    return;
  }
  if (!claim) return;
  const name = card.querySelector(".claim-label").textContent;
  card.append(editor(claim.typed, name, (typed) => [typed.symbols, typed.given, typed.statement, claim.form, claim.uses]));
  card.querySelector(".live-editor textarea[name=statement]").focus();
}

// --- the editor -----------------------------------------------------------------------------------------------------

const FIELDS = [
  ["symbols", "Symbols", "x, y: real"],
  ["given", "Conditions, one a line", "x > 0"],
  ["statement", "Statement", "x^2 >= 0"],
];

function editor(typed, name, given, share = false) {
  const form = element("form", "live-editor");
  form.setAttribute("aria-label", `Change ${name}`);
  const inputs = {};
  for (const [field, words, hint] of FIELDS) {
    const label = element("label", "", words);
    const input = element("textarea");
    Object.assign(input, { name: field, value: typed[field], placeholder: hint, spellcheck: false });
    input.rows = Math.max(field === "statement" ? 2 : 1, typed[field].split("\n").length);
    input.setAttribute("autocapitalize", "off");
    label.append(input);
    form.append(label);
    inputs[field] = input;
    const fit = () => {
      input.style.height = "auto";
      input.style.height = `${input.scrollHeight + 2}px`;
    };
    input.addEventListener("input", fit);
    requestAnimationFrame(fit);
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }
  const box = answerBox();
  box.dataset.formula = "shown";
  const bar = element("div", "live-bar");
  const go = element("button", "live-go", "Decide");
  go.title = "Ctrl+Enter";
  const back = element("button", "", "As it was");
  back.type = "button";
  back.addEventListener("click", () => {
    for (const [field] of FIELDS) inputs[field].value = typed[field];
    box.replaceChildren();
  });
  bar.append(go, back);
  if (share) bar.append(linkButton(inputs));
  form.append(bar, box);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    for (const input of Object.values(inputs)) input.removeAttribute("aria-invalid");
    const now = Object.fromEntries(FIELDS.map(([field]) => [field, inputs[field].value]));
    const found = await decide(box, "changed", given(now));
    await report(box, found, found?.answer === "unreadable" ? place(found, inputs) : "");
  });
  return form;
}

// Puts the cursor where reading stopped.
function place({ field, line, column, reason }, inputs) {
  const input = inputs[field === "conditions" ? "given" : field];
  if (!input) return `${reason}.`;
  input.setAttribute("aria-invalid", "true");
  const lines = input.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0) + column - 1;
  input.focus();
  input.setSelectionRange(Math.min(start, input.value.length), Math.min(start + 1, input.value.length));
  return `${field}, line ${line}, column ${column}: ${reason}.`;
}

function linkButton(inputs) {
  const link = element("button", "", "Copy a link to this");
  link.type = "button";
  link.addEventListener("click", async () => {
    const now = Object.fromEntries(FIELDS.map(([field]) => [field, inputs[field].value]));
    location.hash = new URLSearchParams(now).toString();
    try {
      await navigator.clipboard.writeText(location.href);
      link.textContent = "Copied";
    } catch {
      link.textContent = "The address bar has it";
    }
    setTimeout(() => (link.textContent = "Copy a link to this"), 2500);
  });
  return link;
}

// --- an exercise ----------------------------------------------------------------------------------------------------

export async function answer(box) {
  style();
  const [chapter, number] = box.dataset.exercise.split(":");
  const task = (await loaded(box, () => known(chapter)))?.exercises[number];
  if (!task) return;
  const form = element("form", "live-editor");
  const label = element("label", "", task.prompt);
  const input = element("input");
  Object.assign(input, { type: "text", name: "answer", spellcheck: false, autocomplete: "off" });
  label.append(input);
  const told = [task.symbols, task.given].filter(Boolean).map((text) => text.replaceAll("\n", "; "));
  told.push(task.kind === "statement" ? "written like x < y^2/4" : "written like x^2, sqrt(x), exp(x), log(x), pi/4");
  const hint = element("p", "live-verdict", `${told.join("; ")}.`);
  const go = element("button", "live-go", "Mark it");
  const result = answerBox();
  form.append(label, hint, go, result);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const found = await decide(result, "exercise", [task.kind, input.value, task.symbols, task.given, task.wanted]);
    if (!found) return;
    const right = { proved: "Right", checked: "Right at every point tried" }[found.answer];
    await report(result, found, right ? `${right}: ${found.method}` : found.answer === "false" ? "Not equal to the solution" : "");
  });
  box.replaceChildren(form);
  input.focus();
}

// --- the page to play on --------------------------------------------------------------------------------------------

export async function play(page) {
  style();
  const examples = await (await fetch(new URL("examples.json", import.meta.url))).json();
  const asked = new URLSearchParams(location.hash.slice(1));
  const empty = Object.fromEntries(FIELDS.map(([field]) => [field, asked.get(field) ?? ""]));
  const begin = empty.statement ? empty : examples[0];
  const whole = (typed) => [typed.symbols, typed.given, typed.statement];
  const place = element("div");
  const show = (typed) => {
    if (engine.waiting.size) engine.end("Stopped.");
    place.replaceChildren(editor(typed, "your statement", whole, true));
  };
  const list = element("div", "live-examples");
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", "Examples");
  for (const example of examples) {
    const button = element("button", "", example.title);
    button.type = "button";
    button.addEventListener("click", () => show(example));
    list.append(button);
  }
  page.replaceChildren(list, place);
  show(begin);
}
