/**
 * A small chat for another site: <script src="https://slipway.example.org/embed.js" data-app="support" async></script>
 * The site's origin must be in `listen.allowed_origins`. Attributes: data-app, data-key (a key that may be public), data-lang, data-label, data-side (left or right).
 */
(() => {
  const script = document.currentScript;
  const { app = "", key = "", lang = "", label = "Ask a question", side = "right" } = script.dataset;
  const base = new URL("./", script.src);
  const address = new URL(`embed${lang ? `?lang=${encodeURIComponent(lang)}` : ""}`, base);
  address.hash = new URLSearchParams({ ...(app && { app }), ...(key && { key }) }).toString();

  const style = (node, rules) => Object.assign(node.style, rules);
  const host = document.createElement("div");
  const root = host.attachShadow({ mode: "open" });
  const opener = document.createElement("button");
  const frame = document.createElement("iframe");
  const edge = side === "left" ? "left" : "right";

  opener.type = "button";
  opener.textContent = label;
  opener.setAttribute("aria-expanded", "false");
  style(opener, { position: "fixed", zIndex: 2147483000, bottom: "20px", [edge]: "20px", padding: "12px 20px", border: "0", borderRadius: "999px" });
  style(opener, { background: "#0b5563", color: "#fff", font: "600 16px system-ui, sans-serif", cursor: "pointer", boxShadow: "0 4px 16px rgb(0 0 0 / .25)" });
  frame.title = label;
  frame.hidden = true;
  frame.allow = "clipboard-write";
  style(frame, { position: "fixed", zIndex: 2147483000, bottom: "80px", [edge]: "20px", width: "min(400px, calc(100vw - 40px))", height: "min(640px, calc(100vh - 110px))" });
  style(frame, { border: "1px solid rgb(0 0 0 / .15)", borderRadius: "14px", background: "#fff", boxShadow: "0 8px 32px rgb(0 0 0 / .25)", colorScheme: "light dark" });

  function show(shown) {
    if (shown && !frame.src) frame.src = address.href; // nothing is loaded before it is opened
    frame.hidden = !shown;
    frame.style.display = shown ? "block" : "none";
    opener.setAttribute("aria-expanded", String(shown));
    if (shown) frame.focus();
    else opener.focus();
  }

  opener.onclick = () => show(frame.hidden);
  addEventListener("message", ({ source, origin, data }) => {
    if (source === frame.contentWindow && origin === base.origin && data === "slipway:close") show(false);
  });
  root.append(frame, opener);
  document.body.append(host);
})();
