// The results page: asks SiteSearch for the query of the address (?q=…) and lists the pages found.
// All text goes into the page as text nodes: what a query or a title holds is never markup.
(function () {
  "use strict";

  const MOST = 20; // pages shown, of which
  const MOST_OTHERS = 5; // are glossary, reference and the rest: they name everything, and come after the chapters
  const RUN = /(\$[^$]+\$|\p{Script=Han}+|[\p{Script=Latin}\p{M}\p{N}_]+)/u; // a formula, Chinese, or a name
  const { SiteSearch, tokenize } = kexueSearch;

  function element(name, attributes, ...content) {
    const made = Object.assign(document.createElement(name), attributes);
    made.append(...content);
    return made;
  }

  // What to mark: the words of the query without those of nearly every page, such as "of", which tell nothing.
  function tellingWords(site, query) {
    const { starts, pages } = site.index;
    const holders = (number) => (number === undefined ? 0 : starts[number + 1] - starts[number]);
    return new Set(tokenize(query).filter((token) => holders(site.numbers.get(token)) < 0.8 * pages.length));
  }

  // Text with these words in <mark>; a name is marked as a whole, Chinese by pairs, a formula not at all.
  function marked(text, words) {
    return text.split(RUN).map((run, i) => {
      if (i % 2 === 0 || run.startsWith("$")) return run;
      if (/^\p{Script=Han}/u.test(run)) return markedChinese([...run], words);
      return tokenize(run).some((token) => words.has(token)) ? element("mark", {}, run) : run;
    });
  }

  function markedChinese(letters, words) {
    const asked = (i) => [letters[i], letters[i - 1] + letters[i], letters[i] + letters[i + 1]].some((w) => words.has(w));
    const parts = [];
    letters.forEach((letter, i) => {
      const last = parts[parts.length - 1];
      if (last && last.asked === asked(i)) last.text += letter;
      else parts.push({ asked: asked(i), text: letter });
    });
    return element("span", { lang: "zh" }, ...parts.map((p) => (p.asked ? element("mark", {}, p.text) : p.text)));
  }

  function list(pages, words) {
    const items = pages.map(({ title, url, summary }) => {
      const link = element("a", { href: document.documentElement.dataset.content_root + url }, ...marked(title, words));
      return element("li", {}, link, element("p", { className: "context" }, ...marked(summary, words)));
    });
    const made = element("ul", { className: "search" }, ...items);
    made.setAttribute("role", "list"); // Safari takes it away with the bullets
    return made;
  }

  function count(found, shown, query) {
    if (found === 0) return `No page of the book has a word of “${query}”.`;
    if (found === 1) return "One page found.";
    return found > shown ? `The best ${shown} of ${found} pages.` : `${found} pages, the best first.`;
  }

  const query = (new URLSearchParams(location.search).get("q") ?? "").trim();
  const field = document.querySelector(".bd-search-container input");
  field.value = query;
  if (!query) {
    field.focus();
    return;
  }
  const site = new SiteSearch(kexueSearchIndex);
  const found = site.search(query, Infinity);
  const isChapter = (page) => page.url.startsWith("chapters/");
  const others = found.filter((page) => !isChapter(page)).slice(0, MOST_OTHERS);
  const chapters = found.filter(isChapter).slice(0, MOST - others.length);
  const words = tellingWords(site, query);
  const results = document.getElementById("search-results");
  if (chapters.length) results.append(list(chapters, words));
  if (others.length) results.append(element("h2", {}, "Glossary, reference and the rest"), list(others, words));
  document.querySelector(".search-summary").textContent = count(found.length, chapters.length + others.length, query);
  window.MathJax?.startup?.promise?.then(() => window.MathJax.typesetPromise([results]));
})();
