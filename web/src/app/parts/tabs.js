/** The views as tabs, between which arrow keys move. */

/**
 * @param {HTMLElement} list of buttons with the role "tab"
 * @param {function(string)} shown called with the id of the view that comes up
 * @returns {function(string)} shows a view by its id
 */
export function createTabs(list, shown) {
  const tabs = [...list.querySelectorAll('[role="tab"]')];

  function select(id) {
    for (const tab of tabs) {
      const view = tab.getAttribute("aria-controls");
      tab.setAttribute("aria-selected", String(view === id));
      tab.tabIndex = view === id ? 0 : -1;
      document.getElementById(view).hidden = view !== id;
    }
    shown(id);
  }

  list.addEventListener("click", (event) => {
    const tab = event.target.closest('[role="tab"]');
    if (tab) select(tab.getAttribute("aria-controls"));
  });
  list.addEventListener("keydown", (event) => {
    const visible = tabs.filter(({ hidden }) => !hidden);
    const at = visible.indexOf(document.activeElement);
    const last = visible.length - 1;
    const to = { ArrowLeft: at ? at - 1 : last, ArrowRight: at < last ? at + 1 : 0, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    visible[to].focus();
    select(visible[to].getAttribute("aria-controls"));
  });
  return select;
}
