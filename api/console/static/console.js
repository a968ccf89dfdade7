// The overview looks for news by itself while it can be seen. A look says so, and keeps no session alive.
"use strict";

const EVERY = 15000;
const box = document.getElementById("refresh");

async function look() {
  if (!box.checked || document.hidden) return;
  const answer = await fetch(location.href, { headers: { "X-Console-Refresh": "1" }, credentials: "same-origin" });
  if (answer.redirected || !answer.ok) {
    location.reload();
    return;
  }
  const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [now, next] = [document.getElementById("live"), drawn.getElementById("live")];
  if (!next || now.contains(document.activeElement)) return;
  now.replaceWith(document.adoptNode(next));
  document.querySelector("footer").replaceWith(document.adoptNode(drawn.querySelector("footer")));
}

if (box) setInterval(() => look().catch(() => {}), EVERY);
