// Hands a live run to the playground on the same page, which may come later.
export default function ({ data: [data] }) {
  window.labPlaygroundFeed = data;
  window.dispatchEvent(new Event("lab-playground-feed"));
  return () => {};
}
