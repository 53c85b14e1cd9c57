/* Search of the book in the browser: BM25F on the index that SiteSearch.to_json writes. No library, no request.
 *
 *   const site = new SiteSearch(await (await fetch("site_search.json")).json());
 *   site.search("smooth top-k", 10);  // [{title, url, summary, score}, …], the best first
 *
 * tokenize() is kexue_lib.interludes.site_search.tokenize; a test holds both against each other. */
"use strict";

(function (home) {
  const HAN = "\\u3005-\\u3007\\u3400-\\u4dbf\\u4e00-\\u9fff\\u{20000}-\\u{3ffff}";
  const KANA = "\\u3041-\\u3096\\u309d-\\u309f\\u30a1-\\u30fa\\u30fc-\\u30ff\\u31f0-\\u31ff";
  const WORD = `(?:(?![${HAN}${KANA}])[\\p{L}\\p{N}])+`;
  const TOKEN = new RegExp(`\\\\([a-z]+)|(${WORD}(?:_+${WORD})*)|([${HAN}${KANA}]+)`, "gu");

  function tokenize(text) {
    const tokens = [];
    for (const [, command, name, paired] of text.normalize("NFKC").toLowerCase().matchAll(TOKEN)) {
      if (paired) {
        const characters = [...paired];
        if (characters.length === 1) tokens.push(paired);
        for (let i = 0; i + 1 < characters.length; i++) tokens.push(characters[i] + characters[i + 1]);
      } else {
        tokens.push(command || name);
        if (name && name.includes("_")) tokens.push(...name.split("_").filter(Boolean));
      }
    }
    return tokens;
  }

  class SiteSearch {
    constructor(index) {
      this.index = index;
      this.numbers = new Map(index.vocabulary.map((word, number) => [word, number]));
    }

    search(query, k = 10) {
      const { pages, starts, docs, weights, step } = this.index;
      const scores = new Float64Array(pages.length);
      for (const token of tokenize(query)) {
        const number = this.numbers.get(token);
        if (number === undefined) continue;
        for (let i = starts[number]; i < starts[number + 1]; i++) scores[docs[i]] += weights[i];
      }
      const found = [...scores.keys()].filter((page) => scores[page] > 0);
      found.sort((a, b) => scores[b] - scores[a] || a - b); // whole numbers: equal scores are equal
      return found.slice(0, k).map((page) => ({ ...pages[page], score: scores[page] * step }));
    }
  }

  const library = { SiteSearch, tokenize };
  if (typeof module === "object" && module.exports) module.exports = library;
  else home.kexueSearch = library;
})(typeof self === "object" ? self : this);
