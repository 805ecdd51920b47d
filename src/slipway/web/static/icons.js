/** Small drawings for buttons, made of nodes: the policy allows no markup from elsewhere. */

const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  copy: "M9 9h10v10H9zM5 15V5h10",
  again: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  share: "M12 15V4M8 8l4-4 4 4M5 13v7h14v-7",
  speak: "M4 10v4h4l5 4V6L8 10zM17 9a4 4 0 0 1 0 6",
  up: "M7 11v9H4v-9zM7 11l4-7c2 0 3 1 2.500 3L13 10h6c1 0 1.500 1 1.200 2l-2 7c-.2.600-.700 1-1.200 1H7",
  down: "M17 13V4h3v9zM17 13l-4 7c-2 0-3-1-2.500-3l.5-3H5c-1 0-1.500-1-1.200-2l2-7c.2-.600.700-1 1.200-1h10",
  flag: "M6 21V4M6 5h12l-2 4 2 4H6",
  pin: "M9 4h6l-1 6 4 4H6l4-4zM12 14v6",
  close: "M6 6l12 12M18 6L6 18",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  attach: "M8 12l6-6a3 3 0 0 1 4.500 4.500L10 19a5 5 0 0 1-7-7l8-8",
  check: "M5 12l5 5 9-10",
};
const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(path);
  return svg;
}
