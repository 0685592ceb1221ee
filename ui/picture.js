// Inside gr.HTML: `element`, `props`, `server`, `upload` and `watch` are in scope. #picture's `path`, or the
// promise of one while an upload goes on, goes with every request.

const root = element.querySelector("#picture");
const ask = document.querySelector("#ask");
const [slot, sheet, wrong] = [".slot", ".sheet", ".error"].map((name) => root.querySelector(name));
const ACCEPT = ["image/png", "image/jpeg", "image/webp", "image/gif"];
let state = { sees: false, picture: null, error: "" };
let turn = 0; // of the newest upload: an older one that comes later is left alone

function paint() {
  const { sees, picture, error } = state;
  root.hidden = !sees && !picture && !error;
  root.dataset.state = turn < 0 ? "going" : error ? "error" : picture ? "chosen" : "empty";
  const label = picture ? "The picture that goes with the prompt" : "Add a picture";
  slot.setAttribute("aria-label", label);
  slot.title = label;
  slot.querySelector("svg").toggleAttribute("hidden", Boolean(picture));
  root.querySelector(".chosen").hidden = !picture;
  for (const image of [slot.querySelector("img"), root.querySelector(".frame img")]) {
    image.hidden = !picture;
    if (picture && image.src !== picture.preview) image.src = picture.preview;
    if (!picture) image.removeAttribute("src");
  }
  if (picture) {
    const [rows, columns] = picture.grid || [0, 0];
    const grid = root.querySelector(".grid");
    grid.hidden = !picture.grid;
    grid.style.setProperty("--rows", rows);
    grid.style.setProperty("--columns", columns);
    const size = `${picture.width} × ${picture.height} pixels`;
    root.querySelector(".facts").textContent = picture.grid ? `${size}. The model sees ${rows} rows of ${columns}: ${rows * columns} image tokens.` : `${size}.`;
  }
  root.querySelector(".note").textContent = state.note || "";
  wrong.hidden = !error;
  wrong.textContent = error || "";
}

function show(open) {
  sheet.hidden = !open;
  slot.setAttribute("aria-expanded", String(open));
  if (!open && state.error) {
    state = { ...state, error: "" };
    paint();
  }
}

function take(next) {
  state = { ...state, ...next };
  if ("picture" in next && !next.picture) root.path = "";
  paint();
  if (!("picture" in next) && state.picture && state.sees) server.look(root.path).then((text) => take(JSON.parse(text))); // another checkpoint may see another grid
  if (next.error) show(true);
  if (next.pick) choose((props.examples || []).find((one) => one.name === next.pick), false);
}

/** A file to the server, which says what the model would see of it. */
async function send(file, question = "") {
  const mine = Math.abs(turn) + 1;
  turn = -mine; // under way
  if (state.error) state = { ...state, error: "" };
  paint();
  let answer;
  let path = "";
  let tell;
  root.path = new Promise((resolve) => (tell = resolve)); // who presses Generate now means this picture
  try {
    if (file.size > props.limit) throw new Error(`The picture's file is larger than ${props.limit / 1e6} MB: choose or save a smaller one.`);
    ({ path } = await upload(file).catch(() => {
      throw new Error("The picture could not be sent: check the connection and try again.");
    }));
    tell(path);
    answer = JSON.parse(await server.look(path));
  } catch (error) {
    answer = { picture: null, error: error instanceof SyntaxError ? "The page could not read what the server sent: reload it to go on." : error.message };
  }
  tell("lost");
  if (Math.abs(turn) !== mine) return;
  turn = mine;
  root.path = answer.picture ? path : "";
  take(answer);
  if (!answer.picture) return;
  show(false);
  root.querySelector(".announce").textContent = `Picture added, ${root.querySelector(".facts").textContent}`;
  if (question) fill(question);
}

/** The prompt's text, as if it was typed. */
function fill(text) {
  const field = document.querySelector("#prompt textarea");
  if (!field) return;
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

async function choose(example, ask = true) {
  if (!example) return;
  const data = await (await fetch(example.source)).blob();
  await send(new File([data], `${example.name}.png`, { type: "image/png" }), ask ? example.question : "");
}

const images = (data) => Array.from(data?.files || []).filter((file) => file.type.startsWith("image/"));

root.querySelector(".limit").textContent = props.limit / 1e6;
root.querySelector(".file").addEventListener("click", () => {
  const input = document.createElement("input");
  [input.type, input.accept] = ["file", ACCEPT.join(",")];
  input.addEventListener("change", () => input.files[0] && send(input.files[0]));
  input.click();
});
root.querySelector(".remove").addEventListener("click", () => {
  turn = Math.abs(turn) + 1;
  take({ picture: null });
  root.querySelector(".announce").textContent = "Picture removed.";
  show(false);
  slot.focus();
});
for (const example of props.examples || []) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = example.question;
  const image = document.createElement("img");
  [image.src, image.alt] = [example.source, `${example.name.replaceAll("-", " ")}: ${example.question}`];
  button.append(image);
  button.addEventListener("click", () => choose(example));
  const item = document.createElement("li");
  item.append(button);
  root.querySelector(".examples").append(item);
}
slot.addEventListener("click", () => show(sheet.hidden));
document.addEventListener("click", (event) => {
  if (event.isTrusted && event.target.isConnected && !root.contains(event.target)) show(false);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || sheet.hidden) return;
  show(false);
  slot.focus();
});
// A picture on the clipboard or dragged here; any text beside it is the prompt's as ever.
ask?.addEventListener("paste", (event) => {
  const [file] = images(event.clipboardData);
  if (!file) return;
  event.preventDefault();
  send(file);
});
ask?.addEventListener("dragover", (event) => {
  if (!Array.from(event.dataTransfer?.types || []).includes("Files")) return;
  event.preventDefault();
  ask.toggleAttribute("data-over", true);
});
ask?.addEventListener("dragleave", () => ask.toggleAttribute("data-over", false));
ask?.addEventListener("drop", (event) => {
  ask.toggleAttribute("data-over", false);
  const [file] = event.dataTransfer?.files || [];
  if (!file) return;
  event.preventDefault();
  send(file); // whatever it is: the server says what it thinks of it
});

/** The upload of the page before its reload, while the server keeps it. */
root.restore = (path) => {
  root.path = path;
  server.look(path).then((text) => root.path === path && take(JSON.parse(text)), (error) => console.error(error));
};

let read = 0;
function listen() {
  if (!props.value) return;
  const { n, ...next } = JSON.parse(props.value);
  if (n === read) return;
  read = n;
  take(next);
}
watch("value", listen);
listen();
