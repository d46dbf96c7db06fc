// The colours that were chosen, before anything is drawn. Without a choice they are those of the system.
"use strict";
try {
  const chosen = localStorage.getItem("darner-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // The browser keeps nothing for this page.
}
