// Score answer sheets as the 8values quiz does in the browser: node eightvalues.js questions.js < sheets.json
// A sheet holds one multiplier a question: 1, 0.5, 0, -0.5 or -1. Prints the percentages of each sheet, as shown and in full.
const fs = require("fs");
const vm = require("vm");

const page = {};
vm.createContext(page);
vm.runInContext(fs.readFileSync(process.argv[2], "utf8"), page);
const questions = page.questions;
const axes = Object.keys(questions[0].effect);
const sheets = JSON.parse(fs.readFileSync(0, "utf8"));

const scored = sheets.map((sheet) => {
  const percents = {};
  for (const axis of axes) {
    let max = 0;
    let score = 0;
    questions.forEach((question, i) => {
      max += Math.abs(question.effect[axis]);
      score += sheet[i] * question.effect[axis];
    });
    const percent = (100 * (max + score)) / (2 * max);
    percents[axis] = [percent.toFixed(1), percent];
  }
  return percents;
});
process.stdout.write(JSON.stringify(scored));
