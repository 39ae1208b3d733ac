"use strict";
(() => {
  const { templates, figures } = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const template = () => templates[dark.matches ? "dark" : "light"];
  const places = [...document.querySelectorAll("[data-figure]")];
  // names of the data reach plotly with their <, > and & escaped; in a choice of the page they are plain text again
  const plain = (text) => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");

  function choice(place, menu) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    menu.buttons.forEach((button, i) => select.add(new Option(plain(button.label), i)));
    select.addEventListener("change", () => Plotly.update(place, ...menu.buttons[select.value].args));
    label.append(plain(menu.name), select);
    place.previousElementSibling.append(label);
  }

  for (const place of places) {
    const { data, layout } = figures[place.dataset.figure];
    (layout.updatemenus || []).forEach((menu) => choice(place, menu));
    delete layout.updatemenus;
    layout.template = template();
    if (touch) layout.dragmode = false; // a finger on a figure scrolls the page
    Plotly.newPlot(place, data, layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: touch ? false : "hover",
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], // none that would send data anywhere
    });
  }
  dark.addEventListener("change", () => places.forEach((place) => Plotly.relayout(place, { template: template() })));
})();
