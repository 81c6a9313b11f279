// If a file of the page does not come, says so, and loads the page again once Airflow answers.

const PAUSE = 3000; // milliseconds

function loadAgain() {
  fetch("main.js", { cache: "no-store" }).then(
    (answer) => (answer.ok ? location.reload() : setTimeout(loadAgain, PAUSE)),
    () => setTimeout(loadAgain, PAUSE),
  );
}

// An element's error event does not bubble, so it is taken on its way down.
window.addEventListener(
  "error",
  (event) => {
    if (event.target instanceof HTMLScriptElement) {
      const notice = document.getElementById("notice"); // there: modules run after parsing
      notice.textContent = "A part of this page did not come. It is loaded again by itself.";
      setTimeout(loadAgain, PAUSE);
    }
  },
  true,
);
