"use strict";
// Colours as the system has them, or as the reader has chosen.
(() => {
  const button = document.getElementById("theme");
  const names = { "": "as the system", light: "light", dark: "dark" };
  const order = Object.keys(names);
  const set = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `colours: ${names[theme]}`);
    button.title = `colours: ${names[theme]}`;
  };
  let theme = "";
  try {
    theme = localStorage.getItem("theme") || "";
  } catch { /* a page of a file may have no storage */ }
  set(order.includes(theme) ? theme : "");
  button.addEventListener("click", () => {
    theme = order[(order.indexOf(document.documentElement.dataset.theme) + 1) % order.length];
    set(theme);
    try {
      localStorage.setItem("theme", theme);
    } catch { /* it holds for this page */ }
  });
  // On paper everything is open but the fields of the config.
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("#curves details, #evaluations details")) {
      part.open = true;
    }
  });
})();
