/** Draws one diagram inside of its frame, which has no origin and may load nothing, and tells the page how high it is. */

addEventListener("message", async ({ data: { source, dark } }) => {
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  mermaid.initialize({ startOnLoad: false, securityLevel: "strict", theme: dark ? "dark" : "neutral", htmlLabels: false, fontFamily: "system-ui, sans-serif" });
  try {
    const { svg } = await mermaid.render("diagram", source);
    document.body.innerHTML = svg;
    const { width, height } = document.querySelector("svg").getBoundingClientRect();
    parent.postMessage({ width, height }, "*");
  } catch (error) {
    parent.postMessage({ error: String(error.message ?? error).slice(0, 500) }, "*");
  }
});
parent.postMessage({ ready: true }, "*");
