// Inside gr.HTML: `element`, `props`, `server` and `watch` are in scope.

const stage = mount(element.querySelector("#stage"), {
  resync: (run) => server.resync(run),
  open: () => (document.querySelector("#open-trace input[type=file]") || document.querySelector("#open-trace"))?.click(),
});
let taken = null;
function take() {
  if (!props.value || props.value === taken) return;
  taken = props.value;
  try {
    stage.ingest(taken);
  } catch (error) {
    console.error(error);
    stage.fail("The page could not read what the server sent; reload it to go on.");
  }
}
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#generate")) stage.wait("Waiting for the model…");
  if (event.target.closest?.("#stop")) stage.unwait();
});
watch("value", take);
take();
