// Nudges in Emberfall: this file is all that the game needed to add.

import { Journey } from 'https://nudges.example/v1/browser/journey.js'
import { besideThePanel } from '/files/shared/panel-link.js' // only here: the panel hears what happens

const text = async (path) => (await fetch(path)).text()

const journey = new Journey({ key: 'pub_your_key', ...besideThePanel })

export function identify(user) {
  journey.identify(user, { token: () => text('/gaming/api/token') })
}

/** A round was played. `streak`: days in a row, for the nudge that counts them. `take`: an offer was made, or followed. */
export async function played(level, streak, take) {
  journey.track('Round Played', { level })
  const decision = await journey.decide({ context: { platform: 'pc' } })
  const shown = journey.show(decision, { progress: streak, navigate: (link) => take(decision.decision_id, link) })
  if (shown) take(decision.decision_id) // it says that its points are added by themselves
}

export function shopOpened() {
  journey.track('Shop Opened')
}

// "Order Completed" is what nudges are rewarded for, so the game's backend reports it, not a page.
