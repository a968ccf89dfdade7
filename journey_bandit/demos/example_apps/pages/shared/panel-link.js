// Link between a page of this trial and the panel beside it. A page of your own needs none of this.

const panel = window.parent === window ? undefined : window.parent.journeyPanel

/** Options of Journey with which the panel hears what happens. Six processes share your machine, so there is more patience. */
export const besideThePanel = panel ? { onChange: panel.onChange, newId: panel.newId, patience: 20_000 } : {}

let passed = 0
let waiting = []

/** As `setTimeout(act, 1000 * seconds)`, by the time of the service, which the panel lets pass. */
export function after(seconds, act) {
  waiting.push({ at: passed + seconds, act })
}

window.addEventListener('time-passed', ({ detail }) => {
  passed += detail
  const due = waiting.filter(({ at }) => at <= passed)
  waiting = waiting.filter(({ at }) => at > passed)
  for (const { act } of due) act()
})
