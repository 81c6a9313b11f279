// Airflow's theme: that of the page around this one, else what the browser prefers.

function outer() {
  try {
    // Another origin's page would refuse this.
    return window.parent === window ? null : window.parent.document.documentElement;
  } catch {
    return null;
  }
}

export function followTheme() {
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const around = outer();
  const set = () => {
    const told = around?.classList.contains("dark")
      ? "dark"
      : around?.classList.contains("light")
        ? "light"
        : "";
    const own = prefersDark.matches ? "dark" : "light";
    document.documentElement.dataset.theme = told || around?.dataset.theme || own;
  };
  set();
  prefersDark.addEventListener("change", set);
  if (around) {
    const filter = { attributes: true, attributeFilter: ["class", "data-theme"] };
    new MutationObserver(set).observe(around, filter);
  }
}
