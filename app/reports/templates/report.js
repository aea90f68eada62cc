(function () {
  "use strict";
  var chart = document.getElementById("chart");
  var data = JSON.parse(document.getElementById("figures").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function draw(name) {
    var figure = JSON.parse(JSON.stringify(data[name]));
    Plotly.react(chart, figure.data, figure.layout, data.config);
  }
  function follow() {
    draw(dark.matches ? "dark" : "light");
  }
  dark.addEventListener("change", follow);
  window.addEventListener("beforeprint", function () { draw("light"); });
  window.addEventListener("afterprint", follow);
  follow();
})();
