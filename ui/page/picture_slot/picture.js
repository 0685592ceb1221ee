// Inside gr.HTML: `element`, `props`, `server`, `upload` and `watch` are in scope. #picture's `path`, or the
// promise of one while an upload goes on, goes with every request.

const root = element.querySelector("#picture");
const ask = document.querySelector("#ask");
const [slot, sheet, wrong] = [".slot", ".sheet", ".error"].map((name) => root.querySelector(name));
const ACCEPT = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const HEAD = 1 << 16; // bytes: enough to tell what a file is
const MOST = 150e6; // pixels that a browser is asked to decode, out of a small file
let state = { sees: false, blind: "", picture: null, shrunkFrom: null, error: "" };
let pending = null; // [file, question] that came while the checkpoint did not see
let turn = 0; // of the newest upload: an older one that comes later is left alone

function paint() {
  const { sees, picture, error } = state;
  root.dataset.blind = sees ? "no" : "yes";
  root.dataset.state = turn < 0 ? "going" : error ? "error" : picture ? "chosen" : "empty";
  const label = picture ? "The picture that goes with the prompt" : sees ? "Add a picture" : "Add a picture: this checkpoint reads text only";
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
    const from = state.shrunkFrom ? `, shrunk from ${state.shrunkFrom.join(" × ")}` : "";
    const size = `${picture.width} × ${picture.height} pixels${from}`;
    root.querySelector(".facts").textContent = picture.grid ? `${size}. The model sees ${rows} rows of ${columns}: ${rows * columns} image tokens.` : `${size}.`;
  }
  root.querySelector(".note").textContent = state.note || "";
  const said = error || (sees ? "" : state.blind);
  wrong.hidden = !said;
  wrong.textContent = said;
  const load = root.querySelector(".load");
  load.hidden = sees || !state.seer;
  load.disabled = Boolean(state.loading);
  load.textContent = state.loading ? `Loading ${state.seer}…` : `Load ${state.seer}${pending ? " for this picture" : ""}`;
}

function show(open) {
  sheet.hidden = !open;
  slot.setAttribute("aria-expanded", String(open));
  if (!open && state.error) {
    state = { ...state, error: "" };
    if (!state.loading) pending = null; // who closes it does not wait for a checkpoint that sees
    paint();
  }
}

function take(next) {
  state = { ...state, ...next, loading: false };
  if (state.sees && pending) {
    const [file, question] = pending;
    pending = null;
    send(file, question);
  }
  if ("picture" in next && !next.picture) root.path = "";
  paint();
  if (!("picture" in next) && state.picture && state.sees) server.look(root.path).then((text) => take(JSON.parse(text))); // another checkpoint may see another grid
  if (next.error) show(true);
  if (next.pick) choose((props.examples || []).find((one) => one.name === next.pick), false);
}

/** A file to the server, which says what the model would see of it. Nothing is sent to a checkpoint that does not see. */
async function send(file, question = "") {
  const mine = Math.abs(turn) + 1;
  turn = -mine; // under way
  pending = null;
  if (state.error) state = { ...state, error: "" };
  paint();
  const before = root.path;
  let answer;
  let path = "";
  let tell;
  root.path = new Promise((resolve) => (tell = resolve)); // who presses Generate now means this picture
  try {
    if (!state.sees) {
      const { sees, blind, seer, note } = JSON.parse(await server.look("")); // another visitor may have changed the checkpoint
      state = { ...state, sees, blind, seer, note };
    }
    if (state.sees) ({ path, answer } = await fitted(file));
  } catch (error) {
    answer = { picture: null, error: error instanceof SyntaxError ? "The page could not read what the server sent: reload it to go on." : error.message };
  }
  if (!answer) tell(before);
  else tell(answer.picture ? path : "lost");
  if (Math.abs(turn) !== mine) return;
  turn = mine;
  if (!answer) {
    root.path = before;
    pending = [file, question];
    take({ sees: false, error: state.blind });
    return;
  }
  root.path = answer.picture ? path : "";
  take(answer);
  if (!answer.picture) return;
  show(false);
  root.querySelector(".announce").textContent = `Picture added, ${root.querySelector(".facts").textContent}`;
  if (question) fill(question);
}

/** {path, answer} of a file that was uploaded as it is, or shrunk where it is larger than the server takes. */
async function fitted(file) {
  if (file.size <= props.limit) {
    const sent = await looked(file);
    const [width, height] = sent.answer.large || [Infinity, 1];
    const small = width * height <= MOST ? await shrunk(file) : null;
    return small ? looked(small.file, small.from) : sent;
  }
  const small = !file.type || ACCEPT.includes(file.type) ? await shrunk(file) : null;
  if (small) return looked(small.file, small.from);
  const sent = await looked(new File([file.slice(0, HEAD)], file.name)); // the server knows formats by their first bytes
  if (!sent.answer.other && !sent.answer.large) sent.answer = { picture: null, error: `The picture's file is larger than ${props.limit / 1e6} MB, and this browser cannot open it to shrink it: choose or save a smaller one.` };
  return sent;
}

async function looked(file, shrunkFrom = null) {
  const { path } = await upload(file).catch(() => {
    throw new Error("The picture could not be sent: check the connection and try again.");
  });
  return { path, answer: { ...JSON.parse(await server.look(path)), shrunkFrom } };
}

/** A picture as the model will get it, {file, from: [width, height]}: upright, on white, at most props.side pixels a side.
 * null where the browser cannot open it. */
async function shrunk(file) {
  const image = new Image(); // turned as the camera says when it is drawn
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
    const from = [image.naturalWidth, image.naturalHeight];
    const scale = Math.min(1, props.side / Math.max(...from));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = from.map((side) => Math.max(1, Math.round(side * scale)));
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    const saved = (type) => new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
    let blob = file.type === "image/jpeg" ? null : await saved("image/png"); // a screenshot's text stays sharp
    if (!blob || blob.size > props.limit) blob = await saved("image/jpeg");
    return blob && { file: new File([blob], file.name, { type: blob.type }), from };
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(image.src);
  }
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

/** The picture that a paste or a drop means. Office programs put one of the text beside the text: the text is meant,
 * unless it is only the picture's name or address, as file managers and browsers write it. */
function pictureOf(data) {
  const file = Array.from(data?.files || []).find((one) => one.type.startsWith("image/"));
  const text = (data?.getData("text/plain") || "").trim();
  const names = text.split(/[\\/]/).pop() === file?.name || /^(https?|file|data|blob):\S+$/i.test(text);
  return text && !names ? null : file;
}

// In the document while its chooser is open: iOS loses the file of an input that is not. A phone's camera has its own.
for (const [button, name] of [[".file", ".chooser"], [".camera", ".photo"]]) {
  const chooser = root.querySelector(name);
  chooser.accept = ACCEPT.join(",");
  chooser.addEventListener("change", () => {
    const [file] = chooser.files;
    if (file) send(file);
    chooser.value = ""; // the same file may be chosen again
  });
  root.querySelector(button).addEventListener("click", () => chooser.click());
}
root.querySelector(".load").addEventListener("click", () => {
  state = { ...state, loading: true };
  paint();
  document.querySelector("#checkpoint").choose(state.seer);
});
root.querySelector(".remove").addEventListener("click", () => {
  root.empty();
  root.querySelector(".announce").textContent = "Picture removed.";
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
  const file = pictureOf(event.clipboardData);
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
  if (!file || (file.type.startsWith("image/") && !pictureOf(event.dataTransfer))) return;
  event.preventDefault();
  send(file); // whatever it is: the server says what it thinks of it
});

/** No picture goes with the next prompt. */
root.empty = () => {
  turn = Math.abs(turn) + 1;
  take({ picture: null });
  show(false);
};

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
