// Buttons that decide a claim again, or a changed one; all that they need is loaded on the first click.
(function () {
  "use strict";

  const home = document.currentScript.src;
  const live = () => import(new URL("live/ui.mjs", home));

  function button(words, name, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.setAttribute("aria-label", `${words}: ${name}`);
    const lost = () => made.replaceWith("This needs a file of the site that could not be loaded.");
    made.addEventListener("click", () => live().then(act, lost));
    return made;
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const card of document.querySelectorAll(".bd-article div.claim[id]:not(.claim-measured)")) {
      const label = card.querySelector(".claim-label").textContent;
      const bar = document.createElement("div");
      bar.className = "live-bar";
      bar.append(
        button("Check again", `claim ${label}`, (ui) => ui.again(card)),
        button("Change it", `claim ${label}`, (ui) => ui.change(card)),
      );
      card.append(bar);
    }
    for (const box of document.querySelectorAll(".live-exercise")) {
      box.append(button("Answer it here", box.dataset.title, (ui) => ui.answer(box)));
    }
    const page = document.querySelector("#prove-it");
    if (page) live().then((ui) => ui.play(page));
  });
})();
