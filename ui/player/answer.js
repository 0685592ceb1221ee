// What a finished answer is worth beyond its speed: one that was to be JSON and does not parse is no gain, however fast.
// The server judges ([{words, fault}] a lane), since it can read code, too; a stage without one shows what it was given.

const answerOf = (log, lane) => log.table.answer(lane.answer, lane.stop).join("");
const marksOf = (lane) => (lane.finish === "eos" && lane.closed?.marks) || [];

/** "" or what is wrong with a lane's answer. Only answers that ended by themselves are judged: a cut one cannot parse. */
const faultOf = (lane) => marksOf(lane).find((mark) => mark.fault)?.fault || "";

/** The mark in a lane's heading: what is wrong, else what holds; what a reader hears and sees of all of them. */
function paintMark(node, lane, whole) {
  const marks = whole ? marksOf(lane) : [];
  const shown = marks.find((mark) => mark.fault) || marks[0];
  node.hidden = !shown;
  setText(node, shown ? `${shown.fault ? "✗" : "✓"} ${shown.words}` : "");
  setData(node, "holds", shown ? (shown.fault ? "no" : "yes") : null);
  node.title = marks.map((mark) => mark.fault || mark.words).join("; ");
}
