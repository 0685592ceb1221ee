// Several replays, each in a frame of its own: their keys, sizes and errors stay apart.
const frames = Array.from(document.querySelectorAll("iframe"));
const clocks = Array.from(document.querySelectorAll("[data-clock]"));
let clock = "forwards";
const send = (at) => { for (const frame of frames) frame.contentWindow.postMessage({ nemodiff: { clock, at } }, "*"); };
for (const button of document.querySelectorAll("[data-at]")) button.addEventListener("click", () => send(button.dataset.at));
for (const button of clocks)
  button.addEventListener("click", () => {
    clock = button.dataset.clock;
    for (const one of clocks) one.setAttribute("aria-pressed", String(one === button));
    send("start");
  });
window.addEventListener("message", ({ source, data }) => {
  const frame = frames.find((one) => one.contentWindow === source);
  const height = Number(data?.nemodiff?.height);
  if (frame && height > 0 && height < 20000) frame.style.height = `${Math.ceil(height)}px`;
});
