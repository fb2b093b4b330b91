(function () {
  "use strict";
  var root = document.documentElement;
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  var config = { displaylogo: false, responsive: true, modeBarButtons: [["toImage"]] };

  function colour(name) {
    return getComputedStyle(root).getPropertyValue(name).trim();
  }

  // The drawings carry no page colours of their own: the style sheet is the one place that knows them.
  function theme() {
    var ink = colour("--ink"), grid = colour("--line"), paper = colour("--paper");
    return {
      "font.color": ink, "font.family": getComputedStyle(document.body).fontFamily, "font.size": 13,
      "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
      "xaxis.title.font.size": 13, "yaxis.title.font.size": 13, "xaxis.gridcolor": grid, "yaxis.gridcolor": grid, "xaxis.linecolor": grid, "yaxis.linecolor": grid,
      "hoverlabel.bgcolor": paper, "hoverlabel.bordercolor": grid, "hoverlabel.font.color": ink,
      "hoverlabel.align": "left", "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": grid,
      "modebar.activecolor": ink
    };
  }

  function repaint() {
    plots.forEach(function (plot) { if (plot.dataset.ready) { window.Plotly.relayout(plot, theme()); } });
  }

  // What is folded away has no size to draw on; it is drawn when it is opened.
  function draw(plot) {
    if (plot.dataset.begun || plot.closest("details.folded:not([open])")) { return; }
    plot.dataset.begun = "yes";
    var drawing = JSON.parse(document.getElementById(plot.dataset.drawing).textContent);
    window.Plotly.newPlot(plot, drawing.data, drawing.layout, config)
      .then(function () { return window.Plotly.relayout(plot, theme()); })
      .then(function () { plot.dataset.ready = "yes"; });
  }

  plots.forEach(draw);
  document.querySelectorAll("details.folded").forEach(function (fold) {
    fold.addEventListener("toggle", function () { fold.querySelectorAll(".plot").forEach(draw); });
  });

  function unfold() {
    var wanted = document.getElementById(window.location.hash.slice(1));
    var fold = wanted && wanted.querySelector(":scope > details.folded");
    if (fold) { fold.open = true; wanted.scrollIntoView(); }
  }
  window.addEventListener("hashchange", unfold);
  unfold();

  dark.addEventListener("change", repaint);
  window.addEventListener("beforeprint", function () { root.classList.add("on-paper"); repaint(); });
  window.addEventListener("afterprint", function () { root.classList.remove("on-paper"); repaint(); });
})();
