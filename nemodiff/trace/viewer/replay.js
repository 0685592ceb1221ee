// What a replay does once it is read: it follows the reader's colours; what frames it may play it and learns its height.
const scheme = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark", scheme.matches);
scheme.addEventListener("change", follow);
follow();
const stage = mount(document.getElementById("stage"));
try {
  const trace = JSON.parse(document.getElementById("trace").textContent);
  stage.ingest({ kind: "recorded", trace, marks: JSON.parse(document.querySelector("main").dataset.marks) });
} catch (error) {
  console.error(error);
  stage.fail("This replay is damaged: its trace could not be read.");
}
if (window.parent !== window) {
  document.documentElement.classList.add("framed");
  const tell = () => window.parent.postMessage({ nemodiff: { height: document.documentElement.offsetHeight } }, "*");
  new ResizeObserver(tell).observe(document.body);
  window.addEventListener("message", ({ source, data }) => {
    if (source !== window.parent || !data?.nemodiff) return;
    const { clock, at } = data.nemodiff;
    if (clock) stage.transport.switchClock(clock);
    stage.transport.seek(at === "end" ? stage.transport.total : 0);
    if (at === "play") stage.transport.play();
  });
}
